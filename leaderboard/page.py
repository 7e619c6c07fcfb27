"""The HTML page: a table that sorts and filters, the evidence below each row, a scatter plot for each dataset."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .columns import COLUMNS, EMPTY, MISSING
from .row import Result, Row
from .scatter import picture

_TEMPLATE = Path(__file__).with_name("page.html")
_SIDES = ["number" if column.form else "text" for column in COLUMNS]


def html_page(rows: Sequence[Row]) -> str:
    """One self-contained page (CSS, JavaScript and plots inline); everything that comes from a file is escaped."""
    datasets = {row.dataset: [other for other in rows if other.dataset == row.dataset] for row in rows}
    bodies = [_body(row, rank) for ranked in datasets.values() for rank, row in enumerate(ranked, 1)]
    plots = {dataset: picture(ranked) for dataset, ranked in datasets.items()}
    figures = [f'<figure data-dataset="{escape(name)}">{svg}</figure>' for name, svg in plots.items() if svg]
    titles = [f'class="{side}"><button type="button">{c.title}' for side, c in zip(_SIDES, COLUMNS, strict=True)]
    parts = {
        "<!--filter-->": "".join(f"<option>{escape(dataset)}</option>" for dataset in datasets),
        "<!--plots-->": "\n".join(figures),
        "<!--head-->": "".join(f'<th scope="col" {title}</button></th>' for title in titles),
        "<!--rows-->": "\n".join(bodies) or f'<tbody><tr><td colspan="{len(COLUMNS) + 1}">{EMPTY}</td></tr></tbody>',
    }
    page = _TEMPLATE.read_text(encoding="utf-8")
    for marker, part in parts.items():  # escaped text holds no "<", so a part cannot bring in the next marker
        page = page.replace(marker, part)
    return page


def _body(row: Row, rank: int) -> str:
    """The two table rows of one leaderboard row, in a tbody of their own so that sorting keeps them together."""
    values = [getattr(row, column.field) for column in COLUMNS]
    cells = "".join(
        f'<td class="{side}" data-value="{"" if value is None else escape(str(value))}">{escape(column.show(row))}</td>'
        for side, value, column in zip(_SIDES, values, COLUMNS, strict=True)
    )
    evidence = "".join(_evidence(origin, result) for origin, result in row.evidence)
    citation = f"<p>Published number: {escape(row.published_citation)}</p>" if row.published_citation else ""
    return (
        f'<tbody id="{escape(row.path)}" data-dataset="{escape(row.dataset)}">'
        f'<tr><td class="number">{rank}</td>{cells}</tr>'
        f'<tr class="more"><td colspan="{len(COLUMNS) + 1}"><details><summary>Evidence: '
        f"{escape(row.name)}, {len(row.evidence)} file{'s' if len(row.evidence) != 1 else ''}</summary>"
        f"{citation}{evidence}</details></td></tr></tbody>"
    )


def _evidence(origin: str, result: Result) -> str:
    """One result file: every key but the bulky ones as it stands, the bulky ones as small tables."""
    layers = {**(result["spikes_per_layer"] or {}), "all": result["spikes_per_image"]}
    spikes = [(layer, MISSING if count is None else f"{count:,.0f}") for layer, count in layers.items()]
    batches = result.get("latency") or []
    latency = [(b["batch"], b["threads"], f"{b['p50_ms']:,.2f}", f"{b['p95_ms']:,.2f}") for b in batches]
    tables = _table(("Layer", "Spikes per image"), spikes if result["spikes_per_layer"] else [])
    tables += _table(("Batch", "Threads", "p50 (ms)", "p95 (ms)"), latency)
    facts = "".join(
        f"<dt>{escape(key)}</dt><dd>{_fact(value)}</dd>"
        for key, value in sorted(result.items(), key=lambda item: item[0] != "command")
        if key not in ("spikes_per_layer", "latency", "reference")
    )
    return f'<section><h3>{escape(origin)}</h3><div class="file"><dl>{facts}</dl>{tables}</div></section>'


def _table(head: Iterable[str], lines: Sequence[Iterable[Any]]) -> str:
    if not lines:
        return ""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in line)}</tr>" for line in lines)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _fact(value: Any) -> str:
    if value is None or value == "":
        return MISSING
    if isinstance(value, dict):
        return "<br>".join(f"{escape(str(key))}: {_fact(item)}" for key, item in value.items()) or MISSING
    return f"<code>{escape(value if isinstance(value, str) else json.dumps(value))}</code>"
