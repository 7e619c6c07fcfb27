"""The proof of the graph in eight bits, on a copy of the network that eight bits represent exactly.

Each convolution over spikes keeps its largest weights, as plus or minus one value: the same for all weights of an
output channel, another for the next channel. Then weights are 127 and -127 times a scale, sums are whole numbers of the
currents' scale, and rounding does nothing: spikes and logits must equal those of the float32 graph bit for bit, which
the gate of float32 compares with PyTorch.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from ..counts import add_spike_outputs
from ..describe import add_description
from ..dyadic import current_unit, dyadic_copy, dyadic_images
from ..exactness import BATCHES, Run, check_same_operations, compare_exactly, spike_rate
from ..graph import folded_graph, int8_graph, spike_values
from ..parts import Parts, input_size, neuron_layers, take_apart
from ..run import create_session, run_session
from .quantised import Rounded, convolutions
from .rounding import nearest

_KEPT = 24
"""Weights of an output channel."""
_PARTS = 4
"""Of the current that takes a neuron at rest to its threshold: what a byte counts."""
_ZEROS = (128, 120)
"""In turn, so that currents in the place of another convolution's show."""
_STRENGTHS = (1, 2, 4, 8)
"""Tried in turn, as factors of the currents, until every layer spikes."""


def prove(model: nn.Module, proto: onnx.ModelProto) -> dict[str, Any]:
    """Compare the graph in eight bits with the float32 graph on the copy.

    Args:
        model: the network.
        proto: its graph in eight bits, which must have the operations of the copy's.

    Returns:
        JSON values: levels, batches, input_size, layers, spike_rates, identical, as in `export.verify`.

    Raises:
        ZooError: a spike or logit differs, a layer never spikes, or the operations are others.
    """
    exact = dyadic_copy(model)
    taken_apart = take_apart(exact, all_steps=True)
    images = [dyadic_images(exact, n, seed=n).numpy() for n in BATCHES]
    for strength in _STRENGTHS:
        parts, rounded = representable(taken_apart, strength * current_unit(exact))
        runs = _reference(parts, images)
        if all(spike_rate(runs, value) for value in runs[0][1] if value != "logits"):
            break
    graph = add_description(int8_graph(parts, neuron_layers(exact), rounded), exact)
    check_same_operations(graph, proto)
    return compare_exactly(graph, runs, "float32's") | {"input_size": list(input_size(exact))}


def _reference(parts: Parts, images: list[NDArray[np.float32]]) -> list[Run]:
    """What the float32 graph gives."""
    graph = folded_graph(parts)
    names = ["logits", *spike_values(graph).values()]
    session = create_session(add_spike_outputs(graph).SerializeToString(), optimization="disable")
    return [(x, dict(zip(names, run_session(session, names, x), strict=True))) for x in images]


def representable(parts: Parts, unit: float) -> tuple[Parts, dict[str, Rounded]]:
    """The parts with convolutions that eight bits hold, and these in eight bits; `unit` is a power of two."""
    step = unit / _PARTS
    constants = dict(parts.skeleton.piece.constants)
    rounded = {}
    for place, (name, node) in enumerate(convolutions(parts).items()):
        weight = _two_values(_array(parts, name), step)
        constants[name] = numpy_helper.from_array(weight, name)
        rounded[name] = Rounded(step, _ZEROS[place % 2], nearest(weight))
        if len(node.input) > 2:
            bias = np.rint(np.clip(_array(parts, node.input[2]), -unit / 2, unit / 2) / step) * step
            constants[node.input[2]] = numpy_helper.from_array(bias.astype(np.float32), node.input[2])
    piece = parts.skeleton.piece._replace(constants=constants)
    return parts._replace(skeleton=parts.skeleton._replace(piece=piece)), rounded


def _two_values(weight: NDArray[Any], step: float) -> NDArray[Any]:
    rows = weight.reshape(len(weight), -1)
    largest = np.argsort(-np.abs(rows), 1, kind="stable")[:, :_KEPT]  # of equal ones the first: never more
    signs = np.where(np.take_along_axis(rows, largest, 1) < 0, -1, 1)
    size = step * (1 + np.arange(len(rows)) % 2)[:, None]
    kept = np.zeros_like(rows, np.float32)
    np.put_along_axis(kept, largest, (signs * size).astype(np.float32), 1)
    return kept.reshape(weight.shape)


def _array(parts: Parts, name: str) -> NDArray[Any]:
    return numpy_helper.to_array(parts.skeleton.piece.constants[name])
