"""The HTML page: a table that sorts and filters, the evidence below each row, a scatter plot for each dataset."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .collect import Result, Row
from .columns import COLUMNS, EMPTY, MISSING, shown
from .scatter import Point, scatter

_TEMPLATE = Path(__file__).with_name("page.html")


def html_page(rows: Sequence[Row]) -> str:
    """One self-contained page (CSS, JavaScript and plots inline); everything that comes from a file is escaped."""
    datasets = sorted({row.dataset for row in rows})
    rank = dict.fromkeys(datasets, 0)
    bodies, points = [], []
    for row in rows:
        rank[row.dataset] += 1
        anchor = f"{row.dataset}-{rank[row.dataset]}"
        bodies.append(_body(row, rank[row.dataset], anchor))
        points.append(Point(row, str(rank[row.dataset]), anchor))
    plots = [scatter(dataset, [point for point in points if point.row.dataset == dataset]) for dataset in datasets]
    parts = {
        "<!--filter-->": "".join(f"<option>{escape(dataset)}</option>" for dataset in datasets),
        "<!--plots-->": "\n".join(plots),
        "<!--head-->": "".join(
            f'<th scope="col" class="{_side(column.numeric)}"><button type="button">{column.title}</button></th>'
            for column in COLUMNS
        ),
        "<!--rows-->": "\n".join(bodies) or f'<tbody><tr><td colspan="{len(COLUMNS) + 1}">{EMPTY}</td></tr></tbody>',
    }
    page = _TEMPLATE.read_text(encoding="utf-8")
    for marker, part in parts.items():  # escaped text holds no "<", so a part cannot bring in the next marker
        page = page.replace(marker, part)
    return page


def _body(row: Row, rank: int, anchor: str) -> str:
    """The two table rows of one leaderboard row, in a tbody of their own so that sorting keeps them together."""
    cells = "".join(
        f'<td class="{_side(column.numeric)}" data-value="{escape(_sort_key(column.value(row)))}">'
        f"{escape(column.show(row))}</td>"
        for column in COLUMNS
    )
    evidence = "".join(_evidence(origin, result) for origin, result in row.evidence)
    citation = f"<p>Published number: {escape(row.reference['citation'])}</p>" if row.reference else ""
    return (
        f'<tbody id="{escape(anchor)}" data-dataset="{escape(row.dataset)}">'
        f'<tr><td class="number">{rank}</td>{cells}</tr>'
        f'<tr class="more"><td colspan="{len(COLUMNS) + 1}"><details><summary>Evidence: '
        f"{escape(row.name)}, {len(row.evidence)} file{'s' if len(row.evidence) != 1 else ''}</summary>"
        f"{citation}{evidence}</details></td></tr></tbody>"
    )


def _evidence(origin: str, result: Result) -> str:
    """One result file: every key but the bulky ones as it stands, the bulky ones as small tables."""
    tables = _spikes_table(result) + _latency_table(result.get("latency") or [])
    bulky = {"spikes_per_layer", "latency", "reference"}
    facts = "".join(
        f"<dt>{escape(key)}</dt><dd>{_fact(value)}</dd>"
        for key, value in sorted(result.items(), key=lambda item: item[0] != "command")
        if key not in bulky
    )
    return f'<section><h3>{escape(origin)}</h3><div class="file"><dl>{facts}</dl>{tables}</div></section>'


def _spikes_table(result: Result) -> str:
    layers, total = result["spikes_per_layer"], result["spikes_per_image"]
    if not layers:
        return ""
    lines = [[layer, shown(count, ",.0f")] for layer, count in layers.items()]
    return _table(["Layer", "Spikes per image"], [*lines, ["all", shown(total, ",.0f")]])


def _latency_table(entries: Iterable[dict[str, Any]]) -> str:
    lines = [
        [str(entry["batch"]), str(entry["threads"]), f"{entry['p50_ms']:,.2f}", f"{entry['p95_ms']:,.2f}"]
        for entry in entries
    ]
    return _table(["Batch", "Threads", "p50 (ms)", "p95 (ms)"], lines) if lines else ""


def _table(head: list[str], lines: list[list[str]]) -> str:
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _fact(value: Any) -> str:
    if value is None or value == "":
        return MISSING
    if isinstance(value, dict):
        return "<br>".join(f"{escape(str(key))}: {_fact(item)}" for key, item in value.items()) or MISSING
    return f"<code>{escape(value if isinstance(value, str) else json.dumps(value))}</code>"


def _sort_key(value: Any) -> str:
    return "" if value is None else str(value)


def _side(numeric: bool) -> str:
    return "number" if numeric else "text"
