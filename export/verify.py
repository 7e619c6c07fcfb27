"""The verification gate: an exported graph must compute what the network computes.

A tight tolerance on logits would be the wrong test: a membrane potential within rounding of the threshold may spike on
one side and not on the other, and the two then part. So the gate has two parts. On an exact copy, whose arithmetic
knows no rounding, all spikes and logits must be equal bit for bit, at every optimisation level: those of float32 to
PyTorch's, those of eight bits to those of float32. On the real weights, the fraction of spikes that differ and the
agreement of the predicted classes are measured and bounded: by fixed numbers, or, where a deep network amplifies
rounding beyond them, by a multiple of what float32 does to PyTorch's own spikes, measured against float64. A file from
elsewhere must also have the operations, constants and metadata of the graph that its network exports to.
"""

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from tqdm import tqdm

from zoo.data import normalisation
from zoo.errors import ZooError
from zoo.network import unwrapped

from .exact_copy import current_unit, exact_copy, exact_images, exact_in_bytes
from .file import add_description, metadata, texts
from .graph import build_graph, is_half
from .images import network_inputs, normalise
from .instruments import (
    PREFIX,
    STEP_LOGITS,
    add_spike_counts,
    add_spike_outputs,
    add_step_logits,
    spike_values,
)
from .int8 import Rounded, int8_graph
from .layouts import finished, folded
from .network import DOMAIN, inference_copy, input_size, network_input, neuron_layers, take_apart, time_steps
from .run import OPTIMIZATIONS, Runner, has_event_library, read_model

BATCHES = (1, 3)
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
_STRENGTHS = (1, 2, 4, 8)
"""Factors of the exact currents of eight bits, tried in turn until every layer spikes."""
_CLOSE = 1e-5
"""Allowed difference of a constant, in units of the tensor's largest: another version of PyTorch folds normalisations
with other roundings."""
_FREE = {"tag", "epochs", "seed", "test_reads", "license"}
"""Entries of the metadata that a file may have differently: they say how it came to be."""
_OF_WEIGHTS = {"weights_sha256", "neuron"}
"""Those that are others where the weights are: what these do says more."""
Run = tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]
"""Images, and what the graph must give for them: "logits", and the spikes [T*B, ...] under their names in the graph."""
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
    model = unwrapped(model)
    _, proto = read_model(graph)
    images = None if images is None else network_inputs(model, images)
    layout, precision = metadata(proto, "layout"), metadata(proto, "precision")
    rounded = _rounded_in(proto) if precision == "int8" else None
    built = build_graph(model, layout, rounded, half=precision == "fp16", events=precision == "int16")
    known = _instrumented_like(add_description(built, model), proto)
    _compare_operations(known, proto)
    _compare_metadata(known, proto, but=_OF_WEIGHTS)
    report = run_gate(model, proto, images)
    _compare_constants(known, proto)
    _compare_metadata(known, proto)
    return report


def run_gate(
    model: nn.Module, proto: onnx.ModelProto, images: NDArray[np.float32] | None, *, quick: bool = False
) -> dict[str, Any]:
    """Runs the graph, for one that was made of this network just now; see `verify`. A quick gate runs it at `QUICK` of
    the optimisation levels, and on 32 of the images."""
    levels, images = (QUICK, None if images is None else images[:_CHUNK]) if quick else (tuple(OPTIMIZATIONS), images)
    report = {"dyadic": _verify_exact(model, proto, levels), "real": _verify_real(model, proto, images)}
    if metadata(proto, "precision") == "int16":
        report["kernel"] = _verify_kernel(proto, random_images(model) if images is None else images, levels)
    return report


def _verify_kernel(proto: onnx.ModelProto, images: NDArray[np.float32], levels: Sequence[str]) -> dict[str, Any]:
    """Compares all spikes and logits of event-driven nodes in the kernel with those of their functions, bit for bit.

    Returns:
        JSON values: levels, images, identical; null where there is no kernel.
    """
    names = [*spike_values(proto).values(), "logits"]
    exposed, images = add_spike_outputs(proto), images[:_CHUNK]
    for level in tqdm(levels, desc="kernel", leave=False, disable=None):
        runners = [Runner(exposed, optimization=level, functions=functions) for functions in (False, True)]
        for name, kernel, function in zip(names, *(run(images, names) for run in runners), strict=True):
            if not np.array_equal(kernel, function):
                raise ZooError(
                    f"verification failed: {name} of the event-driven kernel differ from those of the functions "
                    f"({_difference(function, kernel)}; optimization {level})"
                )
    return {"levels": list(levels), "images": len(images), "identical": has_event_library() or None}


def _verify_exact(model: nn.Module, proto: onnx.ModelProto, levels: Sequence[str]) -> dict[str, Any]:
    """Compares the graph of the exact copy, which must have the operations of the given one, with what it must give."""
    exact, precision = exact_copy(model), metadata(proto, "precision")
    images = [exact_images(exact, count, seed=count).numpy() for count in BATCHES]
    runs: list[Run] = []
    if precision == "int8":
        network = take_apart(exact, all_steps=True)
        for strength in _STRENGTHS:
            parts, rounded = exact_in_bytes(network, strength * current_unit(exact))
            runs = _runs_in_float32(finished(parts, folded(parts)), images)
            if all(spike_rate(runs, value) for value in runs[0][1] if value != "logits"):
                break
        built, other = int8_graph(parts, neuron_layers(exact), rounded), "float32's"
    else:
        built = build_graph(exact, metadata(proto, "layout"), half=precision == "fp16", events=precision == "int16")
        other = "PyTorch's"
        for x in images:
            logits, spikes = _run(exact, torch.from_numpy(x))
            known = {value: spikes[name].numpy() for name, value in spike_values(built).items()}
            runs.append((x, known | {"logits": logits.numpy()}))
    twin = add_description(built, exact)
    check_same_operations(twin, proto)
    return compare_exactly(twin, runs, other, levels) | {"input_size": list(input_size(exact))}


def _runs_in_float32(graph: onnx.ModelProto, images: list[NDArray[np.float32]]) -> list[Run]:
    """Returns what a float32 graph gives, as it is written."""
    names = ["logits", *spike_values(graph).values()]
    run = Runner(add_spike_outputs(graph), 1, optimization="disable")
    return [(x, dict(zip(names, run(x, names), strict=True))) for x in images]


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


def compare_exactly(
    proto: onnx.ModelProto, runs: Sequence[Run], other: str, levels: Sequence[str] = tuple(OPTIMIZATIONS)
) -> dict[str, Any]:
    """Compares a graph with what is known of it.

    Args:
        proto: the graph of a network whose arithmetic is exact.
        runs: one for each batch.
        other: what gave the expected values, for the error.
        levels: of optimisation.

    Returns:
        JSON values: levels, batches, layers, spike_rates, identical.

    Raises:
        ZooError: a spike or logit differs, or a layer never spikes.
    """
    values = spike_values(proto)
    rates = {name: spike_rate(runs, value) for name, value in values.items()}
    if silent := [name for name, rate in rates.items() if rate == 0]:
        raise ZooError(f"verification proves nothing: layers {', '.join(silent)} never spike in the exact copy")
    for level in tqdm(levels, desc="exactness", leave=False, disable=None):
        for graph, names in ((proto, ["logits"]), (add_spike_outputs(proto), [*values.values(), "logits"])):
            run = Runner(graph, optimization=level)
            for images, expected in runs:
                for name, got in zip(names, run(images, names), strict=True):
                    if not np.array_equal(expected[name], got):
                        raise ZooError(
                            f"verification failed: {name} differ from {other} on exact arithmetic "
                            f"({_difference(expected[name], got)}; optimization {level}, batch {len(images)})"
                        )
    batches = [len(images) for images, _ in runs]
    about = {"levels": list(levels), "batches": batches, "layers": len(values)}
    return about | {"spike_rates": rates, "identical": True}


def spike_rate(runs: Sequence[Run], value: str) -> float:
    """Returns the spikes per neuron and time step of a layer, over all runs."""
    return float(np.concatenate([expected[value] for _, expected in runs]).mean())


def _difference(expected: NDArray[np.float32], got: NDArray[np.float32]) -> str:
    if expected.shape != got.shape:
        return f"shape {list(got.shape)} instead of {list(expected.shape)}"
    return f"{int((expected != got).sum())} of {expected.size} values"


def _verify_real(model: nn.Module, proto: onnx.ModelProto, images: NDArray[np.float32] | None) -> dict[str, Any]:
    network, precise = inference_copy(model), inference_copy(model).double()
    inputs = "random inputs" if images is None else "given images"
    if images is None:
        images = random_images(model)
    values = spike_values(proto)
    run = Runner(add_spike_outputs(proto))
    flips, active, counted, total = (dict.fromkeys(values, 0) for _ in range(4))
    expected, got, rounded, rounding, alike = [], [], 0, 0, []
    steps = time_steps(model)
    size = max(1, _CHUNK * 32**2 // (steps * images.shape[-2] * images.shape[-1]))  # many steps, large images: fewer
    for chunk in tqdm(torch.from_numpy(images).split(size), desc="real weights", leave=False, disable=None):
        logits, spikes = _run(network, chunk)
        outputs = run(chunk.numpy(), ["logits", *values.values()])
        same = np.ones(len(chunk), bool)
        precise_logits, precise_spikes = _run(precise, chunk.double())
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
    precision = metadata(proto, "precision")
    if precision == "fp16" and is_half(network):
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


def random_images(model: nn.Module) -> NDArray[np.float32]:
    """Returns 8 to 32 images of uniform noise, fewer of many time steps, normalised as the network wants them; in
    [0, 1] where it reads them as brightness; frames of spikes where it takes frames."""
    draw = np.random.default_rng(0)
    steps = time_steps(model)
    shape, encoding = (min(max(128 // steps, 8), 32), *network_input(model)), getattr(model, "encoding", "direct")
    if encoding == "latency":
        return draw.random(shape, np.float32)
    if encoding != "direct":
        return (draw.random(shape, np.float32) < 0.5).astype(np.float32)
    return normalise(draw.integers(0, 256, shape, dtype=np.uint8), *normalisation(model))


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


@torch.no_grad()
def _run(network: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns logits [B, classes] and the spikes [T*B, ...] of each neuron layer."""
    spikes: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda layer, inputs, output: spikes.__setitem__(name, output.to(torch.int8))

    handles = [layer.register_forward_hook(keep(name)) for name, layer in neuron_layers(network).items()]
    try:
        return network(images), spikes
    finally:
        for handle in handles:
            handle.remove()


def _rounded_in(proto: onnx.ModelProto) -> dict[str, Rounded]:
    """Returns the convolutions in eight bits of a file.

    Raises:
        ZooError: it does not hold those that it tells of.
    """
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


def _compare_metadata(known: onnx.ModelProto, proto: onnx.ModelProto, but: Collection[str] = ()) -> None:
    """Raises ZooError unless the file's metadata say of the network what it says itself, `but` for these entries."""
    said = texts(proto)
    for entry in known.metadata_props:
        if entry.key not in {*_FREE, *but} and not _same(said.get(entry.key), entry.value):
            raise ZooError(
                f"verification failed: the file's metadata say {entry.key} {said.get(entry.key)!r:.100}, the network "
                f"{entry.value!r:.100}"
            )


def _same(text: str | None, expected: str) -> bool:
    if text is None or text == expected:
        return text == expected
    try:
        return _close(json.loads(text), json.loads(expected))
    except ValueError:
        return False


def _close(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_close, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_close(a[key], b[key]) for key in a)
    if isinstance(a, float) and isinstance(b, float):
        return bool(np.isclose(a, b, rtol=1e-6, atol=0))
    return type(a) is type(b) and a == b


def _bytes(message: Any) -> bytes:
    return message.SerializeToString(deterministic=True)


def _other(what: str) -> ZooError:
    return ZooError(
        f"verification failed: the graph's operations are not those that the network exports to (first: {what})"
    )
