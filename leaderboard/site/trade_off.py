"""What accuracy costs: top-1 against spikes, operations, energy and latency on one data set, with the Pareto front.

The front is of what is measured here. Published results are a layer of their own, off at first: most papers say no
cost, so theirs is a tick at the right edge, at their accuracy.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import altair as alt

from ..row import Row
from .figures import OTHER, PLAIN, SCALED, data, finish

Point = dict[str, Any]


class Measure(NamedTuple):
    """An axis of costs: its title, the format of its numbers, and a row's points: (label, cost, top-1, processor)."""

    title: str
    form: str
    points: Callable[[Row], Iterable[tuple[str, float | None, float | None, str | None]]]

    @property
    def short(self) -> str:
        """The title without its unit."""
        return self.title.partition(" (")[0].lower()


def operations(row: Row) -> float | None:
    """Synaptic operations per image, accumulations and multiply-accumulations alike."""
    return None if row.effective_acs is None or row.effective_macs is None else row.effective_acs + row.effective_macs


def _graphs(row: Row) -> Iterable[tuple[str, float | None, float | None, str | None]]:
    return [(_form(graph.precision, graph.layout), graph.p50_ms, graph.top1, graph.cpu) for graph in row.graphs]


def _form(precision: str, layout: str) -> str:
    return " ".join(word for word in (precision, layout) if word not in ("fp32", "flat"))


MEASURES = {
    "spikes": Measure("Spikes per image", "~s", lambda row: [("", row.spikes_per_image, row.top1, None)]),
    "operations": Measure(
        "Synaptic operations (ACs + MACs per image)", "~s", lambda r: [("", operations(r), r.top1, None)]
    ),
    "energy": Measure("Energy per image (µJ at 45 nm)", "~g", lambda row: [("", row.energy_uj, row.top1, None)]),
    "latency": Measure("Latency (ms, ONNX Runtime, batch 1, one CPU thread)", "~g", _graphs),
    "parameters": Measure("Parameters", "~s", lambda row: [("", row.params, row.top1, None)]),
}


def points_of(measure: Measure, rows: Sequence[Row]) -> list[Point]:
    """The points of a chart, a network that costs nothing left out: it has no place on a log axis."""
    found: list[Point] = [
        {
            "network": row.name,
            "label": " ".join(filter(None, (row.name.removesuffix(f"_{row.dataset}"), form))),
            "href": f"#{quote(row.path)}",
            "form": form,
            "cost": cost,
            "top1": top1,
            "cpu": cpu,
            # A graph is of one seed.
            "low": top1 - (row.top1_std or 0) * (top1 == row.top1),
            "high": top1 + (row.top1_std or 0) * (top1 == row.top1),
            "scaled": row.scaling is not None,
            "tier": row.tier,
            "timesteps": row.timesteps,
        }
        for row in rows
        for form, cost, top1, cpu in measure.points(row)
        if cost and top1 is not None
    ]
    # Times of two processors do not compare: the front is that of the one with the most points.
    common, best = Counter(point["cpu"] for point in found).most_common(1), -1.0
    for point in sorted(found, key=lambda point: (point["cost"], -point["top1"])):
        point["front"] = point["cpu"] == common[0][0] and point["top1"] > best
        best = max(best, point["top1"]) if point["front"] else best
    return found


def trade_off(measure: Measure, rows: Sequence[Row], published: Sequence[Row]) -> dict[str, Any] | None:
    """The chart of one data set, None if nothing of it was measured."""
    points = points_of(measure, rows)
    if not points:
        return None
    shown = alt.Chart(data(points)).encode(
        x=alt.X("cost:Q", scale=alt.Scale(type="log", nice=False, padding=36), title=measure.title)
        .axis(format=measure.form, tickCount=6),
        y=alt.Y("top1:Q", scale=alt.Scale(zero=False, padding=22), title=None),
    )  # fmt: skip
    colour = alt.condition("datum.scaled", alt.value(SCALED), alt.value(PLAIN))
    front = shown.transform_filter("datum.front").mark_line(interpolate="step-after", strokeDash=[4, 3], color=OTHER)
    bars = shown.mark_rule().encode(y="low:Q", y2="high:Q", color=colour)
    marks = shown.mark_point(filled=True, size=80, opacity=1, cursor="pointer").encode(
        color=colour,
        shape=alt.Shape("tier:N", legend=None)
        .scale(domain=["measured", "checkpoint"], range=["circle", "square"]),
        href="href:N",
        tooltip=[
            alt.Tooltip("network:N"),
            alt.Tooltip("form:N", title="graph"),
            alt.Tooltip("top1:Q", title="top-1 (%)", format=".2f"),
            alt.Tooltip("cost:Q", title=measure.short, format=",.4~g"),
            alt.Tooltip("timesteps:Q", title="time steps"),
            *([alt.Tooltip("cpu:N", title="processor")] if any(point["cpu"] for point in points) else []),
        ],
    ).properties(name="points")  # fmt: skip
    layers = [front.properties(name="front"), bars, marks]
    if claims := [_claim(row, measure) for row in published]:
        layers += _published(claims)
    chart = alt.layer(*layers).add_params(alt.param(name="published", value=False))
    return finish(chart, f"Top-1 (%) against {measure.short}", 300, labels="points", avoid="front")


def _claim(row: Row, measure: Measure) -> Point:
    return {
        "network": row.model,
        "method": row.tag,
        "top1": row.top1,
        "cost": next((cost for _, cost, *_ in measure.points(row)), None),
        "timesteps": row.timesteps,
        "citation": row.published_citation,
    }


def _published(claims: list[Point]) -> list[Any]:
    about = [
        alt.Tooltip("network:N", title="published"),
        alt.Tooltip("method:N"),
        alt.Tooltip("top1:Q", title="claimed top-1 (%)", format=".2f"),
        alt.Tooltip("timesteps:Q", title="time steps"),
        alt.Tooltip("citation:N"),
    ]
    base = alt.Chart(data(claims)).transform_filter("published").encode(y="top1:Q", tooltip=about)
    edge = base.transform_filter("!datum.cost").mark_tick(color=OTHER, thickness=2, size=14, orient="horizontal")
    placed = base.transform_filter("datum.cost").mark_point(color=OTHER, shape="diamond", size=60)
    return [edge.encode(x=alt.value("width")).properties(name="claims"), placed.encode(x="cost:Q")]
