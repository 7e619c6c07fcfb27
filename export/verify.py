"""The verification gate: an exported graph must compute what the network computes.

A tight tolerance on logits would be the wrong test: a membrane potential within rounding of the threshold may spike on
one side and not on the other, and the two then part. So the gate has two parts. On a dyadic copy, where arithmetic is
exact, all spikes and logits must be equal bit for bit. On the real weights, the fraction of spikes that differ and the
agreement of the predicted classes are measured and bounded: by fixed numbers, or, where a deep network amplifies
rounding beyond them, by a multiple of what float32 does to PyTorch's own spikes, measured against float64.
"""

import os
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from zoo.data import normalisation
from zoo.errors import ZooError
from zoo.network import unwrapped

from .compare import (
    OF_WEIGHTS,
    compare_constants,
    compare_metadata,
    compare_operations,
    instrumented_like,
    layout_of,
    precision_of,
    rounded_in,
)
from .counts import add_spike_outputs
from .describe import add_description
from .dyadic import dyadic_copy, dyadic_images
from .exactness import BATCHES, Run, check_same_operations, compare_exactly
from .graph import build_graph, spike_values
from .half import is_half
from .images import network_inputs, normalise
from .int8.proof import prove
from .parts import input_size, network_input, neuron_layers
from .run import Runner, read_model
from .skeleton import inference_copy

MAX_FLIP_RATE = 1e-3
MIN_AGREEMENT = 0.995
ROUNDING = 3
"""Allowed multiple of the difference between PyTorch in float32 and in float64: two roundings, and room for chance."""
BOUNDS = {"fp32": (MAX_FLIP_RATE, MIN_AGREEMENT), "fp16": (0.1, 0.75), "int8": (0.2, 0.5)}
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
_CHUNK = 32
"""Images of 32 x 32 pixels times time steps that run at once."""


def verify(
    model: nn.Module, graph: bytes | str | os.PathLike[str], images: NDArray[Any] | Tensor | None = None
) -> dict[str, Any]:
    """Check the graph of a network, in any layout, against the network.

    Args:
        model: the network; it stays as it is.
        graph: its graph from `to_onnx`, a file or its bytes.
        images: for the comparison on real weights, as for `to_onnx`; up to 32 random ones without.

    Returns:
        JSON values: "dyadic" {levels, batches, input_size, layers, spike_rates, identical} and "real" {inputs, images,
        within_fixed_bounds, flip_rate, flip_rate_per_layer, rounding_flip_rate, rounding_disagreements (both between
        PyTorch in float32 and in float64), spike_rates, silent_layers, top1_agreement (percent), disagreements,
        max_logit_difference}. Rates are fractions of all neurons and time steps.

    Raises:
        ZooError: a spike or logit differs on the dyadic copy, a bound is missed on the real weights, an operation, a
            constant or an entry of the metadata is not the network's, or the images do not fit.
    """
    model = unwrapped(model)
    _, proto = read_model(graph)
    images = None if images is None else network_inputs(model, images)
    layout = layout_of(proto)
    precision = precision_of(proto)
    rounded = rounded_in(proto) if precision == "int8" else None
    built = build_graph(model, layout, rounded, half=precision == "fp16")
    known = instrumented_like(add_description(built, model), proto)
    compare_operations(known, proto)
    compare_metadata(known, proto, but=OF_WEIGHTS)
    report = run_gate(model, proto, images)
    compare_constants(known, proto)
    compare_metadata(known, proto)
    return report


def run_gate(model: nn.Module, proto: onnx.ModelProto, images: NDArray[np.float32] | None) -> dict[str, Any]:
    """The part of `verify` that runs the graph, for one that was made of this network just now."""
    exact = prove(model, proto) if precision_of(proto) == "int8" else _verify_exact(model, proto)
    return {"dyadic": exact, "real": _verify_real(model, proto, images)}


def _verify_exact(model: nn.Module, proto: onnx.ModelProto) -> dict[str, Any]:
    exact = dyadic_copy(model)
    twin = add_description(build_graph(exact, layout_of(proto), half=precision_of(proto) == "fp16"), exact)
    check_same_operations(twin, proto)
    runs: list[Run] = []
    for count in BATCHES:
        images = dyadic_images(exact, count, seed=count)
        logits, spikes = _run(exact, images)
        known = {value: spikes[name].numpy() for name, value in spike_values(twin).items()}
        runs.append((images.numpy(), known | {"logits": logits.numpy()}))
    return compare_exactly(twin, runs, "PyTorch's") | {"input_size": list(input_size(exact))}


def _verify_real(model: nn.Module, proto: onnx.ModelProto, images: NDArray[np.float32] | None) -> dict[str, Any]:
    network, precise = inference_copy(model), inference_copy(model).double()
    inputs = "random inputs" if images is None else "given images"
    if images is None:
        images = random_images(model)
    values = spike_values(proto)
    run = Runner(add_spike_outputs(proto))
    flips, active, counted, total = (dict.fromkeys(values, 0) for _ in range(4))
    expected, got, rounded, rounding, alike = [], [], 0, 0, []
    steps = next(iter(neuron_layers(model).values())).timesteps
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
    precision = precision_of(proto)
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
    """Raise ZooError if logits differ beyond rounding for an image whose spikes are all the same."""
    difference = np.abs(expected - got).max(1)
    allowed = LOGIT_ROUNDING * max(float(np.abs(expected).max()), 1.0)
    if wrong := np.flatnonzero(alike & ~(difference <= allowed)).tolist():
        raise ZooError(
            f"verification failed on the real weights: logits differ by {difference[wrong[0]]:.2e} (allowed "
            f"{allowed:.2e}) for image {wrong[0]}, whose spikes are all PyTorch's; another classifier does this"
        )


def random_images(model: nn.Module) -> NDArray[np.float32]:
    """8 to 32 images of uniform noise, fewer of many time steps, normalised as the network wants them; in [0, 1] where
    it reads them as brightness; frames of spikes where it takes frames."""
    draw = np.random.default_rng(0)
    steps = next(iter(neuron_layers(model).values())).timesteps
    shape, encoding = (min(max(128 // steps, 8), 32), *network_input(model)), getattr(model, "encoding", "direct")
    if encoding == "latency":
        return draw.random(shape, np.float32)
    if encoding != "direct":
        return (draw.random(shape, np.float32) < 0.5).astype(np.float32)
    return normalise(draw.integers(0, 256, shape, dtype=np.uint8), *normalisation(model))


def compare_logits(expected: NDArray[np.float32], got: NDArray[np.float32]) -> dict[str, Any]:
    """Agreement of the predicted classes of two logits [N, classes]: percent, each disagreement, largest difference."""
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
    """Logits [B, classes] and the spikes [T*B, ...] of each neuron layer."""
    spikes: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda layer, inputs, output: spikes.__setitem__(name, output.to(torch.int8))

    handles = [layer.register_forward_hook(keep(name)) for name, layer in neuron_layers(network).items()]
    try:
        return network(images), spikes
    finally:
        for handle in handles:
            handle.remove()
