"""The flat graph in eight bits: convolutions over bytes, membrane potentials in float32.

A spike is 0 or 1, so a byte holds it, and sums of a few of them, without error: scale 1, zero point 0. A convolution
over bytes multiplies them with weights of eight bits, a scale for each output channel, and gives its currents as bytes,
with a scale and a zero point (`Rounded`). What is no convolution of maps over whole numbers stays in float32: the
stem, the classifier, membrane potentials, sums with a shortcut.

Such a convolution is written as one of float32 between DequantizeLinear and QuantizeLinear, of which ONNX Runtime makes
one over bytes. QLinearConv says the same in one operation, but fewer runtimes take it, and some of them wrongly.

Time is folded into the batch, so that each convolution runs once. Its bytes are split into time steps before they
become float32, which moves a quarter of the memory.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from zoo.errors import ZooError
from zoo.neurons import LIF, SpikingNeuron

from ..assembly import Assembly, renamed
from ..layouts.folded import over_time
from ..parts import Parts
from ..skeleton import DOMAIN, NEURONS, layer_of
from .rounding import FARTHEST, in_units, scales

MOST = 128
"""Largest whole number that a convolution over bytes takes: the sum of two products fits sixteen bits, which processors
without instructions of their own for it have."""
_FAR = 2.0**60
_OF_MAPS = 4  # axes of its weight


class Rounded(NamedTuple):
    """A convolution in eight bits: its currents as bytes, (byte - zero) * scale, and its weights."""

    scale: float
    zero: int
    weight: NDArray[np.int8]
    """In units of the scale of their output channel, see `rounding.scales`."""


def quantised(parts: Parts, layers: Mapping[str, SpikingNeuron], rounded: Mapping[str, Rounded]) -> Assembly:
    """All steps of a network, from "input" to "logits".

    Args:
        parts: of all steps.
        layers: its layers of neurons.
        rounded: each convolution over whole numbers, by the name of its weight.

    Raises:
        ZooError: it has no such convolution, or `rounded` are others.
    """
    if not rounded:
        raise ZooError("no int8: this network has no convolution over spikes with weights of its own")
    if wrong := rounded.keys() ^ convolutions(parts).keys():
        raise ZooError(f"the convolutions of int8 must be the network's convolutions over spikes: {sorted(wrong)[0]}")
    return _Quantiser(parts, layers, rounded).run()


def convolutions(parts: Parts) -> dict[str, NodeProto]:
    """The convolutions of maps over whole numbers, by the names of their weights.

    Raises:
        ZooError: one is used twice.
    """
    found = dict[str, NodeProto]()
    for node in spike_convolutions(parts):
        name = node.input[1]
        if name in found:
            raise ZooError(f"no int8: {name} is used twice in one forward, and its currents have one scale")
        if len(parts.skeleton.piece.constants[name].dims) == _OF_MAPS:
            found[name] = node
    return found


def spike_convolutions(parts: Parts) -> list[NodeProto]:
    """The convolutions over whole numbers with weights of their own, of sequences, too."""
    found, limits = [], dict[str, int]()
    for node in parts.skeleton.piece.nodes:
        limit = whole(node, limits)
        if limit is not None:
            limits[node.output[0]] = limit
        if node.op_type == "Conv" and node.input[0] in limits and node.input[1] in parts.skeleton.piece.constants:
            found.append(node)
    return found


def whole(node: NodeProto, limits: Mapping[str, int]) -> int | None:
    """The largest number that a node of the skeleton gives, if it gives whole numbers from 0 on, and few enough."""
    if node.domain == DOMAIN:
        return 1 if node.op_type == NEURONS else None
    known = [limits.get(name) for name in node.input if name]
    if not known or None in known[: 2 if node.op_type == "Add" else 1]:
        return None
    if node.op_type == "Add" and sum(known) <= MOST:  # type: ignore[arg-type]
        return sum(known)  # type: ignore[arg-type]
    return known[0] if node.op_type in ("MaxPool", "Identity") else None


def _repeats(node: NodeProto, steps: int) -> bool:
    """Whether a node gives the currents of one image to every time step."""
    axis = next((a.i for a in node.attribute if a.name == "axis"), None)
    return node.op_type == "Concat" and axis == 0 and list(node.input) == [node.input[0]] * steps


class _Quantiser:
    def __init__(self, parts: Parts, layers: Mapping[str, SpikingNeuron], rounded: Mapping[str, Rounded]) -> None:
        self.parts, self.layers, self.rounded = parts, layers, rounded
        self.g = Assembly()
        piece = parts.skeleton.piece
        self.arrays = {name: numpy_helper.to_array(value) for name, value in piece.constants.items()}
        self.made_by = {name: node for node in piece.nodes for name in node.output}
        readers = [name for node in piece.nodes for name in node.input] + piece.outputs
        self.readers = {name: readers.count(name) for name in readers}
        # The forms in which a value of the skeleton exists.
        self.reals = {"input": "input"}
        self.bytes: dict[str, str] = {}
        self.stored: dict[str, tuple[str, float, int]] = {}
        self.limits: dict[str, int] = {}

    def run(self) -> Assembly:
        for node in self.parts.skeleton.piece.nodes:
            limit = whole(node, self.limits)
            if limit is not None:
                self.limits[node.output[0]] = limit
            if node.domain == DOMAIN:
                self._neurons(node)
            elif node.op_type == "Conv" and node.input[1] in self.rounded:
                self._convolution(node)
            elif node.op_type == "MaxPool" and limit is not None:
                self._pool(node)
            elif not (node.op_type == "Add" and self._only_neurons_read(node)):
                names = {name: self.real(name) for name in node.input if name}
                self.g.nodes.append(renamed(node, names | {n: n for n in node.output}, ""))
                self.reals |= {name: name for name in node.output}
        return self.g

    def real(self, name: str) -> str:
        """The value in float32."""
        if name not in self.reals:
            if name in self.arrays:
                self.reals[name] = self.g.constant(name, self.arrays[name])
            elif name in self.bytes:
                self.reals[name] = self.g.op("Cast", [self.bytes[name]], f"{name}/real", to=TensorProto.FLOAT)
            elif name in self.stored:
                self.reals[name] = self._dequantised(*self.stored[name], f"{name}/real")
            else:  # a sum that was left for neurons to take apart
                a, b = self.made_by[name].input
                self.reals[name] = self.g.op("Add", [self.real(a), self.real(b)], name)
        return self.reals[name]

    def byte(self, name: str) -> str:
        """The whole numbers of a value in bytes."""
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
        """A convolution of bytes to bytes; `names` are scale and zero of its input, weights with scales and zeros,
        scale and zero of what it gives, and the bias in units of its weights' scales."""
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

    def _only_neurons_read(self, node: NodeProto) -> bool:
        """Whether a sum is the current of one layer of neurons alone, which takes its summands."""
        out = node.output[0]
        reader = next((n for n in self.parts.skeleton.piece.nodes if out in n.input), None)
        constant = any(name in self.arrays for name in node.input)
        if constant or self.readers[out] > 1 or reader is None:
            return False
        if reader.domain == DOMAIN:
            return doubling(self.layers[layer_of(reader)], self.parts.timesteps) is not None
        return reader.op_type == "Add" and self._only_neurons_read(reader)

    def _neurons(self, node: NodeProto) -> None:
        layer, out = layer_of(node), node.output[0]
        growth = doubling(self.layers[layer], self.parts.timesteps)
        if growth is None:
            over = over_time(self.parts.neurons[layer], self.parts.timesteps)
            self.reals[out] = self.g.add(over, [self.real(node.input[0])], [f"{layer}/spikes"], f"{layer}/")[0]
        else:
            of_bytes = any(name in self.stored for name in self._summands(node.input[0]))
            spikes = self._negated_neurons(layer, node.input[0], growth)
            self.bytes[out] = spikes if of_bytes else self._channels_last(spikes, out)

    def _negated_neurons(self, layer: str, currents: str, growth: float) -> str:
        """LIF neurons with hard reset in five operations a step.

        The membrane potential of step t is kept times -growth^t, growth being 1 / decay, a power of two: then decay
        costs nothing, as it is in the scale that turns bytes into currents, and ThresholdedRelu is the reset.
        """
        g, neurons, steps = self.g, self.layers[layer], self.parts.timesteps
        summands = [self._by_step(name) for name in self._summands(currents)]
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
            spikes.append(g.op("Cast", [fired], f"{prefix}/spikes", to=TensorProto.UINT8))
            state = g.op("ThresholdedRelu", [total], f"{prefix}/state", alpha=float(edge))
        return g.op("Concat", spikes, f"{layer}/spikes/byte", axis=0)

    def _channels_last(self, spikes: str, out: str) -> str:
        """The spikes of a stem, where a shortcut passes by a convolution that reads them.

        ONNX Runtime's convolutions over bytes have channels last, so a shortcut with channels first makes it turn the
        currents of every step, in float32, block after block. A convolution over bytes that multiplies each spike by 1
        turns the spikes once: sresnet19_w32 at T = 4 takes a tenth less time.
        """
        readers = [node for node in self.parts.skeleton.piece.nodes if out in node.input]
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

    def _summands(self, name: str) -> list[str]:
        node = self.made_by.get(name)
        if node is not None and node.op_type == "Add" and name not in self.reals:
            return [leaf for summand in node.input for leaf in self._summands(summand)]
        return [name]

    def _by_step(self, name: str) -> Any:
        """A function of step, factor and name: that step of a value, times the factor, in float32."""
        g, node, steps = self.g, self.made_by.get(name), self.parts.timesteps
        if node is not None and _repeats(node, steps):
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
        steps = self.parts.timesteps
        if steps == 1:
            return [value]
        pieces = [f"{name}/step_{t}" for t in range(steps)]
        if not any(pieces[0] in node.output for node in self.g.nodes):
            split = helper.make_node("Split", [value], pieces, f"{name}/split", axis=0, num_outputs=steps)
            self.g.nodes.append(split)
        return pieces


def doubling(layer: SpikingNeuron, timesteps: int) -> float | None:
    """1 / decay of neurons that `_negated_neurons` computes: LIF with hard reset, a decay that is a power of two, and
    few enough steps for float32. None for others."""
    if not isinstance(layer, LIF) or not layer.of_numbers or layer.soft_reset:
        return None
    decay = float(torch.as_tensor(layer.decay).detach())
    if decay <= 0 or math.frexp(decay)[0] != 0.5 or decay ** -(timesteps - 1) > _FAR:
        return None
    return 1 / decay
