"""The pages of all studies: `python -m recipes.studies --check`, or `--render`."""

from pathlib import Path
from typing import Any

from zoo.errors import CommandParser, run_command
from zoo.files import read_json

from ..health import HELD_OUT, SILENT
from ..page import render_plans, row, write_page

HERE = Path(__file__).resolve().parent
_HEALTH = f"""# Which networks train

Rendered by `python -m recipes.studies --render` from the JSON files in results/, each with its command, commit and
machine. One recipe for all of them: AdamW, a cosine from its peak to zero, crop and flip. Loss is the training loss
of the first and the last quarter of the steps, top-1 that of {HELD_OUT:,} held-out training images. Rates are spikes
per neuron and time step, of the layer that has the lowest of all, at the start or at the end; below {SILENT:.1%} it
would be silent.
Results of `_gs` networks before 26 November 2026 are of `channel`, their rule then; now it is `final_trace`.
Rates at the start before 28 November 2026 are of other random weights than those that were trained.

| model | data | T | steps | batch | loss, first quarter | last | top-1 % | rate, start | end | of layer | date |
|:--|:--|--:|--:|--:|--:|--:|--:|--:|--:|:--|:--|
"""
_SPEED = """# Speed of a training step

Rendered by `python -m recipes.studies --render` from the JSON files in results/, each with its command, commit,
versions, machine and every single timing. Medians of alternating runs in one process. The floor is the same network
with identity in place of its neurons, in the faster of two layouts; SpikingJelly runs as its users get it (multi-step,
contiguous), after its logits and gradients in float64 were found equal to ours to 1e-9. Kept: bytes saved for backward.
"x floor" is a step's time as a multiple of the floor's, and below 1 where the neurons' kernel, which normalises, too,
takes less time than PyTorch's normalisation does there; the other multiples are of ours: above 1, ours is faster.
Results before 26 November 2026 are of sresnet19 in the form of tdBN and TET, which was the default: stem of half the
width, a hidden layer in the head (sresnet19_w32: `stem: 16, hidden: 64`). sresnet19_w32_gs was trained with
`causal_trace` then; what `final_trace`, its rule now, costs is in [scaling_cost](../scaling_cost/README.md).

"""
_COLUMNS = (
    "Model", "T", "Batch", "Precision", "Surrogate", "Kernel", "ms", "x floor", "Without scaling", "Reference kernel",
    "SpikingJelly fp32", "SpikingJelly same precision", "Kept MB/image", "of SpikingJelly's fp32", "Peak MB",
    "Kernel build + first step s", "Processor", "Date",
)  # fmt: skip
_SORTED = ("model", "amp", "timesteps", "surrogate")


def render_health(check: bool) -> None:
    """Renders whether networks train, and whether all of their layers spike."""
    lines = []
    for file in sorted((HERE / "health").glob("results/*.json")):
        r = read_json(file)
        start, end = r["rates_start"], r["rates_end"]
        least = min(start, key=lambda layer: min(start[layer], end[layer]))
        loss, rates = r["train_loss"], [f"{start[least]:.2%}", f"{end[least]:.2%}"]
        what = [r[key] for key in ("dataset", "timesteps", "steps", "batch")]
        learnt = [f"{loss[0]:.3f}", f"{loss[-1]:.3f}", f"{r['top1']:.1f}"]
        model, date = f"[{r['model']}](results/{file.name})", r["date"][:10]
        lines.append(row(model, *what, *learnt, *rates, least, date) + "\n")
    write_page(HERE / "health" / "README.md", _HEALTH + "".join(lines), check)


def render_speed(check: bool) -> None:
    """Renders what a training step costs, a row a measurement, beside no neurons and beside other libraries."""
    results = [read_json(path) for path in sorted((HERE / "speed").glob("results/*.json"))]
    results.sort(key=lambda r: (r["machine"]["cpu"], *(r[key] for key in _SORTED)))
    head = [_SPEED + row(*_COLUMNS), row(":---", *["---:"] * (len(_COLUMNS) - 1))]
    write_page(HERE / "speed" / "README.md", "\n".join([*head, *map(_speed, results)]) + "\n", check)


def _speed(r: dict[str, Any]) -> str:
    def times(arm: str) -> str:
        return f"{r[arm]['median_ms'] / r['median_ms']:.2f} x" if arm in r else "—"

    precision = r["amp"] + (" (emulated)" if r["amp"] == "bf16" and not r["native_bf16"] else "")
    kernel = r["kernel"] + (", checkpointed" if r["grad_checkpointing"] else "")
    what = [r["model"], r["timesteps"], r["batch"], precision, r["surrogate"], kernel]
    floor = f"{r['times_identity']:.3f}" if "times_identity" in r else "—"
    others = [times(arm) for arm in ("plain", "reference", "spikingjelly_fp32", f"spikingjelly_{r['amp']}")]
    saved, peer = r.get("saved_bytes_per_image"), r.get("spikingjelly_fp32")
    memory = [
        f"{saved / 1e6:.2f}" if saved else "—",
        f"{saved / peer['saved_bytes_per_image']:.2f}" if saved and peer else "—",
        f"{r['peak_bytes'] / 1e6:.0f}",
    ]
    start = f"{r['kernel_build_ms'] / 1e3:.1f} + {r['first_step_ms'] / 1e3:.1f}"
    machine = r["machine"]["gpu"] or f"{r['machine']['cpu']}, {r['machine']['threads']} threads"
    return row(*what, f"{r['median_ms']:.1f}", floor, *others, *memory, start, machine, r["date"][:10])


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = CommandParser(prog="python -m recipes.studies", description="The pages of all studies.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--render", action="store_true", help="write every page anew from its result files")
    action.add_argument("--check", action="store_true", help="write nothing: fail if a page is not what its files say")
    check = parser.parse_args(argv).check
    for render in (render_plans, render_health, render_speed):
        render(check)


if __name__ == "__main__":
    run_command(main)
