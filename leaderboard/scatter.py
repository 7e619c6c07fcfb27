"""SVG: accuracy against spikes per image, a panel for each data set, each network beside its twin with scaling."""

import io
import json
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from zoo.files import sha256_of
from zoo.registry import plain_name

from .row import Row

# The picture is shown on white and on black: colours between. Two shapes as well: it reads without colour vision.
_GREY = "#737b85"
_KINDS = {False: ("o", "#2f81d6", "plain"), True: ("D", "#d1661a", "gradient scaling (_gs)")}
_COLOURED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
_STYLE = dict.fromkeys(_COLOURED, _GREY) | {"font.size": 9, "font.sans-serif": ["DejaVu Sans"], "svg.fonttype": "none"}
# Of a name, in points from its mark: beside it, above, below.
_PLACES = ((8, 0, "left"), (-8, 0, "right"), (-8, 12, "left"), (8, 12, "right"), (-8, -12, "left"), (8, -12, "right"))


def picture(rows: Sequence[Row]) -> str:
    """An SVG element whose marks tell of their rows; "" for nothing to draw."""
    rows = [row for row in rows if row.spikes_per_image]  # a network that never spikes has no place on a log axis
    if not rows:
        return ""
    from matplotlib import style  # here, as it takes a second and who reads results needs none of it
    from matplotlib.figure import Figure

    panels = {dataset: [row for row in rows if row.dataset == dataset] for dataset in {r.dataset: 0 for r in rows}}
    title = f"Top-1 accuracy against spikes per image: {', '.join(panels)}"
    data = [[row.path, row.scaling is not None, row.spikes_per_image, row.top1, row.top1_std] for row in rows]
    about = {"Title": title, "Description": sha256_of(json.dumps(data).encode()), "Date": None, "Creator": None}
    # The defaults: nobody's own style. The salt: the same ids each time.
    with style.context(["default", _STYLE | {"svg.hashsalt": title}]):
        size = -(-len(panels) // 2), min(len(panels), 2)
        figure = Figure((4.4 * size[1], 4 * size[0]), layout="constrained")
        for place, (dataset, shown) in enumerate(panels.items(), 1):
            _draw(figure.add_subplot(*size, place), dataset, shown)
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
        figure.draw_without_rendering()  # moves the axes to where they stay: a name's place depends on it
        for axes, shown in zip(figure.axes, panels.values(), strict=True):
            _write_names(axes, shown)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata=about)

    def tell(found: re.Match[str]) -> str:
        row = next(row for row in rows if row.path.encode().hex() == found[1])  # so that it needs no escape
        text = f"{row.name}: {row.top1:.2f} %, {row.spikes_per_image:,.0f} spikes per image"
        return f"<a><title>{escape(text)}</title>"

    svg = file.getvalue().partition("<svg")[2]
    return "<svg" + re.sub(r'<a xlink:href="([0-9a-f]+)"[^>]*>', tell, svg)


def without_drawings(text: str) -> str:
    """A file, its drawing replaced by the digest of its data: Matplotlib's versions draw differently."""
    return re.sub(r"<svg .*?<dc:description>(\w+)</dc:description>.*?</svg>", r"\1", text, flags=re.DOTALL)


def _draw(axes: Any, dataset: str, rows: Sequence[Row]) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator

    place: dict[tuple[Any, ...], tuple[float, float]] = {}
    for row in rows:
        at = row.spikes_per_image or 0.0, row.top1
        place[row.scaling is not None, plain_name(row.model), row.tag] = at
        marker, colour, _ = _KINDS[row.scaling is not None]
        axes.errorbar(*at, row.top1_std or None, color=colour)
        axes.scatter(*at, s=40, color=colour, marker=marker, zorder=3, urls=[row.path.encode().hex()])
    for scaled, *network in place:
        if not scaled and (twin := (True, *network)) in place:
            axes.plot(*zip(place[False, *network], place[twin], strict=True), "--", color=_GREY, linewidth=1)
    for marker, colour, label in _KINDS.values():
        axes.scatter([], [], s=40, color=colour, marker=marker, label=label)
    axes.plot([], [], "--", color=_GREY, linewidth=1, label="twins")
    low, high = min(x for x, _ in place.values()) / 1.7, max(x for x, _ in place.values()) * 1.7
    axes.set(xscale="log", xlim=(low, high), xlabel="Spikes per image (log scale)", ylabel="Top-1 (%)")
    axes.set_title(dataset, parse_math=False)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.minorticks_off()
    axes.margins(y=0.12)
    axes.grid(alpha=0.25)


def _write_names(axes: Any, rows: Sequence[Row]) -> None:
    """A name beside each mark, over no other name or mark; none without such a place (the mark's title has it)."""
    from matplotlib.transforms import Bbox

    spots = [(row.spikes_per_image, row.top1) for row in rows]
    taken = [Bbox([middle - 7, middle + 7]) for middle in axes.transData.transform(spots)]
    for row, spot in zip(rows, spots, strict=True):
        text, colour = row.name.removesuffix(f"_{row.dataset}"), _KINDS[row.scaling is not None][1]
        for x, y, side in _PLACES:
            name = axes.annotate(text, spot, (x, y), textcoords="offset points", ha=side, va="center", color=colour)
            name.set(in_layout=False, parse_math=False, url=row.path.encode().hex())
            box = name.get_window_extent()
            if axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1 and not box.count_overlaps(taken):
                taken.append(box)
                break
            name.remove()
