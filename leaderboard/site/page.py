"""From rows to the page: one HTML file that holds all it needs and asks nobody for anything."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from recipes.studies.ablation.differences import p_value

from ..columns import CLAIMS, COLUMNS, EMPTY, MISSING, Column
from ..comparison import comparisons
from ..row import TIERS, Row
from .network import network
from .scaling import Study, studies
from .scripts import libraries, policy_hash
from .trade_off import MEASURES, trade_off

_HERE = Path(__file__).resolve().parent


def page(rows: Sequence[Row]) -> str:
    """The HTML text. What comes from a file is escaped; a policy in the page lets no script run but its own.

    Args:
        rows: of every tier. Those that are published only are a table and a layer of plots, and have no rank.
    """
    ours = [row for row in rows if row.tier != "published"]
    datasets = list(dict.fromkeys(row.dataset for row in ours))
    published = [row for row in rows if row.tier == "published" and row.dataset in datasets]
    # The name first: on a phone what follows it is in sight.
    columns = _filled([*COLUMNS[1:], COLUMNS[0]], ours)
    script, texts = (_HERE / "page.js").read_text(encoding="utf-8"), libraries()
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"breakable": _breakable, "inline": _inline}
    return environment.get_template("template.html").render(
        rows=ours,
        ranks={row.path: rank for name in datasets for rank, row in enumerate(_of(name, ours), 1)},
        networks=[network(row) for row in ours],
        published=published,
        datasets=datasets,
        tiers=[tier for tier in TIERS if any(row.tier == tier for row in ours)],
        tier_texts=TIERS,
        columns=columns,
        claims=_filled(CLAIMS, published),
        plots={name: _plots(_of(name, ours), _of(name, published)) for name in datasets},
        comparisons=comparisons(ours),
        studies=studies(),
        lines={"graphs": _graphs, "chain": _chain, "study": _study},
        libraries=texts,
        style=(_HERE / "style.css").read_text(encoding="utf-8"),
        script=script,
        hashes=Markup(" ".join(map(policy_hash, (texts.charts, script)))),
        empty=EMPTY,
    )


def _filled(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    return [column for column in columns if any(column.order(row) for row in rows)]


def _of(dataset: str, rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.dataset == dataset]


def _plots(rows: Sequence[Row], published: Sequence[Row]) -> list[dict[str, Any]]:
    charts = (trade_off(measure, rows, published) for measure in MEASURES.values())
    return [chart for chart in charts if chart]


def _breakable(name: str) -> Markup:
    """A name that may go on in a new line after a dot or an underscore."""
    return Markup(str(escape(name)).replace("_", "_<wbr>").replace(".", "<wbr>."))


def _inline(text: str) -> Markup:
    return Markup(MarkdownIt("js-default").renderInline(text))  # which escapes HTML


def _number(value: float | None, form: str) -> str:
    return MISSING if value is None else format(value, form)


def _graphs(row: Row) -> list[list[str]]:
    return [
        [
            graph.precision,
            graph.layout,
            _number(graph.top1, ".2f"),
            _number(graph.images, ","),
            _number(graph.spikes_per_image, ",.0f"),
            _number(graph.spikes_differ, ","),
            _number(graph.bytes / 1e6, ".2f"),
            _number(graph.p50_ms, ",.2f"),
            graph.provider,
        ]
        for graph in row.graphs
    ]


def _chain(row: Row) -> list[list[str]]:
    return [
        [
            ancestor.name,
            _number(ancestor.epochs, "d"),
            MISSING if ancestor.train_seconds is None else f"{ancestor.train_seconds / 3600:.1f}",
            (ancestor.recipe_sha256 or MISSING)[:12],
            ancestor.weights_sha256[:12],
        ]
        for ancestor in reversed(row.started_from)
    ]


def _study(study: Study) -> list[list[Any]]:
    return [
        [
            d.arm,
            d.other,
            d.pairs,
            str(d.top1),
            d.verdict,
            p_value(d.top1_p),
            str(d.spikes or MISSING),
            p_value(d.spikes_p),
        ]
        for d in study.differences
    ]
