"""The proof of the graph in eight bits, on a copy of the network that eight bits represent exactly.

Each convolution over spikes keeps its largest weights, as plus or minus one value: the same for all weights of an
output channel, another for the next channel. Then weights are 127 and -127 times a scale, sums are whole numbers of the
currents' scale, and rounding does nothing: spikes and logits must equal those of the float32 graph bit for bit, which
the gate of float32 compares with PyTorch.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn
from tqdm import tqdm

from zoo.errors import ZooError

from ..counts import add_spike_outputs
from ..dyadic import current_unit, dyadic_copy, dyadic_images
from ..graph import folded_graph, int8_graph, spike_values
from ..parts import Parts, input_size, neuron_layers, take_apart
from ..session import OPTIMIZATIONS, create_session, run_session
from .quantised import Currents, convolutions

BATCHES = (1, 3)
_KEPT = 24
"""Weights of an output channel."""
_PARTS = 4
"""Of the current that takes a neuron at rest to its threshold: what a byte counts."""
_STRENGTHS = (1, 2, 4, 8)
"""Tried in turn, as factors of the currents, until every layer spikes."""


def prove(model: nn.Module) -> dict[str, Any]:
    """Compare the graph in eight bits with the float32 graph on the copy.

    Returns:
        JSON values: levels, batches, input_size, layers, spike_rates, identical, as in `export.verify`.

    Raises:
        ZooError: a spike or logit differs, or a layer never spikes.
    """
    exact = dyadic_copy(model)
    taken_apart = take_apart(exact, all_steps=True)
    images = [dyadic_images(exact, n, seed=n).numpy() for n in BATCHES]
    for strength in _STRENGTHS:
        parts, currents = representable(taken_apart, strength * current_unit(exact))
        expected, rates = _reference(parts, images)
        silent = [name for name, rate in rates.items() if rate == 0]
        if not silent:
            break
    else:
        raise ZooError(f"verification proves nothing: layers {', '.join(silent)} never spike in the exact copy")
    graph = int8_graph(parts, neuron_layers(exact), currents)
    names = list(expected[0])
    for level in tqdm(OPTIMIZATIONS, desc="exactness", leave=False, disable=None):
        for proto, outputs in ((graph, ["logits"]), (add_spike_outputs(graph), names)):
            session = create_session(proto.SerializeToString(), optimization=level)
            for x, values in zip(images, expected, strict=True):
                for name, array in zip(outputs, run_session(session, outputs, x), strict=True):
                    if not np.array_equal(values[name], array):
                        count = int((values[name] != array).sum())
                        raise ZooError(
                            f"verification failed: {name} in eight bits differ from float32 on exact arithmetic "
                            f"({count} of {array.size} values; optimization {level}, batch {len(x)})"
                        )
    levels, batches = list(OPTIMIZATIONS), list(BATCHES)
    return {
        "levels": levels, "batches": batches, "input_size": list(input_size(exact)), "layers": len(rates),
        "spike_rates": rates, "identical": True,
    }  # fmt: skip


def _reference(
    parts: Parts, images: list[NDArray[np.float32]]
) -> tuple[list[dict[str, NDArray[np.float32]]], dict[str, float]]:
    """Logits and spikes in float32 by name, of each batch; and the spike rate of each layer."""
    graph = folded_graph(parts)
    names = ["logits", *spike_values(graph).values()]
    session = create_session(add_spike_outputs(graph).SerializeToString(), optimization="disable")
    found = [dict(zip(names, run_session(session, names, x), strict=True)) for x in images]
    values = spike_values(graph).items()
    return found, {layer: float(np.mean([of[value].mean() for of in found])) for layer, value in values}


def representable(parts: Parts, unit: float) -> tuple[Parts, dict[str, Currents]]:
    """The parts with convolutions that eight bits hold, and how their currents are stored; `unit` is a power of two."""
    step = unit / _PARTS
    constants = dict(parts.skeleton.piece.constants)
    nodes = convolutions(parts)
    for name, node in nodes.items():
        constants[name] = numpy_helper.from_array(_two_values(_array(parts, name), step), name)
        if len(node.input) > 2:
            bias = np.rint(np.clip(_array(parts, node.input[2]), -unit / 2, unit / 2) / step) * step
            constants[node.input[2]] = numpy_helper.from_array(bias.astype(np.float32), node.input[2])
    piece = parts.skeleton.piece._replace(constants=constants)
    return parts._replace(skeleton=parts.skeleton._replace(piece=piece)), dict.fromkeys(nodes, Currents(step, 128))


def _two_values(weight: NDArray[Any], step: float) -> NDArray[Any]:
    rows = np.abs(weight).reshape(len(weight), -1)
    least = np.sort(rows, 1)[:, -min(_KEPT, rows.shape[1]), None]
    size = step * (1 + np.arange(len(rows)) % 2)[:, None]
    kept = np.where(rows >= least, size, 0).reshape(weight.shape)
    return (np.where(weight < 0, -1, 1) * kept).astype(np.float32)


def _array(parts: Parts, name: str) -> NDArray[Any]:
    return numpy_helper.to_array(parts.skeleton.piece.constants[name])
