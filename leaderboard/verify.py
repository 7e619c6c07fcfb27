"""Two measurements of the same weights side by side: what a row says, and what came out now."""

from typing import NamedTuple

from .results import Result, Results, parts
from .row import Row
from .rows import rows

POINTS = 0.1
"""Of top-1, between two measurements: on other processors a few images of 10,000 fall to the other side."""
SHARE = 0.001
"""Of spikes, operations and energy."""
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
        """What comparing them gives."""
        if self.before is None or (self.now is None and self.allowed is None):
            return "not compared"
        if self.now is None:
            return "MISS"
        if self.allowed is None:
            return f"x {self.now / self.before:.2f}" if self.before else ""
        return "ok" if abs(self.now - self.before) <= self.allowed + _ROUNDING else "MISS"


def compare(before: Row, now: Row) -> list[Line]:
    """Every number of a row that can be measured again, and its graphs'."""
    lines = [Line("top1", before.top1, now.top1, POINTS)]
    for name in (
        "spikes_per_image", "effective_acs", "effective_macs", "dense", "energy_uj", "membrane_updates",
        "footprint_bytes",
    ):  # fmt: skip
        lines.append(_share(name, getattr(before, name), getattr(now, name)))
    for graph in before.graphs:
        form = f"{graph.precision} {graph.layout}"
        if not (again := now.graph(graph.precision, graph.layout)):  # of another layout than is measured
            lines.append(Line(f"{form} top1", graph.top1, None, None))
            continue
        top1, spikes, p50 = again.top1, again.spikes_per_image, again.p50_ms
        lines.append(Line(f"{form} top1", graph.top1, top1, POINTS))
        lines.append(_share(f"{form} spikes_per_image", graph.spikes_per_image, spikes))
        lines.append(Line(f"{form} p50_ms", graph.p50_ms, p50, None))
    return lines


def row_of(results: Results, weights_sha256: str, dataset: str) -> Row | None:
    """The row of one checkpoint alone, whatever other seeds its row on the board is a mean of."""
    own = {
        place: part
        for file, result in results.items()
        for place, part in parts(file, result).items()
        if part["weights_sha256"] == weights_sha256 and part["dataset"] in (None, dataset)
    }
    return next(iter(rows(own)), None)


def table(lines: list[Line]) -> str:
    """For people."""
    width = max(len(line.number) for line in lines)
    texts = [f"{'number':{width}}{'row':>14}{'now':>14}{'difference':>14}{'allowed':>14}"]
    for line in lines:
        difference = None if line.before is None or line.now is None else line.now - line.before
        values = (line.before, line.now, difference, line.allowed)
        texts.append(f"{line.number:{width}}{''.join(f'{_text(value):>14}' for value in values)}  {line.verdict}")
    return "\n".join(texts)


def _share(number: str, before: float | None, now: float | None) -> Line:
    return Line(number, before, now, abs(before or 0) * SHARE)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:,.6g}" if abs(value) < 1e5 else f"{value:,.0f}"


def measured(result: Result) -> Row:
    """A new measurement as a row."""
    return rows({"now": result})[0]
