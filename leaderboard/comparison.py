"""Networks that were trained alike, side by side: what `comparison` in a recipe is for."""

import json
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from statistics import mode
from typing import Any, NamedTuple

from recipes.recipe import DEFAULTS, PLACE
from zoo.errors import shown
from zoo.files import dump_yaml

from .row import Row
from .tables import COLUMNS, TRIAL, Column, markdown_table, markdown_text

_TITLES = (
    "Top-1 (%)", "Spikes per image", "ACs (M)", "MACs (M)", "Energy (µJ)", "Parameters (M)", "Training (min)",
    "ONNX p50 (ms)", "int8 p50 (ms)", "Event p50 (ms)", "int8 top-1 (%)", "Event top-1 (%)",
    "Processor", "Test-set reads", "Least firing rate (%)",
)  # fmt: skip
_SIDE_BY_SIDE = [Column("Network", "model"), *(column for column in COLUMNS if column.title in _TITLES)]
# What each has of its own, or what says nothing of how it trains.
_OWN = PLACE | {"model", "tag", "seed", "comparison", "test_reads"}


class Comparison(NamedTuple):
    """Rows of several networks on one data set."""

    name: str
    dataset: str
    rows: list[Row]
    recipe: dict[str, Any]
    """What their recipes share: time steps, and all that is not a default."""
    exceptions: list[str]
    """Where a recipe differs from that, in words."""

    @property
    def columns(self) -> list[Column]:
        """The columns that some row has a value for."""
        return [column for column in _SIDE_BY_SIDE if any(column.order(row) for row in self.rows)]

    @property
    def recipe_text(self) -> str:
        """The shared keys, as a recipe has them."""
        return dump_yaml(self.recipe)


def comparisons(rows: Sequence[Row]) -> list[Comparison]:
    """Returns those of at least two networks with a known recipe, in the order of their best row; rows by top-1."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.comparison and row.recipe:
            groups[row.comparison, row.dataset].append(row)
    return [_comparison(*key, group) for key, group in groups.items() if len({row.model for row in group}) > 1]


def _comparison(name: str, dataset: str, rows: list[Row]) -> Comparison:
    recipes = [{key: (row.recipe or {}).get(key, DEFAULTS[key]) for key in DEFAULTS.keys() - _OWN} for row in rows]
    usual = {
        key: json.loads(mode(json.dumps(recipe[key]) for recipe in recipes)) for key in DEFAULTS if key in recipes[0]
    }
    others: dict[tuple[str, str], list[str]] = defaultdict(list)  # the networks that have a key's other value
    for row, recipe in zip(rows, recipes, strict=True):
        for key, value in usual.items():
            if recipe[key] != value:
                others[key, json.dumps(recipe[key])].append(shown(row.model))
    exceptions = [
        f"{', '.join(models)} {'have' if len(models) > 1 else 'has'} {key}: {shown(value, 200)}"
        for (key, value), models in others.items()
    ]
    shared = {key: value for key, value in usual.items() if key == "timesteps" or value != DEFAULTS[key]}
    return Comparison(name, dataset, rows, shared, exceptions)


def comparisons_page(rows: Sequence[Row]) -> str:
    """Returns comparisons.md, "" where there is none; the data set to try the program with is left out."""
    if not (found := comparisons([row for row in rows if row.dataset != TRIAL])):
        return ""
    text = (
        "# Side by side\n\nNetworks whose trainings are one comparison, measured alike, on the whole test set; "
        "latency at batch 1 on one CPU thread, comparable only between rows of one processor. Training is wall time; "
        "where it ran on one thread, that is core minutes, too, but for times at which it stood still "
        "([which](../recipes/stages/README.md#checkpoints)). One seed each unless a deviation is given: a difference "
        "of a point or less may be chance. A layer of neurons with a firing rate below 0.1 % is silent. Energy is of "
        "products of activations (attention), too, which ACs and MACs leave out, and a count of spikes, as SEW and "
        "QKFormer hand on, is priced as a MAC, though a few additions would do. Rendered by "
        "`python -m leaderboard render` from [results](results).\n"
    )
    for one in found:
        text += f"\n## {markdown_text(shown(one.name))}, {one.dataset}\n\n{markdown_table(one.columns, one.rows)}"
        text += "\nTrained with (a key that is not named has its default):\n\n"
        text += textwrap.indent(one.recipe_text, "    ")
        but = markdown_text("; ".join(one.exceptions))
        text += f"\nBut {but}.\n" if but else "\nAll of them.\n"
    return text
