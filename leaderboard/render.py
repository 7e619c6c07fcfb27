"""From rows to text: a table and a picture for the README, a CSV file with raw values."""

import csv
import html
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from zoo.errors import ZooError

from .columns import COLUMNS, EMPTY, Column
from .row import Row
from .scatter import picture

START, END = "<!-- leaderboard:start -->", "<!-- leaderboard:end -->"
TRIAL = "digits"
"""A data set to try the program with: its rows are in the CSV file and the page, and compare with nobody's."""


# Fields that are no single value.
_UNFIT = {
    "evidence", "graphs", "recipe", "started_from", "spikes_per_layer", "spikes_per_step", "products", "plugins",
    "reproductions",
}  # fmt: skip
# What a spreadsheet takes for the start of a formula; behind an apostrophe it is text.
_FORMULA = ("=", "+", "-", "@")
# What the CSV file says of graphs: a column's name, then the precision and the field of the flat one.
_GRAPHS = {
    f"{name}_{column}": (precision, field)
    for name, precision in (("onnx", "fp32"), ("int8", "int8"))
    for column, field in (("latency_ms", "p50_ms"), ("bytes", "bytes"), ("top1", "top1"), ("cpu", "cpu"))
}
# Of the README's table: where a class of sizes ends, in millions of parameters, and the most rows.
_SIZES, _MOST = (0.5, 2, 10), 12


class Pages(NamedTuple):
    """What is rendered: a Markdown table, the text of an SVG file ("" for none) and of a CSV file."""

    markdown: str
    svg: str
    csv: str


def render(rows: Sequence[Row]) -> Pages:
    """Render rows three times. The same rows give the same bytes, drawings where Matplotlib's version is the same."""
    rows = [row for row in rows if row.tier != "published"]
    brief = [row for row in rows if row.dataset != TRIAL]
    return Pages(_markdown(chosen(brief), len(brief)), picture(brief), _csv(rows))


def insert_table(text: str, table: str) -> str:
    """The text of a README with `table` between the two leaderboard markers.

    Raises:
        ZooError: the text does not hold each marker once, start before end.
    """
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ZooError(f"the README needs the lines {START} and {END}, each once and in this order")
    head, rest = text.split(START)
    # The blank lines: without them GitHub takes the table for a part of the HTML comment.
    return f"{head}{START}\n\n{table}\n{END}{rest.split(END)[1]}"


def chosen(rows: Sequence[Row]) -> list[Row]:
    """Of rows that are sorted as `collect.rows` sorts them, those of the README: the best of each data set and size.

    Where these are more than twelve, of the data sets that have the most rows.
    """
    best: dict[tuple[str, int], Row] = {}
    for row in rows:
        best.setdefault((row.dataset, sum((row.params or 0) >= size * 1e6 for size in _SIZES)), row)
    count = Counter(row.dataset for row in rows)
    kept = sorted(best.values(), key=lambda row: -count[row.dataset])[:_MOST]
    return [row for row in rows if row in kept]


def _markdown(rows: Sequence[Row], of: int) -> str:
    if not rows:
        return f"{EMPTY}\n"
    columns = [column for column in COLUMNS if column.brief and any(column.order(row) for row in rows)]
    sizes = f"below {', '.join(map(str, _SIZES))} million parameters, and above"
    rule = f"The best top-1 of each data set and size ({sizes}), at most {_MOST} rows"
    return f"{markdown_table(columns, rows)}\n{rule}: {len(rows)} of {of}.\n"


def markdown_table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Rows as a Markdown table; what files say is escaped."""
    lines = [[column.title for column in columns]]
    lines.append(["---:" if column.form else ":---" for column in columns])
    texts = [[" ".join(column.show(row).split()) for column in columns] for row in rows]
    lines += [[markdown_text(text) for text in line] for line in texts]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def markdown_text(text: str) -> str:
    """What shows as `text` in Markdown: no HTML, link, image, emphasis, code or cell of a table comes of it."""
    # An underscore between letters emphasises nothing.
    escaped = re.sub(r"[\\`*~\[\]]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", html.escape(text, quote=False))
    for sign, told in {"|": "&#124;", "://": "&#58;//", "www.": "www&#46;", "@": "&#64;"}.items():
        escaped = escaped.replace(sign, told)
    return escaped


def _csv(rows: Sequence[Row]) -> str:
    """Every field of a row but the evidence, and its flat graphs in fp32 and int8, unscaled (seconds, bytes, ms).

    Empty where nothing was measured.
    """
    names = [field.name for field in fields(Row) if field.name not in _UNFIT]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *_GRAPHS])
    for row in rows:
        graphs = [getattr(row.graph(precision), field, None) for precision, field in _GRAPHS.values()]
        writer.writerow([_plain(value) for value in [*(getattr(row, name) for name in names), *graphs]])
    return text.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        value = " ".join(value)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    # Ten digits are more than any measurement here has and hide the last bits of a mean.
    return format(value, ".10g") if isinstance(value, float) else value
