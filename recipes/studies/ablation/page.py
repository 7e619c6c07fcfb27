"""What an ablation found: tables of arms and of paired differences, and a plot of accuracy against spikes."""

import io
import statistics
from typing import Any, NamedTuple

from scipy import stats

from zoo.files import atomic_write

from ..pages import row, write_page
from .plan import PLANS, Plan, load_plan

WIDE = 0.5
"""A 95 % interval with a larger half-width, in points of accuracy, and 0 inside says nothing: "inconclusive"."""


class Interval(NamedTuple):
    """A mean of n values and the half-width of its 95 % interval (Student's t), None for a single value."""

    mean: float
    half: float | None

    def __str__(self) -> str:
        return f"{self.mean:+.2f}" + ("" if self.half is None else f" ± {self.half:.2f}")

    @property
    def verdict(self) -> str:
        """What it says of a difference in points."""
        if self.half is None:
            return "one pair"
        if abs(self.mean) > self.half:
            return "higher" if self.mean > 0 else "lower"
        return "inconclusive" if self.half > WIDE else "no difference"


def interval(values: list[float]) -> Interval:
    """Of the mean of some values."""
    if len(values) < 2:
        return Interval(values[0], None)
    scale = stats.t.ppf(0.975, len(values) - 1) / len(values) ** 0.5
    return Interval(statistics.mean(values), float(scale * statistics.stdev(values)))


def paired(plan: Plan, arm: str, other: str) -> tuple[Interval, Interval | None, int] | None:
    """Arm minus other over the seeds that both have: top-1 in points, spikes in percent of the other's, pairs.

    There is no percentage of a network that never spiked.
    """
    a, b = plan.results(arm), plan.results(other)
    seeds = [seed for seed in a if seed in b]
    if not seeds:
        return None
    top1 = interval([a[s]["top1"] - b[s]["top1"] for s in seeds])
    if not all(b[s]["spikes_per_image"] for s in seeds):
        return top1, None, len(seeds)
    spikes = interval([100 * (a[s]["spikes_per_image"] / b[s]["spikes_per_image"] - 1) for s in seeds])
    return top1, spikes, len(seeds)


def render(plan: Plan, check: bool = False) -> None:
    """Write README.md and plot.svg into the plan's folder.

    Raises:
        ZooError: `check`, and README.md is not what the results say.
    """
    write_page(plan.folder / "README.md", _page(plan), check)
    if not check:
        atomic_write(plan.folder / "plot.svg", _plot(plan))


def render_plans(check: bool) -> None:
    """`render` for every plan of the project; one without results has no page."""
    for file in sorted(PLANS.glob("*.yaml")):
        plan = load_plan(str(file))
        if plan.folder.exists():
            render(plan, check)


def _page(plan: Plan) -> str:
    results = [result for arm in plan.arms for result in plan.results(arm).values()]
    done = f"{len(results)} of {len(plan.runs)} runs. {setting(results)}"
    lines = [f"# Ablation {plan.name}", *(["", plan.question] if plan.question else []), ""]
    lines += [f"Rendered by `python -m recipes.ablate {plan.name}.yaml` from the JSON files here: {done}", ""]
    lines += ["| arm | runs | top-1 % | spikes per image | training loss | minutes per run |"]
    lines += ["|:--|--:|--:|--:|--:|--:|"]
    for arm in plan.arms:
        found = list(plan.results(arm).values())
        lines.append(row(arm, len(found), *(_cells(found) if found else ["—"] * 4)))
    lines += ["", "Paired differences, with the 95 % interval of their mean:", ""]
    lines += ["| arm | compared to | pairs | top-1, points | | spikes, % |", "|:--|:--|--:|--:|:--|--:|"]
    for arm, other in plan.contrasts:
        if pair := paired(plan, arm, other):
            lines.append(row(arm, other, pair[2], pair[0], pair[0].verdict, pair[1] or "—"))
    return "\n".join(lines) + "\n\n![accuracy against spikes](plot.svg)\n"


def setting(results: list[dict[str, Any]]) -> str:
    """What was trained, on what, and where, in a sentence."""
    if not results:
        return "Nothing has run yet."
    r = results[0]
    text = f"{r['model']}, T = {r['timesteps']}, {r['train_images']:,} images of {r['dataset']}, {r['epochs']} epochs"
    where = r["machine"]["gpu"] or r["machine"]["cpu"]
    return f"{text}; measured on {r['images']:,} {r['split']} images at the last epoch; {where}."


def _cells(found: list[dict[str, Any]]) -> list[str]:
    top1, spikes = interval([r["top1"] for r in found]), interval([r["spikes_per_image"] for r in found])
    half = ("" if x.half is None else f" ± {x.half:,.{digits}f}" for x, digits in ((top1, 2), (spikes, 0)))
    loss, seconds = (statistics.mean(r[key] for r in found) for key in ("train_loss", "train_seconds"))
    return [f"{top1.mean:.2f}{next(half)}", f"{spikes.mean:,.0f}{next(half)}", f"{loss:.3f}", f"{seconds / 60:.1f}"]


def _plot(plan: Plan) -> bytes:
    import matplotlib as mpl  # here, as it takes a second and training needs none of it
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = plan.name  # the same file from the same results
    axes = (figure := Figure((8, 5), layout="constrained")).subplots()
    for i, arm in enumerate(plan.arms):
        if not (found := list(plan.results(arm).values())):
            continue
        x, y = [r["spikes_per_image"] for r in found], [r["top1"] for r in found]
        colour, marker = f"C{i % 10}", "osD^vPX"[i // 10 % 7]
        axes.plot(x, y, marker, color=colour, alpha=0.35, markersize=4)
        a, b = interval(x), interval(y)
        axes.errorbar(a.mean, b.mean, b.half, a.half, marker, color=colour, capsize=3, label=arm)
    axes.set(xlabel="spikes per image", ylabel="top-1 (%)")
    axes.set_title(f"{plan.name}: a small mark per run, a large one per arm")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()
