"""The page: one HTML file, from rows, that holds all it needs and asks nobody for anything.

Its libraries are an extra: `pip install -e '.[site]'` in the checkout.
"""

import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from recipes.differences import Difference, differences
from recipes.page import setting
from recipes.plan import PLANS, Plan, load_plan
from zoo.files import dump_yaml
from zoo.hub.client import published as on_hub
from zoo.hub.release import LOG, Release, bibtex, card, collect
from zoo.load import BUNDLED, pretrained_names

from .charts import COSTS, Chart, arms, paired, spikes, trade_off, training
from .comparison import comparisons
from .row import TIERS, Row
from .tables import CLAIMS, COLUMNS, EMPTY, MISSING, Column

_SITE = Path(__file__).resolve().parent / "site"


def page(rows: Sequence[Row]) -> str:
    """Returns the HTML text, in which what comes from a file is escaped.

    Args:
        rows: of every tier. Those that are published only are a table and a layer of plots, and have no rank.
    """
    ours = [row for row in rows if row.tier != "published"]
    datasets = list(dict.fromkeys(row.dataset for row in ours))
    published = [row for row in rows if row.tier == "published" and row.dataset in datasets]
    loader = FileSystemLoader(_SITE)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
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
        # The name first: on a phone what follows it is in sight.
        columns=_filled([*COLUMNS[1:], COLUMNS[0]], ours),
        claims=_filled(CLAIMS, published),
        plots={
            name: list(filter(None, (trade_off(c, _of(name, ours), _of(name, published)) for c in COSTS.values())))
            for name in datasets
        },
        comparisons=comparisons(ours),
        studies=studies(),
        lines={"graphs": _graphs, "chain": _chain, "study": _study},
        libraries=_libraries(),
        style=(_SITE / "style.css").read_text(encoding="utf-8"),
        script=(_SITE / "page.js").read_text(encoding="utf-8"),
        empty=EMPTY,
    )


class Libraries(NamedTuple):
    """The libraries that the page runs on, as text to put into it, without a link to anywhere."""

    charts: str
    """Vega-Embed, which sets window.vegaEmbed."""
    table: str
    """DataTables: a module that exports jQuery, with the table and its extensions."""
    table_style: str


@cache
def _libraries() -> Libraries:
    bundle = files("itables") / "html"
    texts = [(bundle / f"dt_bundle.{kind}").read_text(encoding="utf-8") for kind in ("js", "css")]
    charts = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # In a string of JavaScript the same text, and no end of the script that the page puts it into.
    script, style, charts = (re.sub("<(?=/?script|!--)", r"\\x3c", text, flags=re.I) for text in (*texts, charts))
    return Libraries(charts, script, style)


def _filled(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    return [column for column in columns if any(column.order(row) for row in rows)]


def _of(dataset: str, rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.dataset == dataset]


def _breakable(name: str) -> Markup:
    """Returns a name that may go on in a new line after a dot or an underscore."""
    return Markup(str(escape(name)).replace("_", "_<wbr>").replace(".", "<wbr>."))


def _inline(text: str) -> Markup:
    return Markup(MarkdownIt("js-default").renderInline(text))  # which escapes HTML


# One network


class Network(NamedTuple):
    """What the template shows of a row beside the row itself."""

    row: Row
    load: str
    """Python code."""
    recipe: str
    """YAML, "" where it is not known."""
    charts: list[Chart]
    card: str
    """HTML, "" for what is not bundled."""
    citation: str
    """BibTeX."""
    evidence: list[tuple[str, str]]
    """File and content of each measurement."""
    commands: list[str]
    """The commands that gave the numbers, those that trained it first."""


def network(row: Row) -> Network:
    """Gathers everything about a row that is measured here."""
    release = _release(row)
    recipe = row.recipe or (release and release.recipe)
    commands = dict.fromkeys(result["command"] for _, result in row.evidence)
    source = json.dumps(row.name) if release else '"RUN_FOLDER")  # the folder that its training, below, wrote'
    return Network(
        row=row,
        load=f"import zoo\nmodel = zoo.load({source}{')' if release else ''}\n",
        recipe=dump_yaml(recipe) if recipe else "",
        charts=[*spikes(row), *(training(release.files[LOG].decode()) if release else ())],
        card=_html(card(release, where.repo if (where := on_hub().get(row.name)) else None)) if release else "",
        citation=_citation(row),
        evidence=[(origin, json.dumps(result, indent=1, ensure_ascii=False)) for origin, result in row.evidence],
        commands=sorted(commands, key=lambda command: "train" not in command),
    )


def _release(row: Row) -> Release | None:
    """Returns the bundled checkpoint of a row, with all that was measured of it."""
    if row.name not in pretrained_names() or not (BUNDLED / row.name).is_dir():
        return None
    release = collect(BUNDLED / row.name)
    results = [result for _, result in row.evidence if result["weights_sha256"] == release.config["weights_sha256"]]
    return release._replace(results=results) if results else None


def _html(card: str) -> str:
    """Renders a model card without its metadata; Markdown that brings HTML along shows it as text."""
    return MarkdownIt("js-default").render(card.split("---\n", 2)[2])


def _citation(row: Row) -> str:
    date = max((result["date"] for _, result in row.evidence), default="")
    weights = next((result["weights_sha256"] for _, result in row.evidence), "")
    note = f"Top-1 {row.top1:.2f} % on {row.dataset}" + (f", weights sha256 {weights}" if weights else "")
    own = f"""\
@misc{{snnzoo:{re.sub("[^A-Za-z0-9.-]", "-", row.name)},
  title = {{{{{_latex(row.name)}}}, a spiking neural network of snn-zoo}},
  author = {{{{The snn-zoo developers}}}},
  year = {{{date[:4]}}},
  note = {{{_latex(note)}}}
}}
"""
    return f"{own}\n" + bibtex(scaled=row.scaling is not None)


def _latex(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", "/"))


def _number(value: float | None, form: str) -> str:
    return MISSING if value is None else format(value, form)


def _graphs(row: Row) -> list[list[str]]:
    return [
        [
            graph.precision, graph.layout, _number(graph.top1, ".2f"), _number(graph.images, ","),
            _number(graph.spikes_per_image, ",.0f"), _number(graph.spikes_differ, ","),
            _number(graph.bytes / 1e6, ".2f"), _number(graph.p50_ms, ",.2f"), graph.provider,
        ]
        for graph in row.graphs
    ]  # fmt: skip


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


# Every ablation of the project that compares rules of gradient scaling


class Study(NamedTuple):
    """An ablation: what it asks, how it was measured, its paired differences and its charts."""

    name: str
    question: str
    setting: str
    differences: list[Difference]
    charts: list[Chart]


def studies() -> list[Study]:
    """Returns the ablations that have results, and arms with different rules; by name."""
    plans = [load_plan(str(file)) for file in sorted(PLANS.glob("*.yaml")) if file.with_suffix("").is_dir()]
    return [_measured(plan) for plan in plans if len({str(run.recipe.scaling) for run in plan.runs}) > 1]


def _measured(plan: Plan) -> Study:
    results = {arm: list(plan.results(arm).values()) for arm in plan.arms}
    found = differences(plan)
    every = [result for arm in plan.arms for result in results[arm]]
    charts = [paired(found)] if found else []
    return Study(plan.name, plan.question, setting(every), found, [*charts, arms(results)])


def _study(study: Study) -> list[list[str]]:
    return [list(map(str, difference.cells)) for difference in study.differences]
