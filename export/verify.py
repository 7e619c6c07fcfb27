"""The verification gate: an exported graph must compute what the network computes.

A tight tolerance on logits would be the wrong test: a membrane potential within rounding of the threshold may spike on
one side and not on the other, and the two then part. So the gate has two parts. On an exact copy, whose arithmetic
knows no rounding, all spikes must be equal bit for bit, and logits up to a mean's rounding, at every optimisation
level: those of float32 to PyTorch's, those of eight bits to those of float32. On the real weights, the fraction of
spikes that differ and the agreement of the predicted classes are measured and bounded: by fixed numbers, or, where a
deep network amplifies rounding beyond them, by a multiple of what float32 does to PyTorch's own spikes, measured
against float64. A file from elsewhere must also have the operations, constants and metadata of the graph that its
network exports to.
"""

import copy
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from tqdm import tqdm

from zoo.data import normalisation
from zoo.errors import ZooError, one_line, out_of_memory

from .exact_copy import Run, exact_twin, run_in_pytorch
from .file import (
    PREFIX,
    STEP_LOGITS,
    add_description,
    add_spike_counts,
    add_step_logits,
    metadata,
    same_entry,
    texts,
)
from .graph import DOMAIN
from .images import network_inputs, normalise
from .int8 import Rounded, int8_graph
from .network import build_graph, exportable, inference_copy, take_apart
from .run import OPTIMIZATIONS, Runner, at_once, has_event_library, read_model

MAX_FLIP_RATE = 1e-3
MIN_AGREEMENT = 0.995
ROUNDING = 3
"""Allowed multiple of the difference between PyTorch in float32 and in float64: two roundings, and room for chance."""
BOUNDS = {"fp32": (MAX_FLIP_RATE, MIN_AGREEMENT), "fp16": (0.1, 0.75), "int8": (0.2, 0.5), "int16": (0.1, 0.75)}
"""Both for each precision. The rounding of weights to half precision or eight bits is no error of the graph: the bounds
catch weights and scales that do not fit the network; where half precision holds the weights, fp16 has those of fp32.
What a file loses in accuracy is measured on labelled images (`export.bench_ort`)."""
MAX_SPIKES = 2
"""Allowed factor between the spikes of a layer in the graph and in PyTorch, either way: what keeps the bounds above may
still be silent. Eight bits change the spikes of a layer by some percent."""
COUNTED = 1000
"""Spikes of a layer from which on that is asked."""
LOGIT_ROUNDING = 1e-4
"""Allowed difference of logits where all spikes agree, in units of the largest logit or 1."""
_CLOSE = 1e-5
"""Allowed difference of a constant, in units of the tensor's largest: another version of PyTorch folds normalisations
with other roundings."""
_FREE = {"tag", "epochs", "seed", "test_reads", "license"}
"""Entries of the metadata that a file may have differently: they say how it came to be."""
QUICK = ("disable", "all")
"""The levels of optimisation at which a quick gate runs a graph: as it is written, and as it is run by default."""
_CHUNK = 32
"""Images of 32 x 32 pixels times time steps that run at once."""


def verify(
    model: nn.Module, graph: bytes | str | os.PathLike[str], images: NDArray[Any] | Tensor | None = None
) -> dict[str, Any]:
    """Checks the graph of a network, in any layout, against the network.

    Args:
        model: the network; it stays as it is.
        graph: its graph from `to_onnx`, a file or its bytes.
        images: for the comparison on real weights, as for `to_onnx`; up to 32 random ones without.

    Returns:
        JSON values: "dyadic" {levels, batches, input_size, layers, spike_rates, identical}, of an event-driven graph
        "kernel" {levels, images, identical}, and "real" {inputs, images,
        within_fixed_bounds, flip_rate, flip_rate_per_layer, rounding_flip_rate, rounding_disagreements (both between
        PyTorch in float32 and in float64), spike_rates, silent_layers, top1_agreement (percent), disagreements,
        max_logit_difference}. Rates are fractions of all neurons and time steps.

    Raises:
        ZooError: a spike or logit differs on the exact copy, a bound is missed on the real weights, an operation, a
            constant or an entry of the metadata is not the network's, or the images do not fit.
    """
    model = exportable(model)
    _, proto = read_model(graph)
    images = None if images is None else network_inputs(model, images)
    layout, precision = metadata(proto, "layout"), metadata(proto, "precision")
    network = inference_copy(model)
    if precision == "int8":
        built = int8_graph(take_apart(network, all_steps=True), _rounded_in(proto))
    else:
        built = build_graph(network, layout, precision)
    known = _instrumented_like(add_description(built, model), proto)
    _compare_operations(known, proto)
    _compare_metadata(known, proto)
    _compare_constants(known, proto)
    return run_gate(network, proto, images)


def run_gate(
    network: nn.Module, proto: onnx.ModelProto, images: NDArray[np.float32] | None, *, quick: bool = False
) -> dict[str, Any]:
    """Runs the graph, for one that was made of this network just now, an `inference_copy`; see `verify`. A quick gate
    runs it at `QUICK` of the optimisation levels, and on 32 of the images."""
    levels, images = (QUICK, None if images is None else images[:_CHUNK]) if quick else (tuple(OPTIMIZATIONS), images)
    precision, layout = metadata(proto, "precision"), metadata(proto, "layout")
    twin = exact_twin(network, layout, precision)
    check_same_operations(twin.graph, proto)
    report = {"dyadic": compare_exactly(*twin, levels), "real": _verify_real(network, proto, images)}
    if precision == "int16":
        images = random_images(network) if images is None else images
        report["kernel"] = _verify_kernel(proto, images, levels)
    return report


def _verify_kernel(proto: onnx.ModelProto, images: NDArray[np.float32], levels: Sequence[str]) -> dict[str, Any]:
    """Compares all spikes and logits of event-driven nodes in the kernel with those of their functions, bit for bit.

    Returns:
        JSON values: levels, images, identical; null where there is no kernel.
    """
    images = images[: min(_CHUNK, at_once(_CHUNK * 2**13, metadata(proto, "timesteps"), images))]
    for level in tqdm(levels, desc="kernel", leave=False, disable=None):
        runners = [Runner(proto, optimization=level, functions=functions, spikes=True) for functions in (False, True)]
        names = [*runners[0].values.values(), "logits"]
        for name, kernel, function in zip(names, *(run(images, names) for run in runners), strict=True):
            if not np.array_equal(kernel, function):
                raise ZooError(
                    f"verification failed: {name} of the event-driven kernel differ from those of the functions "
                    f"({_difference(function, kernel)}; optimization {level})"
                )
    return {"levels": list(levels), "images": len(images), "identical": has_event_library() or None}


def check_same_operations(twin: onnx.ModelProto, proto: onnx.ModelProto) -> None:
    """Raises ZooError unless a graph begins with the operations of its twin; instruments may follow."""
    known, found = (list(_operations(graph.node)) for graph in (twin.graph, proto.graph))
    if found[: len(known)] != known:
        raise ZooError("verification failed: the graph's operations are not those that the network exports to")


def _operations(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """Yields what each node does, of a function without its number, as neurons with other numbers are alike in the
    exact copy; the bodies of loops first, without their instruments."""
    for node in nodes:
        for attribute in node.attribute:
            yield from _operations(inner for inner in attribute.g.node if not inner.output[0].endswith("/out"))
        yield re.sub(r"(_\d+)+$", "", node.op_type) if node.domain == DOMAIN else node.op_type


def compare_exactly(proto: onnx.ModelProto, runs: Sequence[Run], other: str, levels: Sequence[str]) -> dict[str, Any]:
    """Compares a graph of exact arithmetic with what it must give, at these levels of optimisation; see `exact_twin`.

    Returns:
        JSON values: levels, batches, layers, spike_rates, identical, input_size.
    """
    values = metadata(proto, "spike_values")
    rates = {
        name: float(np.concatenate([expected[value] for _, expected in runs]).mean()) for name, value in values.items()
    }
    if silent := [name for name, rate in rates.items() if rate == 0]:
        raise ZooError(f"verification proves nothing: layers {', '.join(silent)} never spike in the exact copy")
    for level in tqdm(levels, desc="exactness", leave=False, disable=None):
        for spikes in (True, False):  # what fails first tells where
            run = Runner(proto, optimization=level, spikes=spikes)
            names = [*(values.values() if spikes else ()), "logits"]
            for images, expected in runs:
                for name, got in zip(names, run(images, names), strict=True):
                    if not _are_alike(name, expected[name], got):
                        flat = name == "logits" and metadata(proto, "layout") != "function"
                        hint = "; a head that is no mean over time has the layout function alone" if flat else ""
                        raise ZooError(
                            f"verification failed: {name} differ from {other} on exact arithmetic "
                            f"({_difference(expected[name], got)}; optimization {level}, batch {len(images)}){hint}"
                        )
    batches = [len(images) for images, _ in runs]
    about = {"levels": list(levels), "batches": batches, "layers": len(values)}
    return about | {"spike_rates": rates, "identical": True, "input_size": list(metadata(proto, "input_size"))}


def _are_alike(name: str, expected: NDArray[np.float32], got: NDArray[np.float32]) -> bool:
    """Returns whether values are equal; logits up to 1e-6 of the largest: the mean of ten votes (plif_net) rounds, and
    the one over time adds what it rounded to in any order."""
    if name != "logits" or got.shape != expected.shape:
        return np.array_equal(expected, got)
    return np.allclose(got, expected, rtol=0, atol=1e-6 * float(np.abs(expected).max()))


def _difference(expected: NDArray[np.float32], got: NDArray[np.float32]) -> str:
    if expected.shape != got.shape:
        return f"shape {list(got.shape)} instead of {list(expected.shape)}"
    return f"{int((expected != got).sum())} of {expected.size} values"


def _verify_real(network: Any, proto: onnx.ModelProto, images: NDArray[np.float32] | None) -> dict[str, Any]:
    inputs = "random inputs" if images is None else "given images"
    if images is None:
        images = random_images(network)
    precise, precision = copy.deepcopy(network).double(), metadata(proto, "precision")
    run = Runner(proto, spikes=True)
    values = run.values
    flips, active, counted, total = (dict.fromkeys(values, 0) for _ in range(4))
    expected, got, rounded, rounding, alike = [], [], 0, 0, []
    size = at_once(_CHUNK * 2**10, network.timesteps, images)
    for chunk in tqdm(torch.from_numpy(images).split(size), desc="real weights", leave=False, disable=None):
        logits, spikes = run_in_pytorch(network, chunk)
        outputs = run(chunk.numpy(), ["logits", *values.values()])
        same = np.ones(len(chunk), bool)
        try:
            precise_logits, precise_spikes = run_in_pytorch(precise, chunk.double())
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            raise ZooError(f"this network's forward cannot be run in float64, to compare: {one_line(error)}") from error
        rounding += sum(int((spikes[name] != precise_spikes[name]).sum()) for name in values)
        rounded += int((logits.argmax(1) != precise_logits.argmax(1)).sum())
        expected.append(logits.numpy())
        got.append(outputs[0])
        for name, array in zip(values, outputs[1:], strict=True):
            flipped = spikes[name].numpy() != array
            flips[name] += int(flipped.sum())
            same &= ~flipped.reshape(-1, len(chunk), array[0].size).any((0, 2))
            active[name] += int(spikes[name].sum(dtype=torch.float64))
            counted[name] += int(array.sum(dtype=np.float64))
            total[name] += array.size
        alike.append(same)
    compare_where_alike(np.concatenate(expected), np.concatenate(got), np.concatenate(alike))
    real = compare_logits(np.concatenate(expected), np.concatenate(got))
    flip_rate, rounding_flip_rate = (n / sum(total.values()) for n in (sum(flips.values()), rounding))
    failed = len(real["disagreements"])
    if precision == "fp16" and _is_half(network):
        precision = "fp32"
    max_rate, min_agreement = BOUNDS[precision]
    allowed = max(int((1 - min_agreement) * len(images)), 1, ROUNDING * rounded)
    allowed_rate = max(max_rate, ROUNDING * rounding_flip_rate)
    chance = precision != "fp32" and inputs == "random inputs"
    if chance:
        allowed = len(images)  # on noise, which class a network names is chance
    if flip_rate > allowed_rate or failed > allowed:
        first = next((name for name in values if flips[name]), "none")
        raise ZooError(
            f"verification failed on the real weights ({inputs}): the spikes of {flip_rate:.2e} of all neurons and "
            f"time steps differ from PyTorch's (allowed {allowed_rate:.2e}), and {failed} of {len(images)} predicted "
            f"classes (allowed {allowed}); first differing layer: {first}. Other weights than the network's do this"
        )
    for name in values:
        few, many = sorted((active[name], counted[name]))
        if many > COUNTED and many > MAX_SPIKES * few:
            said = f"layer {name} spikes {counted[name]:,} times, in PyTorch {active[name]:,} times"
            cause = "Other weights than the network's"
            if precision == "int8":
                cause = "Calibration images that are not as the network's (not normalised, for example)"
            raise ZooError(f"verification failed on the real weights ({inputs}): {said}. {cause} do this")
    return {
        "inputs": inputs,
        "images": len(images),
        "classes_are_chance": chance,
        "fixed_bounds": {"flip_rate": max_rate, "top1_agreement": 100 * min_agreement},
        # False: only the rounding of this network, or the one image that may always differ, or noise let it pass.
        "within_fixed_bounds": flip_rate <= max_rate and real["top1_agreement"] >= 100 * min_agreement,
        "flip_rate": flip_rate,
        "rounding_flip_rate": rounding_flip_rate,
        "rounding_disagreements": rounded,
        "flip_rate_per_layer": {name: flips[name] / total[name] for name in values},
        "spike_rates": {name: active[name] / total[name] for name in values},
        # Where nothing spikes, nothing can flip: a low flip rate says little about these layers.
        "silent_layers": [name for name in values if not active[name]],
        **real,
    }


def compare_where_alike(expected: NDArray[np.float32], got: NDArray[np.float32], alike: NDArray[np.bool_]) -> None:
    """Raises ZooError if logits differ beyond rounding for an image whose spikes are all the same."""
    difference = np.abs(expected - got).max(1)
    allowed = LOGIT_ROUNDING * max(float(np.abs(expected).max()), 1.0)
    if wrong := np.flatnonzero(alike & ~(difference <= allowed)).tolist():
        raise ZooError(
            f"verification failed on the real weights: logits differ by {difference[wrong[0]]:.2e} (allowed "
            f"{allowed:.2e}) for image {wrong[0]}, whose spikes are all PyTorch's; another classifier does this"
        )


def random_images(network: Any) -> NDArray[np.float32]:
    """Returns 8 to 32 images of uniform noise, fewer of many time steps, normalised as the network wants them; in
    [0, 1] where it reads them as brightness; frames of spikes where it takes frames."""
    draw = np.random.default_rng(0)
    shape = min(max(128 // network.timesteps, 8), 32), *network.input_shape
    if network.encoding == "latency":
        return draw.random(shape, np.float32)
    if network.encoding != "direct":
        return (draw.random(shape, np.float32) < 0.5).astype(np.float32)
    return normalise(draw.integers(0, 256, shape, dtype=np.uint8), *normalisation(network))


def compare_logits(expected: NDArray[np.float32], got: NDArray[np.float32]) -> dict[str, Any]:
    """Returns how two logits [N, classes] agree: classes in percent, each disagreement, the largest difference."""
    classes, others = expected.argmax(1), got.argmax(1)
    ordered = np.sort(expected, 1)
    margins = ordered[:, -1] - (ordered[:, -2] if ordered.shape[1] > 1 else 0)
    return {
        "top1_agreement": 100 * float((classes == others).mean()),
        "disagreements": [
            {"index": int(i), "torch": int(classes[i]), "onnx": int(others[i]), "margin": float(margins[i])}
            for i in np.flatnonzero(classes != others)
        ],
        "max_logit_difference": float(np.abs(expected - got).max()),
    }


def _is_half(network: nn.Module) -> bool:
    """Returns whether half precision holds the weights of a network's convolutions as they are: `weights: fp16` of a
    recipe."""
    weights = [module.weight.detach() for module in network.modules() if isinstance(module, nn.Conv1d | nn.Conv2d)]
    return all(bool((weight.half() == weight).all()) for weight in weights)


def _rounded_in(proto: onnx.ModelProto) -> dict[str, Rounded]:
    """Returns the convolutions in eight bits of a file."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    rounded = {}
    for name, (scale, zero, _) in metadata(proto, "currents").items():
        if (weight := arrays.get(name)) is None or weight.dtype != np.int8:
            raise ZooError(f"verification failed: the file has no weights {name!r:.100} in eight bits")
        rounded[name] = Rounded(scale, zero, weight)
    return rounded


def _instrumented_like(known: onnx.ModelProto, proto: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the graph `known` with the instruments that `proto` has."""
    outputs = [output.name for output in proto.graph.output]
    if any(name.startswith(PREFIX) for name in outputs):
        known = add_spike_counts(known)
    return add_step_logits(known) if STEP_LOGITS in outputs else known


def _compare_operations(known: onnx.ModelProto, proto: onnx.ModelProto) -> None:
    """Raises ZooError unless nodes, functions, inputs and outputs are the same."""
    for part in ("node", "input", "output"):
        mine, theirs = (list(map(_bytes, getattr(model.graph, part))) for model in (known, proto))
        if mine != theirs:
            same = zip(mine, theirs, strict=False)
            where = next((i for i, (a, b) in enumerate(same) if a != b), min(len(mine), len(theirs)))
            raise _other(f"{part} {where}")
    mine, theirs = (sorted(map(_bytes, model.functions)) for model in (known, proto))
    if mine != theirs:
        raise _other("functions")


def _compare_constants(known: onnx.ModelProto, proto: onnx.ModelProto) -> None:
    """Raises ZooError unless weights and other constants are the same but for rounding."""
    mine, theirs = ({t.name: t for t in model.graph.initializer} for model in (known, proto))
    if mine.keys() != theirs.keys():
        raise _other(f"constant {sorted(mine.keys() ^ theirs.keys())[0]}")
    for name, tensor in mine.items():
        a, b = numpy_helper.to_array(tensor), numpy_helper.to_array(theirs[name])
        if a.shape != b.shape or a.dtype != b.dtype or not _alike(a, b):
            raise ZooError(f"verification failed: the constant {name} in the file is not the network's")


def _alike(known: NDArray[Any], other: NDArray[Any]) -> bool:
    if known.dtype.kind != "f":
        return np.array_equal(known, other)
    allowed: Any = _CLOSE * float(np.abs(known).max(initial=0))
    if known.dtype == np.float16:  # rounds to one of two neighbours
        allowed = allowed + np.finfo(np.float16).eps * np.abs(known)
    return bool((np.abs(known - other) <= allowed).all())


def _compare_metadata(known: onnx.ModelProto, proto: onnx.ModelProto) -> None:
    """Raises ZooError unless the file's metadata say of the network what it says itself."""
    said = texts(proto)
    for entry in known.metadata_props:
        if entry.key not in _FREE and not same_entry(said.get(entry.key), entry.value):
            raise ZooError(
                f"verification failed: the file's metadata say {entry.key} {said.get(entry.key)!r:.100}, the network "
                f"{entry.value!r:.100}"
            )


def _bytes(message: Any) -> bytes:
    return message.SerializeToString(deterministic=True)


def _other(what: str) -> ZooError:
    return ZooError(
        f"verification failed: the graph's operations are not those that the network exports to (first: {what})"
    )
