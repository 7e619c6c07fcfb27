"""The columns that the README table and the page share."""

from typing import NamedTuple

from .row import Row

MISSING = "—"
EMPTY = "No results yet."


class Column(NamedTuple):
    """A column: title, field of a row, format of a number ("" for a text), whether the README has it too, its unit."""

    title: str
    field: str
    form: str = ""
    brief: bool = True
    unit: float = 1

    def show(self, row: Row) -> str:
        """The value as written in tables, with its deviation over seeds where the row has one."""
        value, deviation = getattr(row, self.field), getattr(row, f"{self.field}_std", None)
        if value is None or not self.form:
            return value or MISSING
        text = format(value / self.unit, self.form)
        return text if deviation is None else f"{text} ± {deviation / self.unit:{self.form}}"


COLUMNS = [
    Column("Dataset", "dataset"),
    Column("Model and tag", "name"),
    Column("Top-1 (%)", "top1", ".2f"),
    Column("Spikes per image", "spikes_per_image", ",.0f"),
    Column("Timesteps", "timesteps", ".0f"),
    Column("Parameters (M)", "params", ".2f", unit=1e6),
    Column("Seeds", "runs", ".0f"),
    Column("Epochs", "epochs", ".0f"),
    Column("Gradient scaling", "scaling", brief=False),
    Column("Training (min)", "train_seconds", ",.1f", brief=False, unit=60),
    Column("Test-set reads", "test_reads", ".0f", brief=False),
    Column("ONNX p50, batch 1, 1 thread (ms)", "onnx_latency_ms", ",.2f"),
    Column("ONNX top-1 (%)", "onnx_top1", ".2f", brief=False),
    Column("ONNX size (MB)", "onnx_bytes", ",.2f", brief=False, unit=1e6),
    Column("Published top-1 (%)", "published_top1", ".2f"),
    Column("Published spikes per image", "published_spikes_per_image", ",.0f", brief=False),
]
