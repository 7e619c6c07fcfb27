"""SVG: accuracy against spikes per image, each network beside its twin with gradient scaling.

In the page a figure for each data set, whose marks carry ranks and lead to the table; for the README one picture, whose
marks carry names.
"""

import math
from collections.abc import Sequence
from html import escape
from itertools import product
from typing import NamedTuple

from zoo.family import plain_name

from .collect import Row


class Point(NamedTuple):
    """A mark: its row, what is written beside it, and where a click on it leads, "" for nowhere."""

    row: Row
    label: str
    anchor: str = ""


_WIDTH, _HEIGHT = 640, 380
_LEFT, _TOP, _BOTTOM, _MARGIN = 64, 44, 324, 24  # of the plotting area, in SVG units; _MARGIN is right of it
_CHARACTER, _LINE, _MARK = 6.6, 14, 7  # about the width and height of a letter; half a mark
_PANEL = 420  # wide, two of which the README shows side by side

# A file of its own has no style of a page, and an image in a README is shown on white and on black: colours between.
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#737b85}path{fill:none}"
    ".grid{stroke:#737b85;stroke-opacity:.25}.twin{stroke:#737b85;stroke-dasharray:3 4}"
    ".plain .dot{fill:#2f81d6}.scaled .dot{fill:#d1661a}.plain .bar{stroke:#2f81d6}.scaled .bar{stroke:#d1661a}"
)


def scatter(dataset: str, points: list[Point]) -> str:
    """A figure for one dataset, of the width of the page."""
    drawn = _panel(dataset, points, _WIDTH)
    if not drawn:
        return ""
    title = f"{escape(dataset)}: top-1 accuracy against spikes per image"
    return (
        f'<figure data-dataset="{escape(dataset)}"><figcaption>{escape(dataset)}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="group" aria-label="{title}">{drawn}</svg></figure>'
    )


def picture(rows: Sequence[Row]) -> str:
    """All datasets in an SVG file, two side by side; "" where there is nothing to draw."""
    points: dict[str, list[Point]] = {row.dataset: [] for row in rows}
    for row in rows:
        points[row.dataset].append(Point(row, row.name.removesuffix(f"_{row.dataset}")))
    panels = [drawn for dataset in points if (drawn := _panel(dataset, points[dataset], _PANEL))]
    if not panels:
        return ""
    places = [(index % 2 * _PANEL, index // 2 * _HEIGHT) for index in range(len(panels))]
    width, height = _PANEL * min(len(panels), 2), places[-1][1] + _HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">\n'
        f"<title>Top-1 accuracy against spikes per image</title>\n<style>{_STYLE}</style>\n"
        + "".join(
            f'<g transform="translate({x} {y})">{drawn}</g>\n' for (x, y), drawn in zip(places, panels, strict=True)
        )
        + "</svg>\n"
    )


def _panel(dataset: str, points: list[Point], width: int) -> str:
    """One dataset. A row without a spike count, or that never spikes, has no place on the log axis."""
    points = [point for point in points if point.row.spikes_per_image]
    if not points:
        return ""
    right = width - _MARGIN
    rows = [point.row for point in points]
    x_ticks = _log_ticks([row.spikes_per_image or 0.0 for row in rows])
    y_ticks = _linear_ticks([row.top1 + sign * (row.top1_std or 0.0) for row in rows for sign in (-1, 1)])

    def x(spikes: float) -> float:
        return _place(math.log(spikes), math.log(x_ticks[0]), math.log(x_ticks[-1]), _LEFT, right)

    def y(top1: float) -> float:
        return _place(top1, y_ticks[0], y_ticks[-1], _BOTTOM, _TOP)

    grid = [
        f'<path class="grid" d="M{x(tick):.1f} {_TOP}V{_BOTTOM}"/>'
        f'<text x="{x(tick):.1f}" y="{_BOTTOM + 18}" text-anchor="middle">{_short(tick)}</text>'
        for tick in x_ticks
    ] + [
        f'<path class="grid" d="M{_LEFT} {y(tick):.1f}H{right}"/>'
        f'<text x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.4g}</text>'
        for tick in y_ticks
    ]
    places = [(x(row.spikes_per_image or 0.0), y(row.top1)) for row in rows]
    place = dict(zip(map(_twin_key, rows), places, strict=True))
    twins = [
        '<path class="twin" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>'.format(*place[False, name], *place[True, name])
        for scaled, name in place
        if not scaled and (True, name) in place
    ]
    texts = _labels(places, [point.label for point in points], right)
    marks = [
        _mark(point, *here, y(point.row.top1 + (point.row.top1_std or 0.0)), text)
        for point, here, text in zip(points, places, texts, strict=True)
    ]
    return (
        f"{_legend(right)}{''.join(grid)}"
        f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 14}" text-anchor="middle">Spikes per image (log scale)</text>'
        f'<text transform="translate(16 {(_TOP + _BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"Top-1 on {escape(dataset)} (%)</text>{''.join(twins)}{''.join(marks)}"
    )


def _twin_key(row: Row) -> tuple[bool, str]:
    """(has gradient scaling, name of the plain twin and tag): twins differ in the first only."""
    return row.scaling is not None, f"{plain_name(row.model)}.{row.tag}"


def _mark(point: Point, x: float, y: float, top: float, text: str) -> str:
    row, scaled = point.row, _twin_key(point.row)[0]
    bar = f'<path class="bar" d="M{x:.1f} {top:.1f}V{2 * y - top:.1f}"/>' if row.top1_std else ""
    title = f"{point.label}. " if point.anchor else ""
    title += f"{row.name}: {row.top1:.2f} %, {row.spikes_per_image:,.0f} spikes per image"
    name, link = ("a", f'a href="#{escape(point.anchor)}"') if point.anchor else ("g", "g")
    return (
        f'<{link} class="{"scaled" if scaled else "plain"}"><title>{escape(title)}</title>{bar}'
        f"{_shape(scaled, x, y)}{text}</{name}>"
    )


def _labels(places: Sequence[tuple[float, float]], labels: Sequence[str], right: float) -> list[str]:
    """A text beside each mark, over no other text or mark; "" where there is no such place (its title has the name)."""
    taken = [(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in places]
    texts = []
    for (x, y), label in zip(places, labels, strict=True):
        width = _CHARACTER * len(label)
        for base, side in product((y + 4, y - 11, y + 19), ("start", "end")):  # beside it, above, below
            at = x + 11 if side == "start" else x - 11
            low = at if side == "start" else at - width
            box = (low, base - _LINE + 2, low + width, base + 2)
            if low > _LEFT and box[2] < right + 4 and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                texts.append(f'<text x="{at:.1f}" y="{base:.1f}" text-anchor="{side}">{escape(label)}</text>')
                break
        else:
            texts.append("")
    return texts


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _shape(scaled: bool, x: float, y: float) -> str:
    # Two shapes as well as two colours: the plot reads without colour vision.
    if scaled:
        return f'<path class="dot" d="M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7 -7z"/>'
    return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>'


def _legend(right: float) -> str:
    return (
        f'<g class="plain">{_shape(False, _LEFT + 8, 20)}<text x="{_LEFT + 22}" y="24">plain</text></g>'
        f'<g class="scaled">{_shape(True, _LEFT + 72, 20)}<text x="{_LEFT + 86}" y="24">gradient scaling (_gs)'
        f'</text></g><text x="{right}" y="24" text-anchor="end">dashes: twins</text>'
    )


def _place(value: float, low: float, high: float, start: float, end: float) -> float:
    return start + (value - low) / (high - low) * (end - start)


def _log_ticks(values: list[float]) -> list[float]:
    """1, 2, 5, 10 ... from the last one at or below the smallest value to the first one above the largest."""
    decades = range(math.floor(math.log10(min(values))) - 1, math.ceil(math.log10(max(values))) + 2)
    ticks = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    low = max(tick for tick in ticks if tick <= min(values))
    high = min(tick for tick in ticks if tick > max(values))
    inside = [tick for tick in ticks if low <= tick <= high]
    # Over many decades labels would touch: keep the powers of ten, and both ends of the axis.
    return inside if len(inside) <= 8 else sorted({low, high, *(10.0**d for d in decades if low < 10.0**d < high)})


def _linear_ticks(values: list[float]) -> list[float]:
    """At most seven round numbers that enclose all values."""
    for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20):
        low = math.floor(min(values) / step)
        high = max(math.ceil(max(values) / step), low + 1)
        if high - low <= 6:
            return [index * step for index in range(low, high + 1)]
    return [-50.0, 0.0, 50.0, 100.0, 150.0]  # top-1 and its deviation cannot leave this


def _short(count: float) -> str:
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.4g} {letter}"
    return f"{count:.4g}"
