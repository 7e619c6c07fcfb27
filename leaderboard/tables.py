"""Tables of rows: their columns, as Markdown for the README, as CSV with raw values."""

import csv
import html
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from zoo.errors import ZooError
from zoo.names import dataset_name, pretrained_names

from .row import Row

START, END = "<!-- leaderboard:start -->", "<!-- leaderboard:end -->"
TRIAL = "digits"
"""A data set to try the program with: its rows are in the CSV file and the page, and compare with nobody's."""
MISSING = "—"
EMPTY = "No results yet."


class Column(NamedTuple):
    """A column of a table of rows."""

    title: str
    field: str | Callable[[Row], Any]
    """A field of a row, or what makes the value from it."""
    form: str = ""
    """Format of a number, "" for a text."""
    unit: float = 1
    brief: bool = False
    """Whether the README has it."""
    about: str = ""
    """What its title leaves out."""

    def value(self, row: Row) -> Any:
        """Returns a number in the row's own unit, a text, or None."""
        return self.field(row) if callable(self.field) else getattr(row, self.field)

    def show(self, row: Row) -> str:
        """Returns the value as written in tables, with its deviation over seeds where the row has one."""
        value, deviation = self.value(row), getattr(row, f"{self.field}_std", None)
        if value is None or not self.form:
            return value or MISSING
        text = format(value / self.unit, self.form)
        return text if deviation is None else f"{text} ± {deviation / self.unit:{self.form}}"

    def order(self, row: Row) -> str:
        """Returns what a table sorts by, "" for what is missing."""
        value = self.value(row)
        return "" if value is None else str(value)


def _flat(precision: str, field: str) -> Callable[[Row], Any]:
    return lambda row: getattr(row.graph(precision), field, None)


_TIMED, _SKIPS = "Batch 1, one CPU thread", "flat layout, by the kernel that skips zeros"
COLUMNS = [
    Column("Dataset", "dataset", brief=True),
    Column("Model and tag", "name", brief=True),
    Column("Top-1 (%)", "top1", ".2f", brief=True, about="Percent of the whole test set, at the last epoch"),
    Column("Spikes per image", "spikes_per_image", ",.0f", brief=True, about="Of all layers and time steps"),
    Column("ACs (M)", "effective_acs", ",.2f", 1e6, about="Effective accumulations per image, as NeuroBench counts"),
    Column("MACs (M)", "effective_macs", ",.2f", 1e6, about="Effective multiply-accumulations per image"),
    Column("Energy (µJ)", "energy_uj", ",.2f", brief=True, about="Per image: 0.9 pJ an AC, 4.6 pJ a MAC (45 nm)"),
    Column("Timesteps", "timesteps", ".0f", brief=True),
    Column("Parameters (M)", "params", ".2f", 1e6, brief=True),
    Column("Seeds", "runs", ".0f"),
    Column("Epochs", "epochs", ".0f", brief=True, about="With those of the checkpoints that it was started from"),
    Column("ONNX p50 (ms)", _flat("fp32", "p50_ms"), ",.2f", brief=True, about=f"{_TIMED}; fp32, flat layout"),
    Column("int8 p50 (ms)", _flat("int8", "p50_ms"), ",.2f", about=f"{_TIMED}; flat layout"),
    Column("Event p50 (ms)", _flat("int16", "p50_ms"), ",.2f", brief=True, about=f"{_TIMED}; int16, {_SKIPS}"),
    Column("int8 top-1 (%)", _flat("int8", "top1"), ".2f"),
    Column("Event top-1 (%)", _flat("int16", "top1"), ".2f"),
    Column("Processor", "processor", brief=True, about="Of the latencies: those of two processors do not compare"),
    Column("Tier", "tier"),
    Column("Published top-1 (%)", "published_top1", ".2f", brief=True, about="Of this network and training, by others"),
    Column("Gradient scaling", "scaling"),
    Column("Training (min)", "train_seconds", ",.1f", 60, about="Of the whole chain"),
    Column("Started from", lambda row: ", ".join(a.name for a in row.started_from)),
    Column("Test-set reads", "test_reads", ".0f", brief=True, about="By its comparison and those it started from"),
    Column("Least firing rate (%)", "least_firing_rate", ".2f", 0.01, about="A layer is silent below 0.1"),
    Column("Test images", "images", ",.0f"),
    Column("Activation sparsity", "activation_sparsity", ".3f", about="Neurons and steps without a spike"),
    Column("Membrane updates (M)", "membrane_updates", ",.2f", 1e6),
    Column("Dense operations (M)", "dense", ",.2f", 1e6, about="Were nothing sparse"),
    Column("Footprint (MB)", "footprint_bytes", ",.2f", 1e6, about="Parameters and buffers"),
    Column("ONNX top-1 (%)", _flat("fp32", "top1"), ".2f", about="fp32, flat layout"),
    Column("ONNX size (MB)", _flat("fp32", "bytes"), ",.2f", 1e6),
    Column("int8 size (MB)", _flat("int8", "bytes"), ",.2f", 1e6),
    Column("Event size (MB)", _flat("int16", "bytes"), ",.2f", 1e6),
    Column("Published spikes per image", "published_spikes_per_image", ",.0f"),
]
"""The columns of rows that are measured here."""

CLAIMS = [
    Column("Method", "tag"),
    Column("Claimed top-1 (%)", "top1", ".2f"),
    Column("Reproduced by others", lambda row: "; ".join(f"{r.top1:.2f} ({r.citation})" for r in row.reproductions)),
    Column("Network", "model"),
    Column("Timesteps", "timesteps", ".0f"),
    Column("Parameters (M)", "params", ".2f", 1e6),
    Column("Spikes per image", "spikes_per_image", ",.0f"),
    Column("Dataset", "dataset"),
    Column("Citation", "published_citation"),
]
"""The columns of rows that are published only."""


# Fields that are no single value.
_UNFIT = {"evidence", "graphs", "recipe", "started_from", "reproductions"}
# What the CSV file says of flat graphs.
_GRAPHS = {
    f"{name}_{column}": _flat(precision, field)
    for name, precision in (("onnx", "fp32"), ("int8", "int8"), ("event", "int16"))
    for column, field in (("latency_ms", "p50_ms"), ("bytes", "bytes"), ("top1", "top1"), ("cpu", "cpu"))
}
# Of the README's table: where a class of sizes ends, in millions of parameters, and the most rows.
_SIZES, _MOST = (0.5, 2, 10), 12


def insert_table(text: str, table: str) -> str:
    """Returns the text of a README with `table` between the two leaderboard markers.

    Raises:
        ZooError: the text does not hold each marker once, start before end.
    """
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ZooError(f"the README needs the lines {START} and {END}, each once and in this order")
    head, rest = text.split(START)
    # The blank lines: without them GitHub takes the table for a part of the HTML comment.
    return f"{head}{START}\n\n{table}\n{END}{rest.split(END)[1]}"


def chosen(rows: Sequence[Row]) -> list[Row]:
    """Returns the README's rows, of rows that are sorted as `rows` sorts them: the best of each data set and size.

    Where these are more than twelve, of the data sets that have the most rows.
    """
    best: dict[tuple[str, int], Row] = {}
    for row in rows:
        best.setdefault((row.dataset, sum((row.params or 0) >= size * 1e6 for size in _SIZES)), row)
    count = Counter(row.dataset for row in rows)
    kept = sorted(best.values(), key=lambda row: -count[row.dataset])[:_MOST]
    return [row for row in rows if row in kept]


def summary(rows: Sequence[Row]) -> str:
    """Returns the README's table, in Markdown, with the rule by which its rows are chosen."""
    of, rows = len(rows), chosen(rows)
    if not rows:
        return f"{EMPTY}\n"
    columns = [column for column in COLUMNS if column.brief and any(column.order(row) for row in rows)]
    sizes = f"below {', '.join(map(str, _SIZES))} million parameters, and above"
    rule = f"The best top-1 of each data set and size ({sizes}), at most {_MOST} rows"
    return f"{markdown_table(columns, rows)}\n{rule}: {len(rows)} of {of}.\n"


def markdown_table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Returns a Markdown table; what files say is escaped."""
    lines = [[column.title for column in columns]]
    lines.append(["---:" if column.form else ":---" for column in columns])
    texts = [[" ".join(column.show(row).split()) for column in columns] for row in rows]
    lines += [[markdown_text(text) for text in line] for line in texts]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def markdown_text(text: str) -> str:
    """Returns what shows as `text` in Markdown: no HTML, link, image, emphasis, code or cell of a table comes of it."""
    # An underscore between letters emphasises nothing.
    escaped = re.sub(r"[\\`*~\[\]]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", html.escape(text, quote=False))
    for sign, told in {"|": "&#124;", "://": "&#58;//", "www.": "www&#46;", "@": "&#64;"}.items():
        escaped = escaped.replace(sign, told)
    return escaped


def checkpoints_text(rows: Sequence[Row]) -> str:
    """Returns what is measured of the zoo's own checkpoints, in JSON, a line each; see `zoo.names.measured`."""
    told: dict[str, str] = {}
    for row in rows:
        trained_on = dataset_name((row.recipe or {}).get("dataset", row.dataset))
        if row.name in pretrained_names() and row.dataset == trained_on != TRIAL:
            keys = ("dataset", "top1", "timesteps", "params", "spikes_per_image")
            graph = row.graph()
            timed = {"latency_ms": graph and graph.p50_ms, "cpu": graph and graph.cpu}
            told.setdefault(row.name, json.dumps({key: getattr(row, key) for key in keys} | timed))
    return "{\n" + ",\n".join(f"  {json.dumps(name)}: {values}" for name, values in told.items()) + "\n}\n"


def csv_text(rows: Sequence[Row]) -> str:
    """Returns every field of a row but the evidence, and its flat graphs, in CSV and unscaled (seconds, bytes, ms).

    Empty where nothing was measured.
    """
    names = [field.name for field in fields(Row) if field.name not in _UNFIT]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *_GRAPHS])
    for row in rows:
        values = [*(getattr(row, name) for name in names), *(field(row) for field in _GRAPHS.values())]
        writer.writerow(map(_plain, values))
    return text.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        value = " ".join(value)
    # Ten digits are more than any measurement here has and hide the last bits of a mean.
    if isinstance(value, float):
        return format(value, ".10g")
    # Text of a record of anybody's, which a spreadsheet would take for a formula.
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
