"""The columns of tables: those that the README and the page share, and those of published claims."""

from collections.abc import Callable
from typing import Any, NamedTuple

from .row import Row

MISSING = "—"
EMPTY = "No results yet."


class Column(NamedTuple):
    """A column of a table of rows."""

    title: str
    field: str | Callable[[Row], Any]
    """Of a row, or what makes the value from it."""
    form: str = ""
    """Format of a number, "" for a text."""
    unit: float = 1
    brief: bool = False
    """Whether the README has it."""
    shown: bool = True
    """Whether the page shows it before somebody chooses columns; the data set, where it is only one, never."""
    about: str = ""
    """What its title leaves out."""

    def value(self, row: Row) -> Any:
        """A number in the row's own unit, a text, or None."""
        return self.field(row) if callable(self.field) else getattr(row, self.field)

    def show(self, row: Row) -> str:
        """The value as written in tables, with its deviation over seeds where the row has one."""
        value, deviation = self.value(row), getattr(row, f"{self.field}_std", None)
        if value is None or not self.form:
            return value or MISSING
        text = format(value / self.unit, self.form)
        return text if deviation is None else f"{text} ± {deviation / self.unit:{self.form}}"

    def order(self, row: Row) -> str:
        """What a table sorts by, "" for what is missing."""
        value = self.value(row)
        return "" if value is None else str(value)


def _int8(field: str) -> Callable[[Row], Any]:
    return lambda row: getattr(row.graph("int8"), field, None)


COLUMNS = [
    Column("Dataset", "dataset", brief=True, shown=False),
    Column("Model and tag", "name", brief=True),
    Column("Top-1 (%)", "top1", ".2f", brief=True, about="Percent of the whole test set, read once, at the last epoch"),
    Column("Spikes per image", "spikes_per_image", ",.0f", brief=True, about="Of all layers and time steps"),
    Column("ACs (M)", "effective_acs", ",.2f", 1e6, about="Effective accumulations per image, as NeuroBench counts"),
    Column("MACs (M)", "effective_macs", ",.2f", 1e6, about="Effective multiply-accumulations per image"),
    Column("Energy (µJ)", "energy_uj", ",.2f", brief=True, about="Per image: 0.9 pJ an AC, 4.6 pJ a MAC (45 nm)"),
    Column("Timesteps", "timesteps", ".0f", brief=True),
    Column("Parameters (M)", "params", ".2f", 1e6, brief=True),
    Column("Seeds", "runs", ".0f", brief=True),
    Column("Epochs", "epochs", ".0f", brief=True, about="With those of the checkpoints that it was started from"),
    Column("ONNX p50 (ms)", "onnx_latency_ms", ",.2f", brief=True, about="Batch 1, one CPU thread; fp32, flat layout"),
    Column("int8 p50 (ms)", _int8("p50_ms"), ",.2f", about="Batch 1, one CPU thread; flat layout"),
    Column("int8 top-1 (%)", _int8("top1"), ".2f"),
    Column("Processor", "processor", brief=True, about="Of the latencies: those of two processors do not compare"),
    Column("Tier", "tier"),
    Column("Published top-1 (%)", "published_top1", ".2f", brief=True, about="Of this network and training, by others"),
    Column("Gradient scaling", "scaling", shown=False),
    Column("Training (min)", "train_seconds", ",.1f", 60, shown=False, about="Of the whole chain"),
    Column("Started from", lambda row: ", ".join(a.name for a in row.started_from), shown=False),
    Column("Test-set reads", "test_reads", ".0f", shown=False, about="By its comparison and those it started from"),
    Column("Least firing rate (%)", "least_firing_rate", ".2f", 0.01, shown=False, about="A layer is silent below 0.1"),
    Column("Test images", "images", ",.0f", shown=False),
    Column("Activation sparsity", "activation_sparsity", ".3f", shown=False, about="Neurons and steps without a spike"),
    Column("Membrane updates (M)", "membrane_updates", ",.2f", 1e6, shown=False),
    Column("Dense operations (M)", "dense", ",.2f", 1e6, shown=False, about="Were nothing sparse"),
    Column("Footprint (MB)", "footprint_bytes", ",.2f", 1e6, shown=False, about="Parameters and buffers"),
    Column("ONNX top-1 (%)", "onnx_top1", ".2f", shown=False, about="fp32, flat layout"),
    Column("ONNX size (MB)", "onnx_bytes", ",.2f", 1e6, shown=False),
    Column("int8 size (MB)", _int8("bytes"), ",.2f", 1e6, shown=False),
    Column("Published spikes per image", "published_spikes_per_image", ",.0f", shown=False),
]
"""Of rows that are measured here."""

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
"""Of rows that are published only."""
