"""A row of the board, measured again: what it says beside what came out now."""

import argparse
from typing import NamedTuple

from recipes.lineage import Run
from zoo.data import list_datasets
from zoo.errors import ZooError, one_of, text_table
from zoo.files import check_writable, write_json
from zoo.load import find_checkpoint

from .row import Row
from .rows import rows
from .store import Results, parts

POINTS = {"fp32": 0.1, "fp16": 0.1, "int8": 0.5, "int16": 0.15}
"""Points of top-1 that may lie between them, by precision. On other processors a few images of 10,000 fall to the other
side; and weights and scales are rounded otherwise, in eight bits to another file, which may be half a point off."""
SHARE = {"fp32": 0.001, "fp16": 0.001, "int8": 0.01, "int16": 0.005}
"""The share of spikes, operations and energy that may lie between them."""
_ROUNDING = 1e-9  # 93.04 - 92.94 is a little more than 0.1


class Line(NamedTuple):
    """A number of a row; None for what was not measured."""

    number: str
    before: float | None
    now: float | None
    allowed: float | None
    """The largest difference, None where none is too large: latency is of a machine and its day."""

    @property
    def verdict(self) -> str:
        """The outcome of the comparison."""
        if self.before is None or (self.now is None and self.allowed is None):
            return "not compared"
        if self.now is None:
            return "MISS"
        if self.allowed is None:
            return f"x {self.now / self.before:.2f}" if self.before else ""
        return "ok" if abs(self.now - self.before) <= self.allowed + _ROUNDING else "MISS"


def verify(results: Results, a: argparse.Namespace) -> tuple[list[Line], list[str]]:
    """Measures a row of a store again, from its weights, as a command line says, and compares.

    Returns:
        The lines of `compare`, and what `other_files` says.

    Raises:
        ZooError: no such row, or this is another checkpoint, data set or number of images than the row's.
    """
    from .measure import measure  # PyTorch's exporter and ONNX Runtime take seconds

    board = {row.path: row for row in rows(results)}
    found = [row for path, row in board.items() if a.row in (path, row.name)]
    if len(found) > 1:
        raise ZooError(f"{a.row} is a row of several data sets: give {' or '.join(row.path for row in found)}")
    if not found:
        raise one_of("row", a.row, sorted(board))
    (row,) = found
    precisions = sorted({graph.precision for graph in row.graphs})
    if a.json:
        check_writable(a.json)
    source = a.checkpoint or row.name
    run = Run(find_checkpoint(source).config)
    before = _of_checkpoint(results, row, run.name, run.config["weights_sha256"])  # before the long work
    # A folder's name does not tell where it is; its network does.
    dataset = a.dataset or (row.dataset if row.dataset in list_datasets() else None)
    how = {"runs": a.runs, "batch_size": a.batch_size, "device": a.device}
    result = measure(source, dataset, a.data_dir, precisions=precisions, **how)
    if a.json:
        write_json(a.json, result)
    if result["dataset"] != row.dataset:
        raise ZooError(f"{row.path} is of {row.dataset}, and this of {result['dataset']}: --dataset names the row's")
    if before.images != result["images"]:
        raise ZooError(f"{row.path} is of {before.images} test images, here are {result['images']}")
    now = rows({"now": result})[0]
    return compare(before, now), other_files(before, now)


def _of_checkpoint(results: Results, row: Row, name: str, weights: str) -> Row:
    """Returns what a row says of one checkpoint alone, whatever other seeds it is a mean of."""
    own = {
        place: part
        for file, result in results.items()
        for place, part in parts(file, result).items()
        if part["weights_sha256"] == weights and part["dataset"] in (None, row.dataset)
    }
    found = [other for other in rows(own) if other.path == row.path]  # with other time steps it is another's
    if name != row.name or not found:
        other = f"this is {name} with weights {weights[:12]}..."
        raise ZooError(f"{other}, which is not in {row.path}: --checkpoint names where the row's weights are")
    return found[0]


def compare(before: Row, now: Row) -> list[Line]:
    """Compares every number of a row that can be measured again, and its graphs'."""
    lines = [Line("top1", before.top1, now.top1, POINTS["fp32"])]
    for name in (
        "spikes_per_image", "effective_acs", "effective_macs", "dense", "energy_uj", "membrane_updates",
        "footprint_bytes", "timesteps", "params", "epochs", "activation_sparsity", "connection_sparsity",
    ):  # fmt: skip
        lines.append(_share(name, getattr(before, name), getattr(now, name)))
    for graph in before.graphs:
        form, points = f"{graph.precision} {graph.layout}", POINTS[graph.precision]
        if not (again := now.graph(graph.precision, graph.layout)):  # of another layout than is measured
            lines.append(Line(f"{form} top1", graph.top1, None, None))
            continue
        top1, spikes, p50 = again.top1, again.spikes_per_image, again.p50_ms
        lines.append(Line(f"{form} top1", graph.top1, top1, points))
        lines.append(_share(f"{form} spikes_per_image", graph.spikes_per_image, spikes, graph.precision))
        lines.append(Line(f"{form} p50_ms", graph.p50_ms, p50, None))
    return lines


def other_files(before: Row, now: Row) -> list[str]:
    """Says which graphs are another file than the row's: exported by other code, or rounded on another processor."""
    pairs = [(graph, now.graph(graph.precision, graph.layout)) for graph in before.graphs]
    return [
        f"{old.precision} {old.layout}: another file than the row's (sha256 {new.sha256[:12]}..., not {old.sha256[:12]}"
        f"...; {new.bytes:,} bytes, not {old.bytes:,})"
        for old, new in pairs
        if new is not None and new.sha256 != old.sha256
    ]


def table(lines: list[Line]) -> str:
    """Returns the comparison for people."""
    cells = []
    for line in lines:
        difference = None if line.before is None or line.now is None else line.now - line.before
        values = (line.before, line.now, difference, line.allowed)
        cells.append([line.number, *map(_text, values), line.verdict])
    return text_table(["number", "row", "now", "difference", "allowed", ""], cells, range(1, 5))


def _share(number: str, before: float | None, now: float | None, precision: str = "fp32") -> Line:
    return Line(number, before, now, abs(before or 0) * SHARE[precision])


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:,.6g}" if abs(value) < 1e5 else f"{value:,.0f}"
