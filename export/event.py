"""Event-driven graphs: a convolution over spikes, what follows it and its neurons are one node, which skips zeros.

A node is `snnzoo.EventConv`. Its function, of standard operators, runs wherever ONNX runs. With the library of
zoo/kernels/event_ort.cpp registered (`export.event_library`), ONNX Runtime runs that and does not look at the function.
Both give the same bits: weights are whole numbers in int16, of which float32 holds every sum below 2^24 exactly, in any
order; what follows is done in float32, one rounding an operation, in the same order.

Between these nodes spikes are bytes [T*B, H, W, C], channels last, and currents float32 of that shape. What is no
convolution over spikes stays in standard operators: the stem, attention, pools, the classifier.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import AttributeProto, FunctionProto, NodeProto, TensorProto, helper, numpy_helper

from zoo.errors import ZooError
from zoo.kernels.event import takes_weights
from zoo.neurons import LIF

from .graph import (
    DOMAIN,
    OPSET,
    SPIKES,
    Builder,
    Network,
    StateOf,
    finished,
    layer_of,
    over_time,
    renamed,
    repeats,
    spike_convolutions,
    states_of,
    whole_numbers,
)

OPERATOR, NEURONS_OPERATOR = "EventConv", "EventNeurons"
BYTES = "/bytes"
"""Ends the name of a value's whole numbers in bytes, channels last."""
_LAST = "/channels_last"
MOST = 15
"""Largest count of spikes that the kernel takes."""
_LARGEST = 2047
"""Largest weight: twelve bits. Few weights then need more than one widening of the kernel's int16 sums."""
_INT16 = 2**15 - 1
_RUNS = (4, 12, 12, 24)
"""Weights whose sums stay in int16, in the first convolutions and, the last number, in the rest of their first third:
neighbours in a column of the kernel's window, which its table adds up before it widens a sum. These have the finest
numbers for which that holds, fourteen bits and more, because a spike that rounding changes changes two or three times
as many in each layer behind. Shorter runs take more time."""
_TABLE = 2**16
"""Weights of a convolution that has a table in the kernel, at most."""
_EXACT = 2**24
_NUMBERS = ["decay", "gain", "threshold", "soft_reset"]
_MAPS = 4  # axes
_STATE_INPUT, _STATE_OUTPUT = 6, 2  # of a node


class _Layer(NamedTuple):
    """A convolution over spikes with what its node takes in."""

    convolution: NodeProto
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]
    weight: NDArray[np.int16]
    value: str
    """The currents."""
    shortcut: str | None
    neurons: NodeProto | None
    kept: bool
    """Whether something else reads the currents."""


def whole_weights(
    weight: NDArray[np.float32], most: int, run: int | None = None
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Returns weights [C', C, kh, kw] as whole numbers, and the scale [C'] of each channel.

    Weights that a power of two brings to whole numbers stay as they are. Others are rounded so that the sum over a
    channel's taps, and over channels so far, is wrong by at most half a unit: what spikes in one tap mostly does in the
    next one, too, so that errors of one sign would add up.

    Args:
        weight: in float32.
        most: largest count of spikes; sums over any such counts stay below 2^24.
        run: sums of so many neighbours in a column of the window stay in int16; None for twelve bits.
    """
    flat = weight.reshape(*weight.shape[:2], -1).astype(np.float64)
    top = np.abs(flat).max((1, 2))
    top[top == 0] = 1
    exact = np.exp2(np.ceil(np.log2(top / _LARGEST)))[:, None, None]
    is_exact = (flat / exact == np.rint(flat / exact)).all((1, 2))
    scale = top / _LARGEST
    if run is not None:
        columns = weight.astype(np.float64).transpose(0, 3, 2, 1).reshape(len(weight), -1, run)
        sums = np.maximum(np.maximum(columns, 0).sum(2), np.maximum(-columns, 0).sum(2)).max(1)
        scale = np.maximum(top, sums) / (_INT16 - 2 * run)  # rounding moves a weight by less than two
        scale[scale == 0] = 1
    scale = np.where(is_exact, exact[:, 0, 0], scale)
    exactly = flat / scale[:, None, None]
    numbers = np.rint(exactly)
    left = np.zeros(len(weight))
    for c in range(weight.shape[1]):
        missing = exactly[:, c] - numbers[:, c]
        units = np.rint(missing.sum(1) + left)[:, None]  # to add, to the weights that lack most
        left += missing.sum(1) - units[:, 0]
        rank = np.argsort(np.argsort(-missing, axis=1, kind="stable"), axis=1, kind="stable")
        numbers[:, c] += (rank < units).astype(int) - (rank >= rank.shape[1] + units)
    numbers = np.clip(numbers, -_INT16, _INT16)
    if (np.abs(numbers).sum((1, 2)) * most >= _EXACT).any():
        raise ZooError("no int16: a convolution of this network has sums that float32 does not hold exactly; take fp32")
    return numbers.reshape(weight.shape).astype(np.int16), scale


def event_graph(network: Network, *, one_step: bool = False) -> onnx.ModelProto:
    """Returns the event-driven graph of a network, from "input" to "logits".

    Args:
        network: of all steps or of one, normalisations not folded.
        one_step: states are inputs and outputs; those of event-driven neurons have their channels last.
    """
    held = states_of(network) if one_step else None
    rewrite = _Rewrite(network, held)
    if not rewrite.planned:
        raise ZooError("no int16: this network has no convolution over spikes with weights of its own")
    g = rewrite.run()
    functions, layout = list(rewrite.functions.values()), "step" if one_step else "flat"
    made = finished(network, g, functions, layout, rewrite.held, precision="int16")
    # A kernel says no shapes, by which ONNX Runtime fuses what is behind it as it does behind the functions.
    shapes = {f"{layer}/{SPIKES}{BYTES}": shape for layer, shape in network.shapes.items()}
    for name in (name for node in made.graph.node for name in node.output if name in shapes):
        channels, *sides = shapes[name]
        made.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.UINT8, [None, *sides, channels]))
    return made


class _Rewrite:
    def __init__(self, network: Network, held: list[StateOf] | None = None) -> None:
        self.network, self.held, self.g = network, held, Builder()
        self.steps = network.timesteps if held is None else 1
        self.functions: dict[str, FunctionProto] = {}
        self.arrays = {name: numpy_helper.to_array(value) for name, value in network.piece.constants.items()}
        self.readers: dict[str, list[NodeProto]] = {}
        self.counts = whole_numbers(network)
        for node in network.piece.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        # The forms in which a value exists: float32 as PyTorch has it, channels last, bytes with channels last.
        self.plain, self.last, self.bytes = {"input": "input"}, dict[str, str](), dict[str, str]()
        self.planned: dict[str, _Layer] = {}
        self.absorbed = set[str]()
        self._plan()

    def _plan(self) -> None:
        """Finds what each node takes in, by its currents."""
        found: list[_Layer] = []
        convolutions = spike_convolutions(self.network)
        for i, node in enumerate(convolutions):
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            shape = self.arrays[node.input[1]].shape
            plain = attributes.get("group", 1) == 1 and set(attributes.get("dilations", [1])) == {1}
            if plain and len(shape) == _MAPS and takes_weights(shape) and self.counts[node.input[0]] <= MOST:
                found.append(self._scaled(node, i, 3 * i < len(convolutions)))
        # Of two branches that are added, the later one takes the sum: then the other is there.
        for layer in reversed(found):
            add = self._only_reader(layer.value)
            if add is not None and add.op_type == "Add":
                others = [name for name in add.input if name != layer.value and self._is_like(name, layer.value)]
                if len(others) == 1 and add.output[0] not in self.planned:
                    self.absorbed.add(layer.value)
                    layer = layer._replace(shortcut=others[0], value=add.output[0])
            readers = self.readers.get(layer.value, [])
            neurons = next((node for node in readers if node.domain == DOMAIN and self._numbers(node)), None)
            kept = neurons is None or len(readers) > 1
            layer = layer._replace(neurons=neurons, kept=kept)
            self.absorbed |= {layer.convolution.output[0], *(neurons.output[:1] if neurons is not None else ())}
            self.planned[layer.value] = layer

    def _scaled(self, node: NodeProto, place: int, early: bool) -> _Layer:
        """Returns a convolution with the normalisation behind it, as whole weights, scale and bias; `place` is how many
        are before it, `early` whether spikes that its rounding changes matter much."""
        weight, out = self.arrays[node.input[1]], node.output[0]
        run = _RUNS[min(place, len(_RUNS) - 1)]
        table = early and weight.size <= _TABLE and weight.shape[1] * weight.shape[2] % run == 0
        numbers, scale = whole_weights(weight, self.counts[node.input[0]], run if table else None)
        bias = self.arrays[node.input[2]].astype(np.float64) if len(node.input) > 2 else np.zeros(len(weight))
        norm = self._only_reader(out)
        if norm is not None and norm.op_type == "Conv" and norm.input[1].endswith("/factor"):
            factor = self.arrays[norm.input[1]].reshape(-1).astype(np.float64)
            scale, bias = scale * factor, bias * factor + self.arrays[norm.input[2]]
            self.absorbed.add(out)
            out = norm.output[0]
        return _Layer(node, scale.astype(np.float32), bias.astype(np.float32), numbers, out, None, None, True)

    def _is_like(self, name: str, other: str) -> bool:
        """Returns whether a value is computed, and has one number for each of another's, with nothing repeated."""
        mine, its = (self.network.forms.get(value) for value in (name, other))
        return name not in self.arrays and mine is not None and its is not None and mine[1:] == its[1:] and mine[0] != 1

    def _only_reader(self, value: str) -> NodeProto | None:
        readers = self.readers.get(value, [])
        return readers[0] if len(readers) == 1 and value not in self.network.piece.outputs else None

    def _numbers(self, node: NodeProto) -> dict[str, Any] | None:
        """Returns decay, gain, threshold and reset of LIF neurons; None for others."""
        layer = self.network.layers[layer_of(node)]
        if not isinstance(layer, LIF) or not layer.of_numbers:
            return None
        numbers = {name: float(torch.as_tensor(getattr(layer, name)).item()) for name in ("decay", "gain", "threshold")}
        return {**numbers, "soft_reset": int(layer.soft_reset)}

    def run(self) -> Builder:
        for node in self.network.piece.nodes:
            out = node.output[0]
            if out in self.planned:
                self._event(self.planned[out])
            elif out in self.absorbed or (node.domain == DOMAIN and self._event_neurons(node)):
                continue
            elif node.domain == DOMAIN:
                layer, spikes = layer_of(node), f"{layer_of(node)}/{SPIKES}"
                self._neurons(layer, self._plain(node.input[0]), spikes)
                self.plain[out] = spikes
            elif node.op_type == "MaxPool" and node.input[0] in self.bytes:
                first = self.g.op("Transpose", [self._bytes(node.input[0])], f"{out}/channels_first", perm=[0, 3, 1, 2])
                self.g.nodes.append(renamed(node, {node.input[0]: first, out: f"{out}/pooled"}, ""))
                self.bytes[out] = self.g.op("Transpose", [f"{out}/pooled"], out + BYTES, perm=[0, 2, 3, 1])
            elif node.op_type == "Add" and out in self.counts and all(name in self.bytes for name in node.input):
                self.bytes[out] = self.g.op("Add", [self.bytes[name] for name in node.input], out + BYTES)
            else:
                names = {name: self._plain(name) for name in node.input if name}
                self.g.nodes.append(renamed(node, names | {name: name for name in node.output}, ""))
                self.plain |= {name: name for name in node.output}
        for name in self.network.piece.outputs:
            self._plain(name)
        return self.g

    def _plain(self, name: str) -> str:
        """Returns a value in float32, as PyTorch has it."""
        if name not in self.plain:
            if name in self.arrays:
                self.plain[name] = self.g.constant(name, self.arrays[name], shared=False)
            elif name in self.bytes:
                real = self.g.op("Cast", [self.bytes[name]], f"{name}/real", to=TensorProto.FLOAT)
                self.plain[name] = self.g.op("Transpose", [real], f"{name}/plain", perm=[0, 3, 1, 2])
            else:
                self.plain[name] = self.g.op("Transpose", [self.last[name]], f"{name}/plain", perm=[0, 3, 1, 2])
        return self.plain[name]

    def _bytes(self, name: str) -> str:
        """Returns whole numbers in bytes, channels last."""
        if name not in self.bytes:
            byte = self.g.op("Cast", [self._plain(name)], f"{name}/byte", to=TensorProto.UINT8)
            self.bytes[name] = self.g.op("Transpose", [byte], name + BYTES, perm=[0, 2, 3, 1])
        return self.bytes[name]

    def _last(self, name: str) -> str:
        """Returns a value in float32, channels last."""
        if name not in self.last:
            self.last[name] = self.g.op("Transpose", [self._plain(name)], name + _LAST, perm=[0, 2, 3, 1])
        return self.last[name]

    def _neurons(self, layer: str, currents: str, spikes: str) -> None:
        """Appends neurons in standard operators."""
        neurons = self.network.neurons[layer]
        places = [i for i, state in enumerate(self.held or []) if state.layer == layer]
        piece = over_time(neurons, self.steps) if self.held is None else neurons.any_step
        assert piece is not None  # or states_of had refused
        given, results = ([f"{name}_{i}" for i in places] for name in ("state", "new_state"))
        self.g.add(piece, [currents, *given], [spikes, *results], f"{layer}/")

    def _state(self, layer: str) -> tuple[list[str], list[str]]:
        """Returns input and output for the membrane potentials of event-driven neurons, none where all steps are there;
        from now on that state has its channels last."""
        if self.held is None:
            return [], []
        place = next(i for i, state in enumerate(self.held) if state.layer == layer)
        channels, *size = self.held[place].state.shape
        self.held[place] = StateOf(layer, self.held[place].state._replace(shape=(*size, channels)))
        return [f"state_{place}"], [f"new_state_{place}"]

    def _event_neurons(self, node: NodeProto) -> bool:
        """Appends neurons of maps that follow no convolution over spikes; returns whether the kernel has such."""
        layer, currents, steps = layer_of(node), node.input[0], self.steps
        numbers = self._numbers(node)
        if numbers is None or len(self.network.shapes[layer]) != _MAPS - 1:
            return False
        made = next((n for n in self.network.piece.nodes if currents in n.output), None)
        repeat = made is not None and repeats(made, steps)
        given = self._last(made.input[0] if made is not None and repeat else currents)
        state, new = self._state(layer)
        function = _neurons_function(steps, bool(numbers["soft_reset"]), repeat, bool(state))
        self.functions[function.overload + NEURONS_OPERATOR] = function
        spikes = f"{layer}/{SPIKES}{BYTES}"
        how = {"timesteps": steps, "repeat": int(repeat), **numbers}
        event = helper.make_node(NEURONS_OPERATOR, [given, *state], [spikes, *new], layer, domain=DOMAIN, **how)
        event.overload = function.overload
        self.g.nodes.append(event)
        self.bytes[node.output[0]] = spikes
        return True

    def _event(self, layer: _Layer) -> None:
        convolution, name = layer.convolution, layer.convolution.input[1].removesuffix(".weight")
        if any(node.name == name for node in self.g.nodes):
            name = layer.value  # of weights that two layers share, each with a scale of its own
        attributes = {a.name: helper.get_attribute_value(a) for a in convolution.attribute}
        constants = {
            f"{name}/weight": layer.weight,
            f"{layer.value}/scale": layer.scale,
            f"{layer.value}/bias": layer.bias,
        }
        inputs = [self._bytes(convolution.input[0])]
        inputs += [self.g.constant(key, value, shared=False) for key, value in constants.items()]
        added = ""
        if layer.shortcut in self.bytes:
            added, inputs = "counts", [*inputs, "", self.bytes[layer.shortcut]]
        elif layer.shortcut is not None:
            added, inputs = "currents", [*inputs, self._last(layer.shortcut)]
        outputs = [""]
        numbers: dict[str, Any] = {}
        state: list[str] = []
        new: list[str] = []
        if layer.neurons is not None:
            numbers = self._numbers(layer.neurons) or {}
            outputs = [f"{layer_of(layer.neurons)}/{SPIKES}{BYTES}"]
            self.bytes[layer.neurons.output[0]] = outputs[0]
            state, new = self._state(layer_of(layer.neurons))
        if layer.kept:
            outputs.append(layer.value + _LAST)
            self.last[layer.value] = outputs[-1]
        if state:
            inputs += [""] * (_STATE_INPUT - len(inputs)) + state
            outputs += [""] * (_STATE_OUTPUT - len(outputs)) + new
        function = _function(self.steps, added, bool(numbers), bool(numbers.get("soft_reset")), layer.kept, bool(state))
        self.functions[function.overload] = function
        shape = {key: attributes.get(key, default) for key, default in (("strides", [1, 1]), ("pads", [0] * 4))}
        shape |= {"timesteps": self.steps, "most": self.counts[convolution.input[0]], **numbers}
        node = helper.make_node(OPERATOR, inputs, outputs, name, domain=DOMAIN, **shape)
        node.overload = function.overload
        self.g.nodes.append(node)


@functools.cache
def _function(steps: int, added: str, fires: bool, soft: bool, kept: bool, held: bool) -> FunctionProto:
    """Returns what an event-driven node does, in standard operators, each of one rounding, in the kernel's order.

    Args:
        added: what a shortcut adds: "currents", "counts" or nothing, "".
        fires: whether neurons follow, otherwise the currents are the output.
        soft: reset by subtraction.
        kept: whether the currents are an output beside the spikes.
        held: whether membrane potentials are an input and an output, too.
    """
    g = Builder()
    spikes = g.op("Transpose", [g.op("Cast", ["spikes"], "real", to=TensorProto.FLOAT)], "maps", perm=[0, 3, 1, 2])
    weight = g.op("Cast", ["weight"], "numbers", to=TensorProto.FLOAT)
    g.op("Conv", [spikes, weight], "convolved")
    g.nodes[-1].attribute.extend(_given(name, AttributeProto.INTS) for name in ("strides", "pads"))
    # Whole numbers stay as they are; the operation keeps an optimiser from folding the scale into the weights.
    sums = g.op("Transpose", [g.op("Round", ["convolved"], "sums")], "sums_last", perm=[0, 2, 3, 1])
    x = g.op("Add", [g.op("Mul", [sums, "scale"], "scaled"), "bias"], "normalised")
    if added == "counts":
        x = g.op("Add", [x, g.op("Cast", ["counts"], "shortcut_real", to=TensorProto.FLOAT)], "total")
    elif added:
        x = g.op("Add", [x, "shortcut"], "total")
    outputs = ["fired"] + ["currents"] * (kept or held) + ["last"] * held
    if kept or held:
        g.op("Identity", [x], "currents")
    if fires:
        _fire(g, x, steps, soft, held=held)
    else:
        g.op("Cast", [x], "fired", to=TensorProto.UINT8)  # of no use, but a function has all its outputs
    extra = {"": [], "currents": ["shortcut"]}.get(added, ["shortcut", "counts"])
    inputs = ["spikes", "weight", "scale", "bias", *(["shortcut", "counts", "state"] if held else extra)]
    names = ["strides", "pads", "timesteps", "most", *(_NUMBERS if fires else [])]
    form = ("soft" if soft else "hard") if fires else "currents"
    words = [form, steps, added, "kept" if fires and kept else "", "held" if held else ""]
    return _as_function(g, OPERATOR, words, inputs, outputs, names)


@functools.cache
def _neurons_function(steps: int, soft: bool, repeat: bool, held: bool) -> FunctionProto:
    """Returns what neurons without a convolution do; `repeat`: on the same currents at every step."""
    g = Builder()
    _fire(g, "currents", steps, soft, repeat, held)
    how = ["soft" if soft else "hard", steps, "repeat" if repeat else "", "held" if held else ""]
    inputs, outputs = ["currents", *(["state"] if held else [])], ["fired", *(["last"] if held else [])]
    return _as_function(g, NEURONS_OPERATOR, how, inputs, outputs, [*_NUMBERS, "timesteps", "repeat"])


def _fire(g: Builder, x: str, steps: int, soft: bool, repeat: bool = False, held: bool = False) -> None:
    """Appends LIF neurons over all steps: from currents to spikes in bytes, "fired"; `held`: from membrane potentials
    "state" to those after the last step, "last"."""
    for name in ("decay", "gain", "threshold"):
        g.nodes.append(helper.make_node("Constant", [], [name], name))
        g.nodes[-1].attribute.append(_given(name, AttributeProto.FLOAT, "value_float"))
    g.nodes.append(helper.make_node("Constant", [], ["zero"], "zero", value_float=0.0))
    # The gain comes first: ONNX Runtime multiplies a second factor into the weights of a convolution before it,
    # and sums round otherwise than the kernel's.
    currents = [g.op("Mul", ["gain", x], "gained")] * steps
    if steps > 1 and not repeat:
        currents = [f"current/{t}" for t in range(steps)]
        g.nodes.append(helper.make_node("Split", ["gained"], currents, "split", axis=0, num_outputs=steps))
    fired, v = [], "state" if held else ""
    for t, u in enumerate(currents):
        if v:
            u = g.op("Add", [g.op("Mul", [v, "decay"], f"leaked/{t}"), u], f"u/{t}")
        spike = g.op("GreaterOrEqual", [u, "threshold"], f"spike/{t}")
        fired.append(g.op("Cast", [spike], f"fired/{t}", to=TensorProto.UINT8))
        if t < steps - 1 or held:
            after = g.op("Sub", [u, "threshold"], f"after/{t}") if soft else "zero"
            v = g.op("Where", [spike, after, u], f"v/{t}" if t < steps - 1 else "last")
    g.op("Concat", fired, "fired", axis=0)


def _as_function(
    g: Builder, operator: str, form: list[Any], inputs: list[str], outputs: list[str], names: list[str]
) -> FunctionProto:
    """Returns nodes as a function of an operator; `form` makes it one of several of that name."""
    opset = [helper.make_opsetid("", OPSET)]
    function = helper.make_function(DOMAIN, operator, inputs, outputs, g.nodes, opset, names)
    function.overload = "_".join(str(word) for word in form if word != "")
    return function


def _given(name: str, kind: Any, as_: str = "") -> AttributeProto:
    """Returns an attribute of a node in a function: the function's own of that name."""
    return AttributeProto(name=as_ or name, ref_attr_name=name, type=kind)
