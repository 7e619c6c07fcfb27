"""Accuracy against what it costs, a panel for each data set, and time against spikes, drawn as SVG: the README's
picture and those of the page.

Vega-Lite draws it, by the libraries of the extra `site`. Its colours lie between, as it is shown on white and on black.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import altair as alt
import vl_convert

from zoo.names import plain_name

from .row import Row

PLAIN, SCALED, OTHER, LINE = "#2f81d6", "#d1661a", "#737b85", "#737b8566"
# Pixels of a panel, and of a letter of a name.
_WIDTH, _HEIGHT, _LETTER = 400, 300, 6.1
_TRAININGS = ["plain", "gradient scaling (_gs)"]
_CONFIG = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "title": {"color": OTHER, "anchor": "start", "fontSize": 13, "fontWeight": 600, "offset": 12},
    "legend": {"orient": "top", "title": None, "labelColor": OTHER},
    "axis": {
        "labelColor": OTHER,
        "titleColor": OTHER,
        "titleFontWeight": "normal",
        "titleFontSize": 12,
        "labelFontSize": 11,
        "domainColor": LINE,
        "gridColor": LINE,
        "gridOpacity": 0.7,
        "ticks": False,
        "labelPadding": 6,
        "labelOverlap": "greedy",
        "labelSeparation": 4,
    },
}


class Cost(NamedTuple):
    """An axis of costs: its title, the format of its numbers, and a row's value."""

    title: str
    form: str
    of: Callable[[Row], float | None]


SPIKES = Cost("Spikes per image", "~s", lambda row: row.spikes_per_image)
ACS = Cost("Effective ACs per image", "~s", lambda row: row.effective_acs)
COSTS = [
    SPIKES,
    ACS,
    Cost("Energy per image (µJ at 45 nm)", "~g", lambda row: row.energy_uj),
    Cost("Parameters", "~s", lambda row: row.params),
    Cost("ONNX p50 (ms), float32, batch 1, one thread", "~g", lambda row: getattr(row.graph("fp32"), "p50_ms", None)),
    Cost("ONNX p50 (ms), int8, batch 1, one thread", "~g", lambda row: getattr(row.graph("int8"), "p50_ms", None)),
    Cost("ONNX p50 (ms), event, batch 1, one thread", "~g", lambda row: getattr(row.graph("int16"), "p50_ms", None)),
]
_PRECISIONS = {"fp32": "float32", "int8": "int8", "int16": "event-driven"}


def picture(rows: Sequence[Row], cost: Cost = SPIKES) -> str:
    """Draws accuracy against a cost as SVG, a panel for each data set; returns "" for nothing to draw."""
    datasets = dict.fromkeys(row.dataset for row in rows)
    return _beside([panel(cost, [row for row in rows if row.dataset == name], name) for name in datasets])


def latency_picture(rows: Sequence[Row]) -> str:
    """Draws the latency of float32, int8 and event-driven files against spikes, and against ACs, as SVG; returns ""
    where no event-driven file was timed."""
    return _beside([latency_panel(cost, rows) for cost in (SPIKES, ACS)])


def latency_panel(cost: Cost, rows: Sequence[Row]) -> dict[str, Any] | None:
    """Returns the specification of a panel of latencies, of each row those of one processor, None for nothing to show:
    the dense files take what their operations take, whatever the spikes."""
    points = [
        {"network": row.path, "cost": value, "ms": graph.p50_ms, "file": _PRECISIONS[graph.precision], "cpu": graph.cpu}
        for row in rows
        if (event := row.graph("int16")) and event.p50_ms and (value := cost.of(row))
        for graph in row.graphs
        if graph.precision in _PRECISIONS and graph.layout == "flat" and graph.p50_ms and graph.cpu == event.cpu
    ]
    if not points:
        return None
    log = alt.Scale(type="log", nice=False, padding=12)
    told = [alt.Tooltip("network:N"), alt.Tooltip("file:N"), alt.Tooltip("ms:Q", format=".2f"), alt.Tooltip("cpu:N")]
    files = alt.Color("file:N", legend=alt.Legend()).scale(
        domain=list(_PRECISIONS.values()), range=[PLAIN, OTHER, SCALED]
    )
    marks = alt.Chart(alt.Data(values=points)).mark_point(filled=True, size=50, opacity=1).encode(
        x=alt.X("cost:Q", scale=log, title=cost.title).axis(format=cost.form, tickCount=6),
        y=alt.Y("ms:Q", scale=log, title="p50 (ms), batch 1, one thread").axis(format="~g", tickCount=6),
        color=files, tooltip=told,
    )  # fmt: skip
    chart = marks.properties(title=cost.title, width=_WIDTH, height=_HEIGHT, config=_CONFIG, autosize="pad")
    return chart.to_dict(validate=False)


def _beside(charts: Sequence[dict[str, Any] | None]) -> str:
    """Draws charts from left to right; "" where none is there."""
    panels, width, height = [], 0.0, 0.0
    for chart in filter(None, charts):
        svg = vl_convert.vegalite_to_svg(chart)
        sides = re.search(r'width="([\d.]+)" height="([\d.]+)"', svg)
        wide, high = map(float, sides.groups()) if sides else (0.0, 0.0)
        panels.append(svg.replace("<svg ", f'<svg x="{width:g}" ', 1))
        width, height = width + wide, max(height, high)
    if not panels:
        return ""
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', *panels, "</svg>"]) + "\n"


def _twin(row: Row, rows: Sequence[Row]) -> Row | None:
    """Returns the same network trained as long, with gradient scaling where the row has none, or without; None where
    there is no such row, or several of either kind."""
    key = (plain_name(row.model), row.timesteps, row.epochs)
    alike = [other for other in rows if (plain_name(other.model), other.timesteps, other.epochs) == key]
    kinds = [other.scaling is None for other in alike]
    return next(other for other in alike if other is not row) if sorted(kinds) == [False, True] else None


def panel(cost: Cost, rows: Sequence[Row], title: str) -> dict[str, Any] | None:
    """Returns the specification of one data set's panel, None if nothing of it was measured; a dashed line joins a
    network to its twin with gradient scaling, trained as long; what costs nothing has no place on a log axis."""
    points = [
        {
            "network": row.name,
            "label": row.name.removesuffix(f"_{row.dataset}"),
            "cost": value,
            "top1": row.top1,
            "low": row.top1 - (row.top1_std or 0),
            "high": row.top1 + (row.top1_std or 0),
            "training": _TRAININGS[row.scaling is not None],
            "twins": row.path if (twin := _twin(row, rows)) is None else min(row.path, twin.path),
            "tier": row.tier,
            "timesteps": row.timesteps,
        }
        for row in rows
        if (value := cost.of(row))
    ]
    if not points:
        return None
    costs, top1, names = _names(points)
    x, y = alt.Scale(type="log", nice=False, domain=costs), alt.Scale(nice=False, domain=top1)
    shown = alt.Chart(alt.Data(values=points)).encode(
        x=alt.X("cost:Q", scale=x, title=f"{cost.title}, dashes join twins").axis(format=cost.form, tickCount=6),
        y=alt.Y("top1:Q", scale=y, title="Top-1 (%)"),
    )
    colour = alt.Color("training:N", legend=alt.Legend()).scale(domain=_TRAININGS, range=[PLAIN, SCALED])
    tiers = alt.Shape("tier:N", legend=None).scale(domain=["measured", "checkpoint"], range=["circle", "square"])
    told = [  # to a screen reader
        alt.Tooltip("network:N"),
        alt.Tooltip("top1:Q", title="top-1 (%)", format=".2f"),
        alt.Tooltip("cost:Q", title=cost.title.partition(" (")[0].lower(), format=",.4~g"),
        alt.Tooltip("timesteps:Q", title="time steps"),
    ]
    text = alt.Chart(alt.Data(values=names)).mark_text(align="left", fontSize=10)
    layers = [
        shown.mark_line(strokeDash=[4, 3], strokeWidth=1, color=OTHER)
        .encode(detail="twins:N").properties(name="lines"),
        shown.mark_rule().encode(y="low:Q", y2="high:Q", color=colour),
        shown.mark_point(filled=True, size=80, opacity=1, cursor="pointer")
        .encode(color=colour, shape=tiers, tooltip=told).properties(name="points"),
        text.encode(x="cost:Q", y="top1:Q", text="label:N", color=colour),
    ]  # fmt: skip
    chart = alt.layer(*layers).properties(title=title, width=_WIDTH, height=_HEIGHT, config=_CONFIG, autosize="pad")
    return chart.to_dict(validate=False)  # its parts were checked as they were made


def _names(points: Sequence[dict[str, Any]]) -> tuple[list[float], list[float], list[dict[str, Any]]]:
    """Returns the domains of both axes of a panel, and where a name stands beside its mark, over no other name or
    mark: in the units of the axes, the left end of its middle line. A name without such a place is left out."""
    costs, top1 = [point["cost"] for point in points], [point["top1"] for point in points]
    low, high = min(point["low"] for point in points), max(point["high"] for point in points)
    margin = max(0.12 * (high - low), 0.1)
    x, y = [min(costs) / 1.7, max(costs) * 1.7], [low - margin, high + margin]
    wide, high = math.log(x[1] / x[0]), y[1] - y[0]
    pairs = zip(costs, top1, strict=True)
    marks = [(_WIDTH * math.log(cost / x[0]) / wide, _HEIGHT * (value - y[0]) / high) for cost, value in pairs]
    taken = [(left - 6, left + 6, middle - 6, middle + 6) for left, middle in marks]
    names = []
    for point, (left, middle) in zip(points, marks, strict=True):
        length = _LETTER * len(point["label"])
        for dx, dy in ((8, 0), (-8 - length, 0), (-8, 12), (8 - length, 12), (-8, -12), (8 - length, -12)):
            box = left + dx, left + dx + length, middle + dy - 6, middle + dy + 6
            if box[0] > 0 and box[1] < _WIDTH and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                cost, value = x[0] * math.exp(wide * box[0] / _WIDTH), y[0] + high * (middle + dy) / _HEIGHT
                names.append(point | {"cost": cost, "top1": value})
                break
    return x, y, names


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
