"""The page on gradient scaling: every ablation of the project that compares rules, as it was measured."""

from typing import Any, NamedTuple

import altair as alt

from recipes.studies.ablation.differences import Difference, differences, interval
from recipes.studies.ablation.page import setting
from recipes.studies.ablation.plan import PLANS, Plan, load_plan

from .figures import OTHER, PLAIN, SCALED, data, finish


class Study(NamedTuple):
    """An ablation: what it asks, how it was measured, its paired differences and its charts."""

    name: str
    question: str
    setting: str
    differences: list[Difference]
    charts: list[dict[str, Any]]


def studies() -> list[Study]:
    """Those that have results, and arms with different rules; by name."""
    plans = [load_plan(str(file)) for file in sorted(PLANS.glob("*.yaml")) if file.with_suffix("").is_dir()]
    return [_study(plan) for plan in plans if len({str(run.recipe.scaling) for run in plan.runs}) > 1]


def _study(plan: Plan) -> Study:
    results = {arm: list(plan.results(arm).values()) for arm in plan.arms}
    found = differences(plan)
    every = [result for arm in plan.arms for result in results[arm]]
    charts = [_differences(found)] if found else []
    return Study(plan.name, plan.question, setting(every), found, [*charts, _arms(results)])


def _differences(found: list[Difference]) -> dict[str, Any]:
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
    base = alt.Chart(data(values)).encode(
        y=place,
        color=colour,
        tooltip=["contrast:N", *about, "verdict:N", "pairs:Q"],
    )
    title = "Difference in top-1, points"
    spans = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2="high:Q")
    means = base.mark_point(filled=True, size=70, opacity=1).encode(x="mean:Q").properties(name="points")
    zero = alt.Chart(data([{"zero": 0}])).mark_rule(color=OTHER, strokeDash=[3, 3]).encode(x="zero:Q")
    names = alt.Chart(data(values)).mark_text(align="left", dy=-11, color=OTHER, fontSize=11).encode(y=place)
    # Above, as on a phone there is no room beside.
    names = names.encode(x=alt.value(0), text="contrast:N").properties(name="names")
    return finish(alt.layer(zero, names, spans, means), "Paired differences, 95 % intervals", 36 * len(values))


def _arms(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    runs = [
        {"arm": arm, "seed": run["seed"], "spikes": run["spikes_per_image"], "top1": run["top1"], "rule": _rule(run)}
        for arm, found in results.items()
        for run in found
    ]
    means = [
        {"arm": arm, "label": arm, "rule": _rule(found[0])}
        | {name: interval([run[key] for run in found]).mean for name, key in _AXES.items()}
        for arm, found in results.items()
        if found
    ]
    x = alt.X("spikes:Q", title="Spikes per image", scale=alt.Scale(zero=False, padding=24)).axis(format="~s")
    y = alt.Y("top1:Q", title=None, scale=alt.Scale(zero=False, padding=18))
    colour = alt.condition("datum.rule == 'none'", alt.value(PLAIN), alt.value(SCALED))
    tips = ["arm:N", "rule:N", alt.Tooltip("top1:Q", format=".2f"), alt.Tooltip("spikes:Q", format=",.0f")]
    each = alt.Chart(data(runs)).mark_point(filled=True, size=22, opacity=0.4)
    arms = alt.Chart(data(means)).mark_point(filled=True, size=90, opacity=1).properties(name="points")
    layers = [
        each.encode(x, y, color=colour, tooltip=["seed:O", *tips]).properties(name="runs"),
        arms.encode(x, y, color=colour, tooltip=tips),
    ]
    return finish(alt.layer(*layers), "Top-1 (%) against spikes", 280, "points", "runs")


_AXES = {"spikes": "spikes_per_image", "top1": "top1"}


def _rule(run: dict[str, Any]) -> str:
    return run["scaling"]["name"] if run["scaling"] else "none"
