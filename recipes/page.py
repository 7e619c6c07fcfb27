"""Pages that are rendered from result files; that of an ablation: arms, paired differences, accuracy against spikes."""

import contextlib
import io
import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.files import atomic_write, locked, read_text, sha256_of

from .commands import PLANS
from .differences import Difference, differences, interval, processors
from .plan import Plan, load_plan


def row(*cells: object) -> str:
    """Returns a row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def write_page(file: Path, text: str, check: bool) -> None:
    """Writes a page; in a check, only compares it with what is there.

    Raises:
        ZooError: `check`, and the file says something else; `python -m recipes.studies --render` is the way out.
    """
    if not check:
        atomic_write(file, text)
    elif not file.exists() or read_text(file) != text:
        raise outdated(file)


def outdated(file: Path) -> ZooError:
    """Returns the error for a page or picture that is not what its result files say."""
    return ZooError(f"{file} is not what its result files say: python -m recipes.studies --render writes it")


def render(plan: Plan, check: bool = False) -> None:
    """Writes README.md and plot.svg into the plan's folder.

    Raises:
        ZooError: `check`, and they are not what the results say.
    """
    with contextlib.nullcontext() if check else locked(plan.folder):  # several may do parts of a plan
        write_page(plan.folder / "README.md", _page(plan), check)
        file, results = plan.folder / "plot.svg", {arm: plan.results(arm).values() for arm in plan.arms}
        points = {a: [[r[key] for r in rs] for key in ("spikes_per_image", "top1")] for a, rs in results.items() if rs}
        drawn = sha256_of(json.dumps(points).encode())  # other versions of matplotlib draw the same in other bytes
        if not check:
            atomic_write(file, _plot(plan.name, points, drawn))
        elif not file.exists() or drawn not in read_text(file):
            raise outdated(file)


def render_plans(check: bool) -> None:
    """Renders every plan of the project; one without results has no page."""
    for file in sorted(PLANS.glob("*.yaml")):
        plan = load_plan(str(file))
        if plan.folder.exists():
            render(plan, check)


def _page(plan: Plan) -> str:
    results = [result for arm in plan.arms for result in plan.results(arm).values()]
    done = f"{len(results)} of {len(plan.runs)} runs. {setting(results)}"
    lines = [f"# Ablation {plan.name}", *(["", plan.question] if plan.question else []), ""]
    # The other one would first train what has not run.
    how = "recipes.studies --render" if plan.folder.parent == PLANS else f"recipes.ablate {plan.name}.yaml"
    lines += [f"Rendered by `python -m {how}` from the JSON files here: {done}", ""]
    lines += ["| arm | runs | top-1 % | spikes per image | training loss | minutes per run |"]
    lines += ["|:--|--:|--:|--:|--:|--:|"]
    for arm in plan.arms:
        found = list(plan.results(arm).values())
        lines.append(row(arm, len(found), *(_cells(found) if found else ["—"] * 4)))
    lines += [
        "",
        "After ± is the half-width of the 95 % interval of an arm's mean (Student's t), as long as the bars below.",
    ]
    lines += ["", "Paired differences, each with the 95 % interval of its mean, not corrected, and p-values of t-tests"]
    lines += ["corrected for the number of contrasts of the plan by Holm's method. Accuracy is called higher or lower"]
    lines += ["where that p is below 0.05; no difference: the interval has 0 in it and no end beyond half a point;"]
    lines += ["anything else is inconclusive:", ""]
    lines += _table(whole := differences(plan))
    if alone := differences(plan, plan.further):
        added = f"The {len(plan.further)} seeds from {plan.further[0]} on"
        lines += ["", f"{added} were added when results of the others were known, which makes the intervals above"]
        lines += ["somewhat too narrow. The added ones alone, so far as they have run:", ""]
        lines += _table(alone)
    if across := ", ".join(f"{d.across} of {d.arm} and {d.other}" for d in whole if d.across):
        lines += ["", f"Pairs whose runs are of two processors: {across}. Without them:", ""]
        lines += _table(differences(plan, one_processor=True))
    return "\n".join(lines) + "\n\n![accuracy against spikes](plot.svg)\n"


def _table(found: list[Difference]) -> list[str]:
    lines = ["| arm | compared to | pairs | top-1, points | | p | spikes, % | p |"]
    lines += ["|:--|:--|--:|--:|:--|--:|--:|--:|"]
    return lines + [row(*difference.cells) for difference in found]


def setting(results: list[dict[str, Any]]) -> str:
    """Says what was trained, on what, and where, in a sentence."""
    if not results:
        return "Nothing has run yet."

    def all_of(values: Iterable[Any]) -> str:
        return " and ".join(dict.fromkeys(map(str, values)))

    r, models = results[0], all_of(result["model"] for result in results)
    steps, epochs = (all_of(result[key] for result in results) for key in ("timesteps", "epochs"))
    images = all_of(f"{result['train_images']:,}" for result in results)
    text = f"{models}, T = {steps}, {images} images of {r['dataset']}, {epochs} epochs"
    where = all_of(name for result in results for name in processors(result))
    return f"{text}; measured on {r['images']:,} {r['split']} images at the last epoch; {where}."


def _cells(found: list[dict[str, Any]]) -> list[str]:
    top1, spikes = interval([r["top1"] for r in found]), interval([r["spikes_per_image"] for r in found])
    half = ("" if x.half is None else f" ± {x.half:,.{digits}f}" for x, digits in ((top1, 2), (spikes, 0)))
    loss, seconds = (statistics.mean(r[key] for r in found) for key in ("train_loss", "train_seconds"))
    return [f"{top1.mean:.2f}{next(half)}", f"{spikes.mean:,.0f}{next(half)}", f"{loss:.3f}", f"{seconds / 60:.1f}"]


def _plot(name: str, points: dict[str, list[list[float]]], drawn: str) -> bytes:
    import matplotlib as mpl  # here, as it takes a second and training needs none of it
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = name  # the same file from the same results
    axes = (figure := Figure((8, 5), layout="constrained")).subplots()
    for i, (arm, (x, y)) in enumerate(points.items()):
        colour, marker = f"C{i % 10}", "osD^vPX"[i // 10 % 7]
        axes.plot(x, y, marker, color=colour, alpha=0.35, markersize=4)
        a, b = interval(x), interval(y)
        axes.errorbar(a.mean, b.mean, b.half, a.half, marker, color=colour, capsize=3, label=arm)
    axes.set(xlabel="spikes per image", ylabel="top-1 (%)")
    axes.set_title(f"{name}: a small mark per run, a large one per arm")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Description": drawn})
    return out.getvalue()
