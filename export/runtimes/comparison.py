"""Two sessions of one file, image by image: classes and spike counts."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from tqdm import tqdm

from zoo.errors import one_line

from ..counts import PREFIX, add_spike_counts
from ..drive import Runner
from .sessions import OtherSession

_LONGEST = 1000
"""Characters of an error."""


def compare_sessions(
    proto: onnx.ModelProto, images: NDArray[np.float32], creates: Mapping[str, Callable[[Path], OtherSession]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What other runtimes give for each image, beside ONNX Runtime.

    Args:
        proto: a graph of `to_onnx`, in any layout; counts of spikes are added where it has none.
        images: normalised, float32 [N, C, H, W], or what its encoding takes.
        creates: from the name of each runtime to a function from a file to its session.

    Yields:
        The name of a runtime, and images (N); same_class: how many have ONNX Runtime's class; differing_counts: the sum
        of all differences of counts (image, layer, time step) as a fraction of all spikes; spikes: all spikes as a
        multiple of ONNX Runtime's; worst_layer and worst_layer_spikes, the same for the layer farthest from 1;
        fractions: counts that are no whole number; not_finite: values that are no number, of which all that is counted
        is None. Or error: what the runtime says.
    """
    counted = add_spike_counts(proto)
    names = [output.name for output in counted.graph.output]
    outputs = [name for name in names if name == "logits" or name.startswith(PREFIX)]
    expected = _all(Runner(counted), images, outputs, "onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(counted, file := Path(folder) / "model.onnx")
        for name, create in creates.items():
            try:
                found = _all(Runner(counted, create=lambda *_, **__: create(file)), images, outputs, name)  # noqa: B023
            except Exception as error:  # of a runtime that nobody has seen before
                cause = error.__cause__ or error
                yield name, {"error": f"{type(cause).__name__}: {one_line(cause)}"[:_LONGEST]}
            else:
                yield name, _difference(expected, found)


def _all(run: Runner, images: NDArray[np.float32], outputs: list[str], name: str) -> dict[str, NDArray[np.float64]]:
    chunks = tqdm(range(len(images)), desc=name, disable=None, leave=False)
    each = [run(images[i : i + 1], outputs) for i in chunks]
    return {key: np.concatenate([np.asarray(row[i], np.float64) for row in each]) for i, key in enumerate(outputs)}


def _difference(expected: dict[str, NDArray[np.float64]], found: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    logits, others = expected["logits"], found["logits"]
    layers = {key.removeprefix(PREFIX): (expected[key], found[key]) for key in expected if key != "logits"}
    total = sum(a.sum() for a, _ in layers.values())
    share = {layer: _part(b.sum(), a.sum()) for layer, (a, b) in layers.items() if a.any()}
    far = {layer: np.inf if times is None else abs(times - 1) for layer, times in share.items()}
    worst = max(far, key=lambda layer: far[layer], default=None)
    return {
        "images": len(logits),
        "same_class": int((logits.argmax(1) == others.argmax(1)).sum()),
        "differing_counts": _part(sum(np.abs(a - b).sum() for a, b in layers.values()), total),
        "spikes": _part(sum(b.sum() for _, b in layers.values()), total),
        "worst_layer": worst,
        "worst_layer_spikes": share[worst] if worst else None,
        "fractions": int(sum((np.isfinite(b) & (b != np.rint(b))).sum() for _, b in layers.values())),
        "not_finite": int(sum((~np.isfinite(b)).sum() for b in (others, *(b for _, b in layers.values())))),
    }


def _part(value: Any, of: Any) -> float | None:
    return float(value / of) if of and np.isfinite(value) else None
