"""How every chart of the page looks, and labels that cover no mark and no other label.

A chart is a Vega-Lite specification that altair makes and checks. Its colours are variables of the page's style sheet,
so that it is light and dark with the page.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt

PLAIN, SCALED, OTHER = "var(--plain)", "var(--scaled)", "var(--soft)"
_CONFIG = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "title": {"color": "var(--ink)", "anchor": "start", "fontSize": 13, "fontWeight": 600, "offset": 12},
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


def data(values: Sequence[dict[str, Any]]) -> Any:
    """Rows of a chart."""
    return alt.Data(values=list(values))


def finish(chart: Any, title: str, height: int, labels: str = "", avoid: str = "") -> dict[str, Any]:
    """The specification of a chart as wide as its place in the page.

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
    specification: dict[str, Any] = chart.properties(**settings, **options).to_dict(validate=False)
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
