"""The page of the speed measurements."""

from pathlib import Path
from typing import Any

from zoo.files import read_json

from ..pages import row, write_page

FOLDER = Path(__file__).resolve().parent
_INTRO = """# Speed of a training step

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


def render(check: bool = False) -> None:
    """Write README.md; see `write_page`."""
    write_page(FOLDER / "README.md", table([read_json(path) for path in sorted(FOLDER.glob("results/*.json"))]), check)


def table(results: list[dict[str, Any]]) -> str:
    """The page, Markdown: a row a measurement, sorted by processor, model, precision, time steps and surrogate."""
    results = sorted(results, key=lambda r: (r["machine"]["cpu"], *(r[key] for key in _SORTED)))
    lines = [_INTRO + row(*_COLUMNS), row(":---", *["---:"] * (len(_COLUMNS) - 1)), *map(_row, results)]
    return "\n".join(lines) + "\n"


def _row(r: dict[str, Any]) -> str:
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
