"""The page: one HTML file of all rows, to sort, with pictures of what accuracy costs; it asks nobody for anything."""

from collections.abc import Iterable, Sequence
from html import escape

from zoo.names import pretrained_names

from .charts import COSTS, latency_picture, picture
from .comparison import comparisons
from .row import Row
from .tables import CLAIMS, COLUMNS, EMPTY, Column

_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>snn-zoo leaderboard</title>
<style>
:root { color-scheme: light dark; }
body { margin: 1rem auto; padding: 0 1rem; max-width: 92rem; font: 15px/1.5 system-ui, sans-serif; }
div { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
td, th { padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid #8884; white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; cursor: pointer; }
.number { text-align: right; }
</style>
<h1>snn-zoo leaderboard</h1>
<p>Each number was measured here, unless it is said to be published; ± is the sample standard deviation over seeds, — is
not measured. Energy is 0.9 pJ an accumulation and 4.6 pJ a multiply-accumulation (45 nm). A title sorts.</p>
"""
_SORT = """<script>
for (const head of document.querySelectorAll("th")) head.onclick = () => {
  const body = head.closest("table").tBodies[0], of = row => row.cells[head.cellIndex].dataset.order;
  const sign = (head.ariaSort = head.ariaSort === "descending" ? "ascending" : "descending") === "ascending" ? 1 : -1;
  const compare = (a, b) => a === "" || b === "" ? (a === "") - (b === "") : sign * (a - b || a.localeCompare(b));
  body.append(...[...body.rows].sort((a, b) => compare(of(a), of(b))));
};
</script>
"""


def page(rows: Sequence[Row], demo: str | None = None) -> str:
    """Returns the HTML text, in which what comes from a file is escaped; rows that are published only come last. The
    zoo's own checkpoints link to `demo`, the address of a page of `export.demo`, if there is one."""
    ours = [row for row in rows if row.tier != "published"]
    datasets = list(dict.fromkeys(row.dataset for row in ours))
    published = [row for row in rows if row.tier == "published" and row.dataset in datasets]
    parts = [_HEAD, "" if ours else f"<p>{EMPTY}</p>\n"]
    for dataset in datasets:
        own = [row for row in ours if row.dataset == dataset]
        parts += [f"<h2>{escape(dataset)}</h2>\n", _table(COLUMNS[1:], own, demo)]
    if ours:
        drawn = filter(None, (picture(ours, cost) for cost in COSTS))
        parts += ["<h2>What accuracy costs</h2>\n", *(f"<div>{svg}</div>\n" for svg in drawn)]
    if latencies := latency_picture(ours):
        parts += ["<h2>Spikes and milliseconds</h2>\n", f"<div>{latencies}</div>\n"]
    for one in comparisons(ours):
        parts += [f"<h2>Trained alike: {escape(one.name)}, {escape(one.dataset)}</h2>\n", _table(one.columns, one.rows)]
        parts.append(f"<pre>{escape(one.recipe_text)}</pre>\n<p>{escape('; '.join(one.exceptions))}</p>\n")
    if published:
        parts += ["<h2>Published by others, not measured here</h2>\n", _table(CLAIMS, published)]
    return "".join([*parts, _SORT])


def _table(columns: Iterable[Column], rows: Sequence[Row], demo: str | None = None) -> str:
    filled = [column for column in columns if any(column.order(row) for row in rows)]
    kinds = [' class="number"' if column.form else "" for column in filled]
    heads = "".join(
        f'<th{kind} title="{escape(c.about)}">{escape(c.title)}</th>' for c, kind in zip(filled, kinds, strict=True)
    )
    lines = [
        "".join(
            f'<td{kind} data-order="{escape(c.order(row))}">{_cell(c, row, demo)}</td>'
            for c, kind in zip(filled, kinds, strict=True)
        )
        for row in rows
    ]
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return f"<div><table><thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"


def _cell(column: Column, row: Row, demo: str | None) -> str:
    text = escape(column.show(row))
    if demo and column.field == "name" and row.name in pretrained_names():
        return f'<a href="{escape(demo)}#{text}">{text}</a>'
    return text
