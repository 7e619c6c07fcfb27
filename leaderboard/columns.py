"""The columns that the README table and the page share."""

from collections.abc import Callable
from typing import Any, NamedTuple

from .collect import Row

MISSING = "—"
EMPTY = "No results yet."


class Column(NamedTuple):
    """A column: title with unit, the value it sorts by, the value as shown, and whether the README has it too."""

    title: str
    value: Callable[[Row], Any]
    show: Callable[[Row], str]
    numeric: bool = True
    brief: bool = True


def shown(value: float | str | None, form: str = "") -> str:
    """`value` through a format specification, or a dash where nothing was measured."""
    return MISSING if value is None else format(value, form)


def _number(title: str, value: Callable[[Row], Any], form: str, brief: bool = True) -> Column:
    return Column(title, value, lambda row: shown(value(row), form), brief=brief)


def _text(title: str, value: Callable[[Row], Any], brief: bool = True) -> Column:
    return Column(title, value, lambda row: shown(value(row)), numeric=False, brief=brief)


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _top1(row: Row) -> str:
    return f"{row.top1:.2f}" + ("" if row.top1_std is None else f" ± {row.top1_std:.2f}")


def published(row: Row, key: str) -> Any:
    """One field of the published number beside a row (top1, spikes_per_image, citation), or None."""
    return row.reference[key] if row.reference else None


COLUMNS = [
    _text("Dataset", lambda row: row.dataset),
    _text("Model and tag", lambda row: row.name),
    Column("Top-1 (%)", lambda row: row.top1, _top1),
    _number("Spikes per image", lambda row: row.spikes_per_image, ",.0f"),
    _number("Timesteps", lambda row: row.timesteps, "d"),
    _number("Parameters (M)", lambda row: row.params / 1e6, ".2f"),
    _number("Seeds", lambda row: row.runs, "d"),
    _number("Epochs", lambda row: row.epochs, "d"),
    _text("Gradient scaling", lambda row: row.scaling, brief=False),
    _number("Training (min)", lambda row: _scaled(row.train_seconds, 60), ",.1f", brief=False),
    _number("Test-set reads", lambda row: row.test_reads, "d", brief=False),
    _number("ONNX p50, batch 1, 1 thread (ms)", lambda row: row.onnx_latency_ms, ",.2f"),
    _number("ONNX top-1 (%)", lambda row: row.onnx_top1, ".2f", brief=False),
    _number("ONNX size (MB)", lambda row: _scaled(row.onnx_bytes, 1e6), ",.2f", brief=False),
    _number("Published top-1 (%)", lambda row: published(row, "top1"), ".2f"),
    _number("Published spikes per image", lambda row: published(row, "spikes_per_image"), ",.0f", brief=False),
]
