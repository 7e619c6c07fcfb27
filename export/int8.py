"""Eight bits: the graph of all steps as convolutions over bytes, with scales and roundings from training images.

A spike is 0 or 1, so a byte holds it, and sums of a few of them, without error: scale 1, zero point 0. A convolution
over bytes multiplies them with weights of eight bits, a scale for each output channel, and gives its currents as bytes,
with a scale and a zero point (`Rounded`). What is no convolution of maps over whole numbers stays in float32: the
stem, the classifier, membrane potentials, sums with a shortcut.

Such a convolution is written as one of float32 between DequantizeLinear and QuantizeLinear, of which ONNX Runtime makes
one over bytes. QLinearConv says the same in one operation, but fewer runtimes take it, and some of them wrongly.

Time is folded into the batch, so that each convolution runs once. Its bytes are split into time steps before they
become float32, which moves a quarter of the memory.

Weights are rounded to the nearest value, or so that the convolution's output changes least. Least is after Frantar et
al. 2023 (arXiv 2210.17323), with the closed form of Hassibi and Stork 1993: weights are rounded one after the other,
and each rounding error is made up for by the weights that are not rounded yet, as the second moments of the
convolution's inputs say.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from zoo.errors import ZooError
from zoo.files import sha256_of
from zoo.neurons import LIF, SpikingNeuron

from .graph import (
    DOMAIN,
    NEURONS,
    SPIKES,
    Builder,
    Network,
    finished,
    folded,
    is_placeholder,
    layer_of,
    over_time,
    renamed,
    repeats,
    spike_convolutions,
    whole_numbers,
)
from .run import at_once, create_session, run_session

FARTHEST = 8
"""How far a rounded weight may be from the exact one, in units of its scale: what others' errors put on it."""
_LARGEST = 127
_MOST_BIAS = 2.0**30
"""Largest bias in units of its channel's scale."""
_DAMPING = 0.01
"""Part of the mean second moment that is added to each, as few images leave some directions without any."""
_BLOCK = 128
_OUTSIDE = 1e-3
"""Fraction of the currents that a range leaves out at each end; on the other side of the threshold or far below it, the
exact value hardly matters."""
_CHUNK = 16
_SAMPLES = 50_000
"""Currents of a chunk that its range is from."""
_ROWS = 1000
"""Positions of a chunk that second moments are from."""
_DEFAULTS = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1]}
_KEPT = 24
"""Weights of an output channel that a copy for eight bits keeps."""
_PARTS = 4
"""What a byte counts there: parts of the current that takes a neuron at rest to its threshold."""
_ZEROS = (128, 120)
"""Zero points of its currents, in turn, so that currents in the place of another convolution's show."""
_FAR = 2.0**60
_OF_MAPS = 4  # axes of its weight


class Rounded(NamedTuple):
    """A convolution in eight bits: its currents as bytes, (byte - zero) * scale, and its weights."""

    scale: float
    zero: int
    weight: NDArray[np.int8]
    """In units of the scale of their output channel, see `scales`."""


def int8_graph(network: Network, rounded: Mapping[str, Rounded]) -> onnx.ModelProto:
    """Returns the graph of a network of all steps in eight bits, from "input" to "logits"; `rounded` are its
    convolutions over whole numbers, by the names of their weights."""
    if wrong := rounded.keys() ^ convolutions(network).keys():
        raise ZooError(f"the convolutions of int8 must be the network's convolutions over spikes: {sorted(wrong)[0]}")
    told = {name: [r.scale, r.zero, sha256_of(r.weight.tobytes())[:16]] for name, r in rounded.items()}
    g = _Quantiser(network, rounded).run()
    return finished(network, g, precision="int8", currents=told)


def convolutions(network: Network) -> dict[str, NodeProto]:
    """Returns the convolutions of maps over whole numbers, by the names of their weights."""
    found = dict[str, NodeProto]()
    used = Counter(name for node in network.piece.nodes for name in node.input)
    for node in spike_convolutions(network):
        name = node.input[1]
        if used[name] > 1:
            raise ZooError(f"no int8: {name} is used twice in one forward, and its currents have one scale")
        if len(network.piece.constants[name].dims) == _OF_MAPS:
            found[name] = node
    if not found:
        raise ZooError("no int8: this network has no convolution over spikes with weights of its own")
    return found


class _Quantiser:
    def __init__(self, network: Network, rounded: Mapping[str, Rounded]) -> None:
        self.network, self.rounded = network, rounded
        self.g = Builder()
        piece = network.piece
        self.arrays = {name: numpy_helper.to_array(value) for name, value in piece.constants.items()}
        self.made_by = {name: node for node in piece.nodes for name in node.output}
        self.growth = {name: doubling(layer, network.timesteps) for name, layer in network.layers.items()}
        self.read = Counter([*(name for node in piece.nodes for name in node.input), *piece.outputs])
        found = {layer_of(node): node.input[0] for node in piece.nodes if is_placeholder(node, NEURONS)}
        self.summands = {name: self._summands(value) for name, value in found.items() if self.growth[name]}
        # Sums that are not computed, as the neurons that read them take their summands.
        ends = {value for values in self.summands.values() for value in values}
        self.split_up = set[str]()
        for node in reversed(piece.nodes):
            if (node.domain == DOMAIN and layer_of(node) in self.summands) or node.output[0] in self.split_up:
                self.split_up |= {name for name in node.input if name in self.made_by} - ends
        # The forms in which a value of the network exists.
        self.reals = {"input": "input"}
        self.bytes: dict[str, str] = {}
        self.stored: dict[str, tuple[str, float, int]] = {}

    def _summands(self, value: str) -> list[str]:
        """Returns what currents are the sum of, convolutions and shortcuts, as far as nothing else reads the sums."""
        node = self.made_by.get(value)
        if node is None or node.op_type != "Add" or self.read[value] > 1 or self.arrays.keys() & set(node.input):
            return [value]
        return [summand for name in node.input for summand in self._summands(name)]

    def run(self) -> Builder:
        limits = whole_numbers(self.network)
        for node in self.network.piece.nodes:
            if node.domain == DOMAIN:
                self._neurons(node)
            elif node.op_type == "Conv" and node.input[1] in self.rounded:
                self._convolution(node)
            elif node.op_type == "MaxPool" and node.output[0] in limits:
                self._pool(node)
            elif node.output[0] not in self.split_up:
                names = {name: self.real(name) for name in node.input if name}
                self.g.nodes.append(renamed(node, names | {n: n for n in node.output}, ""))
                self.reals |= {name: name for name in node.output}
        return self.g

    def real(self, name: str) -> str:
        """Returns the value in float32."""
        if name not in self.reals:
            if name in self.arrays:
                self.reals[name] = self.g.constant(name, self.arrays[name])
            elif name in self.bytes:
                self.reals[name] = self.g.op("Cast", [self.bytes[name]], f"{name}/real", to=TensorProto.FLOAT)
            else:
                self.reals[name] = self._dequantised(*self.stored[name], f"{name}/real")
        return self.reals[name]

    def byte(self, name: str) -> str:
        """Returns the whole numbers of a value in bytes."""
        if name not in self.bytes:
            self.bytes[name] = self.g.op("Cast", [self.real(name)], f"{name}/byte", to=TensorProto.UINT8)
        return self.bytes[name]

    def _dequantised(self, value: str, scale: float, zero: int, out: str, factor: float = 1.0) -> str:
        scaled = self.g.constant(f"{out}/scale", np.float32(scale) * np.float32(factor))
        return self.g.op("DequantizeLinear", [value, scaled, self.g.constant(f"{out}/zero", np.uint8(zero))], out)

    def _pool(self, node: NodeProto) -> None:
        self.g.nodes.append(renamed(node, {node.input[0]: self.byte(node.input[0])}, ""))
        self.bytes[node.output[0]] = node.output[0]

    def _convolution(self, node: NodeProto) -> None:
        name, out, rounded = node.input[1], node.output[0], self.rounded[node.input[1]]
        weight = self.arrays[name]
        bias = (
            self.arrays[node.input[2]] if len(node.input) > 2 and node.input[2] else np.zeros(len(weight), np.float32)
        )
        scale = scales(weight, bias)
        if rounded.weight.shape != weight.shape or np.abs(rounded.weight - in_units(weight)).max() > FARTHEST:
            raise ZooError(f"verification failed: the weights {name} in eight bits are not the network's")
        constants = {
            "input_scale": np.float32(1),
            "input_zero": np.uint8(0),
            name: rounded.weight,
            f"{name}/scale": scale,
            f"{name}/zero": np.zeros(len(scale), np.int8),
            f"{name}/currents_scale": np.float32(rounded.scale),
            f"{name}/currents_zero": np.uint8(rounded.zero),
            f"{name}/bias": np.rint(bias / scale).astype(np.int32),
        }
        names = [self.g.constant(key, value) for key, value in constants.items()]
        self._over_bytes(self.byte(node.input[0]), names, out, node.attribute)
        self.stored[out] = out, rounded.scale, rounded.zero

    def _over_bytes(self, spikes: str, names: list[str], out: str, attributes: Iterable[onnx.AttributeProto]) -> str:
        """Appends a convolution of bytes to bytes; `names` are scale and zero of its input, weights with scales and
        zeros, scale and zero of what it gives, and the bias in units of its weights' scales."""
        scale, zero, weight, weights_scale, weights_zero, out_scale, out_zero, *bias = names
        g, inputs = self.g, [f"{out}/{part}" for part in ("input", "weight", "bias")[: 2 + len(bias)]]
        g.op("DequantizeLinear", [spikes, scale, zero], inputs[0])
        g.op("DequantizeLinear", [weight, weights_scale, weights_zero], inputs[1], axis=0)
        for name in bias:
            g.op("DequantizeLinear", [name, weights_scale], inputs[2], axis=0)
        convolution = helper.make_node("Conv", inputs, [f"{out}/currents"], f"{out}/currents")
        convolution.attribute.extend(attributes)
        g.nodes.append(convolution)
        return g.op("QuantizeLinear", [f"{out}/currents", out_scale, out_zero], out)

    def _neurons(self, node: NodeProto) -> None:
        layer, out = layer_of(node), node.output[0]
        if (growth := self.growth[layer]) is None:
            over = over_time(self.network.neurons[layer], self.network.timesteps)
            self.reals[out] = self.g.add(over, [self.real(node.input[0])], [f"{layer}/{SPIKES}"], f"{layer}/")[0]
        else:
            of_bytes = any(name in self.stored for name in self.summands[layer])
            spikes = self._negated_neurons(layer, growth)
            self.bytes[out] = spikes if of_bytes else self._channels_last(spikes, out)

    def _negated_neurons(self, layer: str, growth: float) -> str:
        """Appends LIF neurons with hard reset in five operations a step.

        The membrane potential of step t is kept times -growth^t, growth being 1 / decay, a power of two: then decay
        costs nothing, as it is in the scale that turns bytes into currents, and ThresholdedRelu is the reset.
        """
        g, neurons, steps = self.g, self.network.layers[layer], self.network.timesteps
        summands = [self._by_step(name) for name in self.summands[layer]]
        state, spikes = None, []
        for t in range(steps):
            factor, prefix = growth**t, f"{layer}/{t}"
            drive = -factor * float(torch.as_tensor(neurons.gain).detach())
            parts = [part(t, drive, f"{prefix}/current_{i}") for i, part in enumerate(summands)]
            total = parts[0]
            for i, part in enumerate([*parts[1:], *([state] if state else [])]):
                total = g.op("Add", [total, part], f"{prefix}/sum_{i}")
            edge = np.float32(-neurons.threshold * factor)
            fired = g.op("LessOrEqual", [total, g.constant(f"{prefix}/threshold", edge)], f"{prefix}/fired")
            spikes.append(g.op("Cast", [fired], f"{prefix}/{SPIKES}", to=TensorProto.UINT8))
            state = g.op("ThresholdedRelu", [total], f"{prefix}/state", alpha=float(edge))
        return g.op("Concat", spikes, f"{layer}/{SPIKES}/byte", axis=0)

    def _channels_last(self, spikes: str, out: str) -> str:
        """Turns the spikes of a stem, where a shortcut passes by a convolution that reads them.

        ONNX Runtime's convolutions over bytes have channels last, so a shortcut with channels first makes it turn the
        currents of every step, in float32, block after block. A convolution over bytes that multiplies each spike by 1
        turns the spikes once: sresnet19_w32 at T = 4 takes a tenth less time.
        """
        readers = [node for node in self.network.piece.nodes if out in node.input]
        convolution = next((node for node in readers if node.input[1:2] and node.input[1] in self.rounded), None)
        if convolution is None or all(node.op_type != "Add" for node in readers):
            return spikes
        group = next((attribute.i for attribute in convolution.attribute if attribute.name == "group"), 1)
        channels, name = self.arrays[convolution.input[1]].shape[1] * group, f"{spikes}/channels_last"
        constants = {
            "input_scale": np.float32(1),
            "input_zero": np.uint8(0),
            f"{name}/one": np.ones((channels, 1, 1, 1), np.int8),
            f"{name}/scale": np.ones(channels, np.float32),
            f"{name}/zero": np.zeros(channels, np.int8),
        }
        scale, zero, *ones = (self.g.constant(key, value) for key, value in constants.items())
        attributes = helper.make_node("Conv", [], [], group=channels, kernel_shape=[1, 1]).attribute
        return self._over_bytes(spikes, [scale, zero, *ones, scale, zero], name, attributes)

    def _by_step(self, name: str) -> Any:
        """Returns a function of step, factor and name: that step of a value, times the factor, in float32."""
        g, node, steps = self.g, self.made_by.get(name), self.network.timesteps
        if node is not None and repeats(node, steps):
            same = self.real(node.input[0])  # the current of an image, the same at every step
            return lambda t, factor, out: g.op("Mul", [same, g.constant(f"{out}/factor", np.float32(factor))], out)
        in_bytes = (self.bytes[name], 1.0, 0) if name in self.bytes else None
        if (found := self.stored.get(name, in_bytes)) is None:
            pieces = self._split(name, self.real(name))
            return lambda t, factor, out: g.op("Mul", [pieces[t], g.constant(f"{out}/factor", np.float32(factor))], out)
        value, scale, zero = found
        pieces = self._split(name, value)
        return lambda t, factor, out: self._dequantised(pieces[t], scale, zero, out, factor)

    def _split(self, name: str, value: str) -> list[str]:
        steps = self.network.timesteps
        if steps == 1:
            return [value]
        pieces = [f"{name}/step_{t}" for t in range(steps)]
        if not any(pieces[0] in node.output for node in self.g.nodes):
            split = helper.make_node("Split", [value], pieces, f"{name}/split", axis=0, num_outputs=steps)
            self.g.nodes.append(split)
        return pieces


def doubling(layer: SpikingNeuron, timesteps: int) -> float | None:
    """Returns 1 / decay of neurons that `_negated_neurons` computes, None for others: LIF with hard reset, a
    decay that is a power of two, and few enough steps for float32."""
    if not isinstance(layer, LIF) or not layer.of_numbers or layer.soft_reset:
        return None
    decay = float(torch.as_tensor(layer.decay).detach())
    if decay <= 0 or math.frexp(decay)[0] != 0.5 or decay ** -(timesteps - 1) > _FAR:
        return None
    return 1 / decay


def calibrate(network: Network, images: NDArray[np.float32]) -> dict[str, Rounded]:
    """Returns each convolution over spikes of a network of all steps in eight bits, by the name of its weight; `images`
    are normalised training images [N, C, H, W]: what is measured later must not have part in it."""
    names = list(convolutions(network))
    proto = finished(network, folded(network))
    by_weight = {node.input[1]: node for node in proto.graph.node if node.op_type == "Conv"}
    nodes = [by_weight[name] for name in names]
    weights = [numpy_helper.to_array(network.piece.constants[name]) for name in names]
    size = min(_CHUNK, at_once(_CHUNK * 2**13, network.timesteps, images))
    chunks = [images[start : start + size] for start in range(0, len(images), size)]
    ranges, sums = _look(proto, nodes, weights, chunks)
    rounded = {}
    for name, weight, (low, high) in tqdm(
        list(zip(names, weights, ranges, strict=True)), desc="rounding", leave=False, disable=None
    ):
        rounded[name] = Rounded(*stored(low, high), least_change(weight, sums.pop(0)))
    return rounded


def _look(
    proto: onnx.ModelProto,
    nodes: Sequence[NodeProto],
    weights: Sequence[NDArray[Any]],
    chunks: Sequence[NDArray[np.float32]],
) -> tuple[NDArray[np.float64], list[Tensor]]:
    """Returns the ends of the range of each convolution's currents, and second moments of its inputs."""
    values = list(dict.fromkeys(name for node in nodes for name in (node.input[0], node.output[0])))
    for value in values:
        proto.graph.output.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, None))
    session = create_session(proto.SerializeToString())
    ends: list[NDArray[np.float64]] = []
    sums: list[Any] = [0] * len(nodes)
    for chunk in tqdm(chunks, desc="calibration", leave=False, disable=None):
        got = dict(zip(values, run_session(session, values, chunk), strict=True))
        samples = [got[node.output[0]].ravel() for node in nodes]
        samples = [value[_spread(value.size, _SAMPLES)] for value in samples]
        ends.append(np.array([np.quantile(sample, [_OUTSIDE, 1 - _OUTSIDE]) for sample in samples]))
        for i, (node, weight) in enumerate(zip(nodes, weights, strict=True)):
            x = torch.from_numpy(got[node.input[0]])
            form = [list(weight.shape[2:]), *(_integers(node, key) for key in _DEFAULTS)]
            sums[i] = sums[i] + moments(x, *form, groups=x.shape[1] // weight.shape[1], rows=_ROWS)
    return np.mean(ends, 0), sums


def _integers(node: NodeProto, key: str) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == key), _DEFAULTS[key])


def stored(low: float, high: float) -> tuple[float, int]:
    """Returns scale and zero point of currents from `low` to `high` and 0 in a byte."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max((high - low) / 255, 1e-12))
    return float(scale), int(np.clip(np.rint(-low / scale), 0, 255))


def scales(weight: NDArray[np.float32], bias: NDArray[np.float32] | float = 0.0) -> NDArray[np.float32]:
    """Returns the scale of each output channel: its largest weight becomes 127.

    Its bias is a whole number of them in 32 bits, so where weights are nothing beside it, the scale is larger.
    """
    largest = np.abs(weight).reshape(len(weight), -1).max(1)
    scale = np.maximum(largest / _LARGEST, np.abs(bias) / _MOST_BIAS).astype(np.float32)
    return np.where(scale > 0, scale, np.float32(1))


def in_units(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the weights in units of their channel's scale."""
    return weight / scales(weight).reshape(-1, *[1] * (weight.ndim - 1))


def nearest(weight: NDArray[np.float32]) -> NDArray[np.int8]:
    """Rounds each weight [C_out, C_in / groups, K, K] to its nearest value."""
    return np.rint(in_units(weight)).astype(np.int8)


def moments(
    x: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    *,
    groups: int,
    rows: int,
) -> Tensor:
    """Returns sums of the products of any two inputs that a convolution multiplies with weights of one channel,
    [groups, n, n], n = C / groups * K * K.

    Args:
        x: inputs [N, C, H, W].
        pads: left of each axis, then right of each, as in ONNX.
        rows: how many positions are taken, from all over the maps.
    """
    top, left, bottom, right = pads
    columns = F.unfold(
        F.pad(x, (left, right, top, bottom)), tuple(kernel), dilation=tuple(dilations), stride=tuple(strides)
    )
    columns = columns.transpose(1, 2).flatten(0, 1)
    columns = columns[_spread(len(columns), rows)].unflatten(1, (groups, -1)).transpose(0, 1)
    return columns.transpose(1, 2) @ columns


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """Returns at most so many of the numbers below `count`, evenly; no step of theirs is the width of a map."""
    return np.rint(np.linspace(0, count - 1, min(count, most))).astype(np.int64)


def least_change(weight: NDArray[np.float32], moment: Tensor) -> NDArray[np.int8]:
    """Rounds each weight [C_out, C_in / groups, K, K] to one of the values near it, for the least change of the output;
    `moment` is that of the convolution's inputs."""
    groups, size = moment.shape[:2]
    left = torch.from_numpy(in_units(weight)).double().reshape(groups, -1, size)
    moment = moment.to(torch.float64, copy=True)
    diagonal = moment.diagonal(dim1=1, dim2=2)
    diagonal += _DAMPING * diagonal.mean(1, keepdim=True) + (diagonal.sum(1, keepdim=True) == 0)
    order = diagonal.sum(0).argsort(descending=True, stable=True)
    left, moment = left[:, :, order], moment[:, order][:, :, order]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment))
    upper = torch.linalg.cholesky(inverse, upper=True)
    rounded = torch.zeros_like(left)
    for begin in range(0, size, _BLOCK):
        end = min(begin + _BLOCK, size)
        errors = torch.zeros_like(left[:, :, begin:end])
        for i in range(begin, end):
            rounded[:, :, i] = left[:, :, i].round().clamp(-_LARGEST, _LARGEST)
            error = (left[:, :, i] - rounded[:, :, i]) / upper[:, i, i, None]
            left[:, :, i:end] -= error[:, :, None] * upper[:, i, None, i:end]
            errors[:, :, i - begin] = error
        left[:, :, end:] -= errors @ upper[:, begin:end, end:]
    result = torch.empty_like(rounded)
    result[:, :, order] = rounded
    return result.reshape(weight.shape).numpy().astype(np.int8)


def exact_in_bytes(network: Network, unit: float) -> tuple[Network, dict[str, Rounded]]:
    """Returns the parts of an exact copy that eight bits represent exactly, and its convolutions in eight bits.

    Each convolution over spikes keeps its largest weights, as plus or minus one value: the same for all weights of an
    output channel, another for the next channel. Then weights are 127 and -127 times a scale, sums are whole numbers of
    the currents' scale, and rounding does nothing: spikes and logits must equal those of the float32 graph bit for bit.

    Args:
        network: the parts of the exact copy, of all steps.
        unit: a power of two, near the current that takes a neuron at rest to its threshold.
    """
    step = unit / _PARTS
    constants = dict(network.piece.constants)
    rounded = {}
    for place, (name, node) in enumerate(convolutions(network).items()):
        weight = _two_values(_array(network, name), step)
        constants[name] = numpy_helper.from_array(weight, name)
        rounded[name] = Rounded(step, _ZEROS[place % 2], nearest(weight))
        if len(node.input) > 2:
            bias = np.rint(np.clip(_array(network, node.input[2]), -unit / 2, unit / 2) / step) * step
            constants[node.input[2]] = numpy_helper.from_array(bias.astype(np.float32), node.input[2])
    piece = network.piece._replace(constants=constants)
    return network._replace(piece=piece), rounded


def _two_values(weight: NDArray[Any], step: float) -> NDArray[Any]:
    rows = weight.reshape(len(weight), -1)
    largest = np.argsort(-np.abs(rows), 1, kind="stable")[:, :_KEPT]  # of equal ones the first: never more
    signs = np.where(np.take_along_axis(rows, largest, 1) < 0, -1, 1)
    size = step * (1 + np.arange(len(rows)) % 2)[:, None]
    kept = np.zeros_like(rows, np.float32)
    np.put_along_axis(kept, largest, (signs * size).astype(np.float32), 1)
    return kept.reshape(weight.shape)


def _array(network: Network, name: str) -> NDArray[Any]:
    return numpy_helper.to_array(network.piece.constants[name])
