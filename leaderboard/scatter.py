"""An inline SVG: accuracy against spikes per image, each network beside its twin with gradient scaling."""

from __future__ import annotations

import math
from html import escape

from zoo.family import plain_name

from .collect import Row

Point = tuple[Row, int, str]  # row, rank within its dataset, anchor of its table row

_WIDTH, _HEIGHT = 640, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 616, 44, 324  # the plotting area, in SVG units


def scatter(dataset: str, points: list[Point]) -> str:
    """A figure for one dataset. A row without a spike count, or that never spikes, has no place on the log axis."""
    points = [point for point in points if point[0].spikes_per_image]
    if not points:
        return ""
    x_ticks = _log_ticks([row.spikes_per_image or 0.0 for row, _, _ in points])
    y_ticks = _linear_ticks([row.top1 + sign * (row.top1_std or 0.0) for row, _, _ in points for sign in (-1, 1)])

    def x(spikes: float) -> float:
        return _place(math.log(spikes), math.log(x_ticks[0]), math.log(x_ticks[-1]), _LEFT, _RIGHT)

    def y(top1: float) -> float:
        return _place(top1, y_ticks[0], y_ticks[-1], _BOTTOM, _TOP)

    grid = [
        f'<path class="grid" d="M{x(tick):.1f} {_TOP}V{_BOTTOM}"/>'
        f'<text x="{x(tick):.1f}" y="{_BOTTOM + 18}" text-anchor="middle">{_short(tick)}</text>'
        for tick in x_ticks
    ] + [
        f'<path class="grid" d="M{_LEFT} {y(tick):.1f}H{_RIGHT}"/>'
        f'<text x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.4g}</text>'
        for tick in y_ticks
    ]
    place = {_twin_key(row): (x(row.spikes_per_image or 0.0), y(row.top1)) for row, _, _ in points}
    twins = [
        '<path class="twin" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>'.format(*place[False, name], *place[True, name])
        for scaled, name in place
        if not scaled and (True, name) in place
    ]
    marks = [
        _mark(row, rank, anchor, x(row.spikes_per_image or 0.0), y(row.top1), y(row.top1 + (row.top1_std or 0.0)))
        for row, rank, anchor in points
    ]
    title = f"{escape(dataset)}: top-1 accuracy against spikes per image"
    return (
        f'<figure data-dataset="{escape(dataset)}"><figcaption>{escape(dataset)}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="group" aria-label="{title}">'
        f"{_legend()}{''.join(grid)}"
        f'<text x="{(_LEFT + _RIGHT) / 2}" y="{_HEIGHT - 14}" text-anchor="middle">Spikes per image (log scale)</text>'
        f'<text transform="translate(16 {(_TOP + _BOTTOM) / 2}) rotate(-90)" text-anchor="middle">Top-1 (%)</text>'
        f"{''.join(twins)}{''.join(marks)}</svg></figure>"
    )


def _twin_key(row: Row) -> tuple[bool, str]:
    """(has gradient scaling, name of the plain twin and tag): twins differ in the first only."""
    return row.scaling is not None, f"{plain_name(row.model)}.{row.tag}"


def _mark(row: Row, rank: int, anchor: str, x: float, y: float, top: float) -> str:
    scaled = _twin_key(row)[0]
    bar = f'<path class="bar" d="M{x:.1f} {top:.1f}V{2 * y - top:.1f}"/>' if row.top1_std else ""
    text = f"{rank}. {row.name}: {row.top1:.2f} %, {row.spikes_per_image:,.0f} spikes per image"
    return (
        f'<a href="#{escape(anchor)}" class="{"scaled" if scaled else "plain"}"><title>{escape(text)}</title>{bar}'
        f'{_shape(scaled, x, y)}<text x="{x + 9:.1f}" y="{y - 7:.1f}">{rank}</text></a>'
    )


def _shape(scaled: bool, x: float, y: float) -> str:
    # Two shapes as well as two colours: the plot reads without colour vision.
    if scaled:
        return f'<path class="dot" d="M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7 -7z"/>'
    return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>'


def _legend() -> str:
    return (
        f'<g class="plain">{_shape(False, _LEFT + 8, 20)}<text x="{_LEFT + 22}" y="24">plain</text></g>'
        f'<g class="scaled">{_shape(True, _LEFT + 88, 20)}<text x="{_LEFT + 102}" y="24">with gradient scaling (_gs)'
        f'</text></g><text x="{_RIGHT}" y="24" text-anchor="end">dashes join twins</text>'
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
