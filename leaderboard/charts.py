"""Charts in Vega-Lite: accuracy against what it costs, for the README's picture and the page, and the page's others.

Altair makes and checks each specification. Colours are variables of the page's style sheet, so that a chart is light
and dark with the page; the picture has colours between, as it is shown on white and on black.
"""

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import altair as alt

from recipes.differences import Difference, interval
from zoo.registry import plain_name

from .row import Row

Chart = dict[str, Any]
Point = dict[str, Any]

PLAIN, SCALED, OTHER = "var(--plain)", "var(--scaled)", "var(--soft)"
_PICTURE = {"plain": "#2f81d6", "scaled": "#d1661a", "soft": "#737b85", "ink": "#737b85", "line": "#737b8566"}
# Pixels of a panel of the picture, and of a letter of a name.
_WIDTH, _HEIGHT, _LETTER = 400, 300, 6.1
_TRAININGS = ["plain", "gradient scaling (_gs)"]
_CONFIG = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "title": {"color": "var(--ink)", "anchor": "start", "fontSize": 13, "fontWeight": 600, "offset": 12},
    "legend": {"orient": "top", "title": None, "labelColor": "var(--soft)"},
    "axis": {
        "labelColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "titleFontWeight": "normal",
        "titleFontSize": 12,
        "labelFontSize": 11,
        "domainColor": "var(--line)",
        "gridColor": "var(--line)",
        "gridOpacity": 0.7,
        "ticks": False,
        "labelPadding": 6,
        "labelOverlap": "greedy",
        "labelSeparation": 4,
    },
}


# Accuracy against costs


class Cost(NamedTuple):
    """An axis of costs: its title, the format of its numbers, and a row's points: (label, cost, top-1, processor)."""

    title: str
    form: str
    points: Callable[[Row], Iterable[tuple[str, float | None, float | None, str | None]]]

    @property
    def short(self) -> str:
        """The title without its unit."""
        return self.title.partition(" (")[0].lower()


def operations(row: Row) -> float | None:
    """Returns the synaptic operations per image, accumulations and multiply-accumulations alike."""
    return None if row.effective_acs is None or row.effective_macs is None else row.effective_acs + row.effective_macs


def _graphs(row: Row) -> Iterable[tuple[str, float | None, float | None, str | None]]:
    for graph in row.graphs:
        form = " ".join(word for word in (graph.precision, graph.layout) if word not in ("fp32", "flat"))
        yield form, graph.p50_ms, graph.top1, graph.cpu


COSTS = {
    "spikes": Cost("Spikes per image", "~s", lambda row: [("", row.spikes_per_image, row.top1, None)]),
    "operations": Cost(
        "Synaptic operations (ACs + MACs per image)", "~s", lambda r: [("", operations(r), r.top1, None)]
    ),
    "energy": Cost("Energy per image (µJ at 45 nm)", "~g", lambda row: [("", row.energy_uj, row.top1, None)]),
    "latency": Cost("Latency (ms, ONNX Runtime, batch 1, one CPU thread)", "~g", _graphs),
    "parameters": Cost("Parameters", "~s", lambda row: [("", row.params, row.top1, None)]),
}


def points_of(cost: Cost, rows: Sequence[Row]) -> list[Point]:
    """Returns the points of a chart; a network that costs nothing is left out, as it has no place on a log axis."""
    found: list[Point] = [
        {
            "network": row.name,
            "label": " ".join(filter(None, (row.name.removesuffix(f"_{row.dataset}"), form))),
            "href": f"#{quote(row.path)}",
            "form": form,
            "cost": value,
            "top1": top1,
            "cpu": cpu,
            # A graph is of one seed.
            "low": top1 - (row.top1_std or 0) * (top1 == row.top1),
            "high": top1 + (row.top1_std or 0) * (top1 == row.top1),
            "training": _TRAININGS[row.scaling is not None],
            "twins": f"{plain_name(row.model)}.{row.tag}",
            "tier": row.tier,
            "timesteps": row.timesteps,
        }
        for row in rows
        for form, value, top1, cpu in cost.points(row)
        if value and top1 is not None
    ]
    # Times of two processors do not compare: the front is that of the one with the most points.
    common, best = Counter(point["cpu"] for point in found).most_common(1), -1.0
    for point in sorted(found, key=lambda point: (point["cost"], -point["top1"])):
        point["front"] = point["cpu"] == common[0][0] and point["top1"] > best
        best = max(best, point["top1"]) if point["front"] else best
    return found


def trade_off(cost: Cost, rows: Sequence[Row], published: Sequence[Row] = (), picture: str = "") -> Chart | None:
    """Draws the accuracy of one data set against a cost; returns None if nothing of it was measured.

    The page's chart has the Pareto front of what is measured here. Published results are a layer of their own, off at
    first: most papers say no cost, so theirs is a tick at the right edge, at their accuracy.

    Args:
        picture: the title of a picture that stands alone: in place of the front, each network is joined to its twin
            with gradient scaling, there is a legend, and names have a place already.
    """
    points = points_of(cost, rows)
    if not points:
        return None
    title, x, y = cost.title, alt.Scale(type="log", nice=False, padding=36), alt.Scale(zero=False, padding=22)
    if picture:
        title += ", dashes join twins"
        costs, top1, names = _names(points)
        x, y = alt.Scale(type="log", nice=False, domain=costs), alt.Scale(nice=False, domain=top1)
    shown = alt.Chart(_data(points)).encode(
        x=alt.X("cost:Q", scale=x, title=title).axis(format=cost.form, tickCount=6),
        y=alt.Y("top1:Q", scale=y, title="Top-1 (%)" if picture else None),
    )
    legend = alt.Legend() if picture else None
    colour = alt.Color("training:N", legend=legend).scale(domain=_TRAININGS, range=[PLAIN, SCALED])
    if picture:
        lines = shown.mark_line(strokeDash=[4, 3], strokeWidth=1, color=OTHER).encode(detail="twins:N")
    else:
        front = shown.transform_filter("datum.front")
        lines = front.mark_line(interpolate="step-after", strokeDash=[4, 3], color=OTHER)
    bars = shown.mark_rule().encode(y="low:Q", y2="high:Q", color=colour)
    marks = shown.mark_point(filled=True, size=80, opacity=1, cursor="pointer").encode(
        color=colour,
        shape=alt.Shape("tier:N", legend=None)
        .scale(domain=["measured", "checkpoint"], range=["circle", "square"]),
        href=alt.Undefined if picture else "href:N",
        tooltip=[
            alt.Tooltip("network:N"),
            alt.Tooltip("form:N", title="graph"),
            alt.Tooltip("top1:Q", title="top-1 (%)", format=".2f"),
            alt.Tooltip("cost:Q", title=cost.short, format=",.4~g"),
            alt.Tooltip("timesteps:Q", title="time steps"),
            *([alt.Tooltip("cpu:N", title="processor")] if any(point["cpu"] for point in points) else []),
        ],
    ).properties(name="points")  # fmt: skip
    layers = [lines.properties(name="lines"), bars, marks]
    if picture:
        text = alt.Chart(_data(names)).mark_text(align="left", fontSize=10)
        layers.append(text.encode(x="cost:Q", y="top1:Q", text="label:N", color=colour))
        return finish(alt.layer(*layers), picture, _HEIGHT)
    if published:
        layers += _published(published, cost)
    chart = alt.layer(*layers).add_params(alt.param(name="published", value=False))
    return finish(chart, f"Top-1 (%) against {cost.short}", 300, labels="points", avoid="lines")


def _names(points: Sequence[Point]) -> tuple[list[float], list[float], list[Point]]:
    """Returns the domains of both axes of a picture, and where a name stands beside its mark, over no other name or
    mark: in the units of the axes, the left end of its middle line. A name without such a place is left out."""
    costs, top1 = [point["cost"] for point in points], [point["top1"] for point in points]
    margin = max(0.12 * (max(top1) - min(top1)), 0.1)
    x, y = [min(costs) / 1.7, max(costs) * 1.7], [min(top1) - margin, max(top1) + margin]
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


def _published(rows: Sequence[Row], cost: Cost) -> list[Any]:
    claims = [
        {
            "network": row.model,
            "method": row.tag,
            "top1": row.top1,
            "cost": next((value for _, value, *_ in cost.points(row)), None),
            "timesteps": row.timesteps,
            "citation": row.published_citation,
        }
        for row in rows
    ]
    about = [
        alt.Tooltip("network:N", title="published"),
        alt.Tooltip("method:N"),
        alt.Tooltip("top1:Q", title="claimed top-1 (%)", format=".2f"),
        alt.Tooltip("timesteps:Q", title="time steps"),
        alt.Tooltip("citation:N"),
    ]
    base = alt.Chart(_data(claims)).transform_filter("published").encode(y="top1:Q", tooltip=about)
    edge = base.transform_filter("!datum.cost").mark_tick(color=OTHER, thickness=2, size=14, orient="horizontal")
    placed = base.transform_filter("datum.cost").mark_point(color=OTHER, shape="diamond", size=60)
    return [edge.encode(x=alt.value("width")).properties(name="claims"), placed.encode(x="cost:Q")]


def picture(rows: Sequence[Row]) -> str:
    """Draws accuracy against spikes per image as SVG, a panel for each data set; returns "" for nothing to draw."""
    import vl_convert  # here, as the page needs no drawing

    panels, width, height = [], 0.0, 0.0
    for dataset in dict.fromkeys(row.dataset for row in rows):
        chart = trade_off(COSTS["spikes"], [row for row in rows if row.dataset == dataset], picture=dataset)
        if chart:
            text = json.dumps(chart | {"width": _WIDTH, "autosize": "pad"})
            text = re.sub(r"var\(--(\w+)\)", lambda name: _PICTURE[name[1]], text)
            panel = vl_convert.vegalite_to_svg(json.loads(text))
            sides = re.search(r'width="([\d.]+)" height="([\d.]+)"', panel)
            wide, high = map(float, sides.groups()) if sides else (0.0, 0.0)
            panels.append(panel.replace("<svg ", f'<svg x="{width:g}" ', 1))
            width, height = width + wide, max(height, high)
    if not panels:
        return ""
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', *panels, "</svg>"]) + "\n"


# The page's other charts


def spikes(row: Row) -> list[Chart]:
    """Draws where the spikes of a network are: by layer and by time step."""
    colour = SCALED if row.scaling else PLAIN
    count = alt.X("spikes:Q", title="Spikes per image").axis(format="~s", tickCount=5)
    charts = []
    layers = [{"layer": layer, "spikes": spikes} for layer, spikes in (row.spikes_per_layer or {}).items()]
    steps = [{"step": step, "spikes": spikes} for step, spikes in enumerate(row.spikes_per_step or (), 1)]
    for values, place, title, height in (
        (layers, alt.Y("layer:N", sort=None, title=None).axis(grid=False, labelLimit=140), "Spikes by layer", 18),
        (steps, alt.Y("step:O", title=None).axis(grid=False), "Spikes by time step", 34),
    ):
        if values:
            tips = [alt.Tooltip(place.shorthand), alt.Tooltip("spikes:Q", format=",.0f")]
            bars = alt.Chart(_data(values)).mark_bar(color=colour).encode(x=count, y=place, tooltip=tips)
            charts.append(finish(bars, title, height * len(values)))
    return charts


def training(log: str) -> list[Chart]:
    """Draws the log of a training: the loss, and the accuracies that it has."""
    lines = [{key: float(value) for key, value in line.items() if value} for line in csv.DictReader(io.StringIO(log))]
    titles = {"train_top1": "training", "val_top1": "validation"}
    points = [
        {"epoch": line["epoch"], "top1": line[key], "images": title}
        for line in lines
        for key, title in titles.items()
        if key in line
    ]
    epoch = alt.X("epoch:Q", title="Epoch (augmented images)", scale=alt.Scale(nice=False))
    epoch = epoch.axis(grid=False, tickMinStep=1)
    loss = alt.Y("train_loss:Q", title=None, scale=alt.Scale(zero=False))
    top1 = alt.Y("top1:Q", title=None, scale=alt.Scale(zero=False))
    images = alt.Color("images:N").scale(domain=list(titles.values()), range=[OTHER, SCALED]).legend(None)
    point = {"size": 24, "filled": True}
    losses = alt.Chart(_data(lines)).mark_line(point=point | {"color": OTHER}, color=OTHER).encode(epoch, loss)
    tips = ["epoch:Q", "images:N", alt.Tooltip("top1:Q", format=".2f")]
    accuracies = alt.Chart(_data(points)).mark_line(point=point).encode(epoch, top1, images, tooltip=tips)
    return [finish(losses, "Training loss", 200), finish(accuracies, "Top-1 (%) while it trains", 200)]


def paired(found: Sequence[Difference]) -> Chart:
    """Draws the paired differences of an ablation with their intervals."""
    values = [
        {
            "contrast": f"{d.arm} minus {d.other}",
            "mean": d.top1.mean,
            "low": d.top1.mean - (d.top1.half or 0),
            "high": d.top1.mean + (d.top1.half or 0),
            "verdict": d.verdict,
            "pairs": d.pairs,
        }
        for d in found
    ]
    place = alt.Y("contrast:N", sort=None, axis=None)
    colour = alt.condition("datum.verdict == 'higher' || datum.verdict == 'lower'", alt.value(SCALED), alt.value(OTHER))
    about = [alt.Tooltip(key, format="+.2f") for key in ("mean:Q", "low:Q", "high:Q")]
    base = alt.Chart(_data(values)).encode(
        y=place, color=colour, tooltip=["contrast:N", *about, "verdict:N", "pairs:Q"]
    )
    title = "Difference in top-1, points"
    spans = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2="high:Q")
    means = base.mark_point(filled=True, size=70, opacity=1).encode(x="mean:Q").properties(name="points")
    zero = alt.Chart(_data([{"zero": 0}])).mark_rule(color=OTHER, strokeDash=[3, 3]).encode(x="zero:Q")
    names = alt.Chart(_data(values)).mark_text(align="left", dy=-11, color=OTHER, fontSize=11).encode(y=place)
    # Above, as on a phone there is no room beside.
    names = names.encode(x=alt.value(0), text="contrast:N").properties(name="names")
    return finish(alt.layer(zero, names, spans, means), "Paired differences, 95 % intervals", 36 * len(values))


def arms(results: dict[str, list[dict[str, Any]]]) -> Chart:
    """Draws accuracy against spikes of each run of an ablation, and of the mean of each arm."""

    def rule(run: dict[str, Any]) -> str:
        return run["scaling"]["name"] if run["scaling"] else "none"

    runs = [
        {"arm": arm, "seed": run["seed"], "spikes": run["spikes_per_image"], "top1": run["top1"], "rule": rule(run)}
        for arm, found in results.items()
        for run in found
    ]
    axes = {"spikes": "spikes_per_image", "top1": "top1"}
    means = [
        {"arm": arm, "label": arm, "rule": rule(found[0])}
        | {name: interval([run[key] for run in found]).mean for name, key in axes.items()}
        for arm, found in results.items()
        if found
    ]
    x = alt.X("spikes:Q", title="Spikes per image", scale=alt.Scale(zero=False, padding=24)).axis(format="~s")
    y = alt.Y("top1:Q", title=None, scale=alt.Scale(zero=False, padding=18))
    colour = alt.condition("datum.rule == 'none'", alt.value(PLAIN), alt.value(SCALED))
    tips = ["arm:N", "rule:N", alt.Tooltip("top1:Q", format=".2f"), alt.Tooltip("spikes:Q", format=",.0f")]
    each = alt.Chart(_data(runs)).mark_point(filled=True, size=22, opacity=0.4)
    mean = alt.Chart(_data(means)).mark_point(filled=True, size=90, opacity=1).properties(name="points")
    layers = [
        each.encode(x, y, color=colour, tooltip=["seed:O", *tips]).properties(name="runs"),
        mean.encode(x, y, color=colour, tooltip=tips),
    ]
    return finish(alt.layer(*layers), "Top-1 (%) against spikes", 280, "points", "runs")


def _data(values: Iterable[dict[str, Any]]) -> Any:
    return alt.Data(values=list(values))


def finish(chart: Any, title: str, height: int, labels: str = "", avoid: str = "") -> Chart:
    """Returns the specification of a chart as wide as its place in the page.

    Args:
        height: in pixels.
        labels: the name of a view: each of its marks gets its field `label` beside it, over nothing; where there is no
            such place, none.
        avoid: the name of another view whose marks these labels do not cover.
    """
    options: dict[str, Any] = {"autosize": {"type": "fit-x", "contains": "padding"}}
    if labels:
        # Vega-Lite has no such transform; Vega, which it is compiled to in the browser, does.
        patch = [{"op": "add", "path": "/marks/-", "value": _labels(labels, avoid)}]
        options["usermeta"] = {"embedOptions": {"patch": patch}}
    # Its parts were checked as they were made; once more takes as long as all the rest.
    settings = {"title": title, "width": "container", "height": height, "config": _CONFIG}
    specification: Chart = chart.properties(**settings, **options).to_dict(validate=False)
    return specification


def _labels(of: str, avoid: str) -> dict[str, Any]:
    encoding = {
        "text": {"field": "datum.label"},
        "fill": {"field": "fill"},
        "href": {"field": "datum.href"},
        "font": {"value": _CONFIG["font"]},
        "fontSize": {"value": 11},
    }
    places = {
        "type": "label",
        "size": {"signal": "[width - 14, height]"},  # the right edge is for published results
        "anchor": ["right", "left", "top", "bottom", "top-right", "top-left", "bottom-right", "bottom-left"],
        "offset": [4, 4, 8, 8, 8, 8, 8, 8],
        "avoidMarks": [f"{avoid}_marks"] if avoid else [],
    }
    marks = {"from": {"data": f"{of}_marks"}, "encode": {"enter": encoding}, "transform": [places]}
    return {"type": "text", "name": "labels", **marks}
