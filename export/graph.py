"""The parts of a network, and how they become one graph; export/README.md says which layout is for whom.

flat       every time step written out; standard operators, nothing to know: the fastest, and the default
function   each layer once, over all steps, a function for each kind of neuron; to read, and for compilers
step       one time step, its states beside the input; for streams, and to stop early
loop       one time step inside ONNX's Loop; any number of steps, a small graph

`_add_step` inlines one time step: `flat` once for each, `step` and `loop` once. `folded` inlines all steps at once,
with time in the batch as in PyTorch; `with_functions` is the same, but calls the neurons. ONNX Runtime inlines these.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import FunctionProto, NodeProto, TensorProto, helper, numpy_helper

from zoo.errors import ZooError
from zoo.neurons import SpikingNeuron

from . import file

OPSET = 20
_IR_VERSION = 10
DOMAIN = "snnzoo"
NEURONS, FACTOR = "Neurons", "Factor"
"""Placeholders among the operations of a network: a layer of neurons; a factor that each time step has its own of
(TEBN)."""
LAYER = "layer"
"""The attribute of a placeholder that names what it stands for."""
SPIKES = file.SPIKES
TIMESTEPS = "timesteps"
"""The input of a loop that says how often it runs."""
_LOGITS = "logits/t"
"""The logits of a step inside a loop."""
_MOST = 127
"""Largest whole number that a convolution over bytes takes: the sum of two products fits sixteen bits, which processors
without instructions of their own for it have."""


class Piece(NamedTuple):
    """A part of a graph, from named inputs to named outputs; an output may be an input or a constant."""

    inputs: list[str]
    outputs: list[str]
    nodes: list[NodeProto]
    constants: dict[str, TensorProto]


class State(NamedTuple):
    """A state tensor of neurons: its shape, without the batch axis if it has one, and its type in ONNX."""

    shape: tuple[int, ...]
    batched: bool
    dtype: int


class Dynamics(NamedTuple):
    """A layer of neurons in ONNX."""

    first: Piece | None
    """From currents to spikes and states; None where steps do not exist."""
    later: list[Piece]
    """Steps 2, 3 ...: from currents and states to spikes and states; a single one if all are alike."""
    whole: Piece | None
    """From currents [T*B, ...], given as [T, B, ...], to spikes, where steps do not exist."""
    any_step: Piece | None
    """Any step, where states start at zero and all steps are alike."""
    states: list[State]
    kind: str
    """The class of the layer."""

    def step(self, t: int) -> Piece:
        """Returns the form of the step that follows `t` others."""
        assert self.first is not None
        return self.first if t == 0 else self.later[min(t, len(self.later)) - 1]


class Network(NamedTuple):
    """The parts of a network: its operations, with a placeholder for each layer of neurons, and the neurons.

    Of one time step, the operations are copied once a step for a flat graph, kept as they are for a step or a loop; of
    all steps, folded into the batch, they are the graph of layout `function`, with a call where each placeholder is,
    and what eight bits and event-driven nodes rewrite.
    """

    piece: Piece
    """From "input" to "logits"; a placeholder's first output is named as its layer."""
    shapes: dict[str, tuple[int, ...]]
    """The shapes of the currents of each layer of neurons, without the batch; in the order in which they run."""
    neurons: dict[str, Dynamics]
    layers: dict[str, SpikingNeuron]
    """The same in PyTorch."""
    factors: dict[str, NDArray[Any]]
    """[T] of each normalisation that has a factor for every step."""
    timesteps: int
    encoding: str
    size: tuple[int, ...]
    """Channels, height, width of one step's input."""
    classes: int
    forms: dict[str, tuple[int, ...]]
    """The shapes of values of `piece` that the trace knows, with 0 for the batch."""


class StateOf(NamedTuple):
    """A state of a step graph."""

    layer: str
    state: State


_COUNTER = State((), False, TensorProto.INT64)
_Frames = Callable[["Builder", str, str], str]
"""Appends the frame of a time step, given the name of a value that holds it (int64, no axes) and a prefix for names."""


class Builder:
    """A graph that grows node by node."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self._known: dict[tuple[Any, ...], str] = {}

    def op(self, kind: str, inputs: Iterable[str], output: str, **attributes: Any) -> str:
        """Appends one node of one output, and returns that output's name."""
        self.nodes.append(helper.make_node(kind, list(inputs), [output], output, **attributes))
        return output

    def constant(self, name: str, value: TensorProto | Any, *, shared: bool = True) -> str:
        """Adds a constant and returns its name: `name`, or, if it may be `shared`, that of an equal one."""
        tensor = value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value), name)
        array = numpy_helper.to_array(tensor)
        key: tuple[Any, ...] = (tensor.data_type, array.shape, array.tobytes()) if shared else (name,)
        if key not in self._known:
            self._known[key] = name
            self.constants[name] = TensorProto()
            self.constants[name].CopyFrom(tensor)
            self.constants[name].name = name
        return self._known[key]

    def add(self, piece: Piece, inputs: Iterable[str], outputs: Iterable[str | None], prefix: str) -> list[str]:
        """Inlines a piece that reads `inputs`, its inner values under names with a prefix, and returns the names of its
        outputs: those given, where they are not None."""
        names = dict(zip(piece.inputs, inputs, strict=True))
        names |= {name: self.constant(prefix + name, value) for name, value in piece.constants.items()}
        wanted = list(outputs)
        for name, new in zip(piece.outputs, wanted, strict=True):
            if new:
                names.setdefault(name, new)
        for node in piece.nodes:
            self.nodes.append(renamed(node, names, prefix))
        # An output that is an input, a constant or another output once more has a name of its own only if one is asked.
        pairs = zip(piece.outputs, wanted, strict=True)
        return [self.op("Identity", [names[n]], new) if new and names[n] != new else names[n] for n, new in pairs]


def renamed(node: NodeProto, names: dict[str, str], prefix: str) -> NodeProto:
    """Returns a copy of a node; `names` says what its values are called, and learns the prefixed names of new ones."""
    for name in node.output:
        names.setdefault(name, prefix + name if name else "")
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names[name] for name in node.output]
    copy.name = copy.output[0]
    return copy


def cut(
    inputs: list[str], outputs: list[str], nodes: Iterable[NodeProto], constants: Mapping[str, TensorProto]
) -> Piece:
    """Returns the part of some nodes that computes `outputs`."""
    nodes = needed(nodes, outputs)
    read = {name for node in nodes for name in node.input} | set(outputs)
    return Piece(inputs, outputs, nodes, {name: value for name, value in constants.items() if name in read})


def needed(nodes: Iterable[NodeProto], outputs: Iterable[str]) -> list[NodeProto]:
    """Returns the nodes, in their order, that `outputs` depend on."""
    wanted, kept = set(outputs), []
    for node in reversed(list(nodes)):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= read_by(node)
    return kept[::-1]


def read_by(node: NodeProto) -> set[str]:
    """Returns the values that a node reads, those inside its subgraphs included."""
    inner = (attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH)
    return set(node.input) | {name for graph in inner for child in graph.node for name in read_by(child)}


def is_placeholder(node: NodeProto, kind: str) -> bool:
    """Returns whether a node is a placeholder of this kind."""
    return node.domain == DOMAIN and node.op_type == kind


def layer_of(node: NodeProto) -> str:
    """Returns the layer that a placeholder stands for."""
    return next(a.s.decode() for a in node.attribute if a.name == LAYER)


def spike_convolutions(network: Network) -> list[NodeProto]:
    """Returns the convolutions over whole numbers with weights of their own, of sequences, too."""
    limits, constants = whole_numbers(network), network.piece.constants
    return [n for n in network.piece.nodes if n.op_type == "Conv" and n.input[0] in limits and n.input[1] in constants]


def whole_numbers(network: Network) -> dict[str, int]:
    """Returns the largest number of each value that has whole numbers from 0 on, and few enough: spikes, their sums and
    their maxima."""
    limits: dict[str, int] = {}
    for node in network.piece.nodes:
        known = [limits.get(name, 0) for name in node.input if name]
        if is_placeholder(node, NEURONS):
            limits[node.output[0]] = 1
        elif node.op_type == "Add" and all(known) and sum(known) <= _MOST:
            limits[node.output[0]] = sum(known)
        elif node.op_type in ("MaxPool", "Identity") and known and known[0]:
            limits[node.output[0]] = known[0]
    return limits


def repeats(node: NodeProto, steps: int) -> bool:
    """Returns whether a node gives the currents of one image to every time step."""
    axis = next((a.i for a in node.attribute if a.name == "axis"), None)
    return node.op_type == "Concat" and axis == 0 and list(node.input) == [node.input[0]] * steps


def lay_out(network: Network, layout: str, precision: str = "fp32") -> onnx.ModelProto:
    """Returns the graph of a network; `flat` is folded where there is no single step."""
    if layout == "function":
        return finished(network, *with_functions(network), layout, precision=precision)
    whole = any(neurons.whole for neurons in network.neurons.values())
    build = {"flat": folded if whole else unrolled, "step": step, "loop": loop}[layout]
    return finished(network, build(network), layout=layout, precision=precision)


def finished(
    network: Network,
    g: Builder,
    functions: list[FunctionProto] | None = None,
    layout: str = "flat",
    held: list[StateOf] | None = None,
    **entries: Any,
) -> onnx.ModelProto:
    """Returns a graph with its inputs, outputs and what its metadata say of them; `held` are the states of a step, by
    default as `states_of` has them, `entries` further metadata."""
    frames: list[Any] = ["time" if layout == "loop" else network.timesteps]
    steps = frames if network.encoding == "frames" and layout != "step" else []
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *steps, *network.size])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", network.classes])]
    states = None
    if layout == "loop":
        inputs.append(helper.make_tensor_value_info(TIMESTEPS, TensorProto.INT64, []))
    if layout == "step":
        states = []
        for i, (layer, state) in enumerate(held or states_of(network)):
            names = {"input": f"state_{i}", "output": f"new_state_{i}"}
            inputs.append(_value_info(names["input"], state))
            outputs.append(_value_info(names["output"], state))
            sizes = [*([None] if state.batched else []), *state.shape]
            states.append({**names, "layer": layer, "shape": sizes, "start": 0})
    ends = [value.name for value in outputs]
    nodes = needed(g.nodes, ends)
    read = set(ends).union(*map(read_by, nodes))
    constants = [tensor for name, tensor in g.constants.items() if name in read]
    graph = helper.make_graph(nodes, "main_graph", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", OPSET), *([helper.make_opsetid(DOMAIN, 1)] if functions else [])]
    proto = helper.make_model(graph, functions=functions or [], opset_imports=opsets, ir_version=_IR_VERSION)
    spikes = {name: f"{name}/{SPIKES}" for name in network.neurons}
    about = {"layout": layout, "precision": "fp32"} | entries | {"spike_values": spikes}
    file.write(proto, **about, spike_shapes={name: network.shapes[name] for name in spikes}, states=states)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ZooError(f"the graph is not valid ONNX: {error}") from error
    return proto


def unrolled(network: Network) -> Builder:
    """Returns all steps of a network, from "input" to "logits", each with convolutions of its own, so that its current
    need not be split off a batch of all steps; what is the same in every step, as the stem of an image, is there once.
    """
    g, steps = Builder(), network.timesteps
    frames = _frames_of(g, network.encoding, g.constant("last_step", np.float32(steps - 1)))
    fixed = _fix(g, network, image=frames is None)
    states: dict[str, list[str]] = {}
    logits = []
    for t in range(steps):
        names = dict(fixed)
        if frames is not None:
            names["input"] = frames(g, g.constant(f"step_{t}", np.int64(t)), str(t))
        forms = {layer: neurons.step(t) for layer, neurons in network.neurons.items()}
        factors = {layer: g.constant(f"{layer}/{t}", factor[t]) for layer, factor in network.factors.items()}
        logits.append(_add_step(g, network, names, forms, factors, states, str(t)))
    if steps == 1:
        g.op("Identity", logits, "logits")
    else:
        total = g.op("Sum", logits, "logits/sum")
        g.op("Div", [total, g.constant("steps", np.float32(steps))], "logits")
    return g


def folded(network: Network) -> Builder:
    """Returns all steps of a network, from "input" to "logits", time in the batch; neurons are inlined."""
    g = Builder()

    def inline(layer: str, currents: str, spikes: str) -> None:
        g.add(over_time(network.neurons[layer], network.timesteps), [currents], [spikes], f"{layer}/")

    _all_steps(g, network, inline)
    return g


def with_functions(network: Network) -> tuple[Builder, list[FunctionProto]]:
    """Returns all steps of a network, from "input" to "logits", time in the batch, and the functions of its neurons."""
    g, functions = Builder(), dict[bytes, FunctionProto]()

    def call(layer: str, currents: str, spikes: str) -> None:
        neurons = network.neurons[layer]
        piece = over_time(neurons, network.timesteps)  # whose names do not depend on where it came from
        constants = [helper.make_node("Constant", [], [name], value=value) for name, value in piece.constants.items()]
        nodes, opset = [*constants, *piece.nodes], [helper.make_opsetid("", OPSET)]
        function = helper.make_function(DOMAIN, neurons.kind, piece.inputs, piece.outputs, nodes, opset)
        key = function.SerializeToString(deterministic=True)
        if key not in functions:
            taken = {other.name for other in functions.values()}
            numbered = (f"{neurons.kind}_{i}" for i in itertools.count(2))
            function.name = next(name for name in itertools.chain([neurons.kind], numbered) if name not in taken)
            functions[key] = function
        g.nodes.append(helper.make_node(functions[key].name, [currents], [spikes], layer, domain=DOMAIN))

    _all_steps(g, network, call)
    return g, list(functions.values())


def _all_steps(g: Builder, network: Network, add_neurons: Callable[[str, str, str], None]) -> None:
    """Appends all steps, folded into the batch; `add_neurons` does so for a layer, the names of its currents and its
    spikes."""
    names = {name: g.constant(name, value, shared=False) for name, value in network.piece.constants.items()}
    names["input"] = "input"
    for node in network.piece.nodes:
        if node.domain != DOMAIN:
            g.nodes.append(renamed(node, names, ""))
            continue
        layer = layer_of(node)
        names[node.output[0]] = f"{layer}/{SPIKES}"
        add_neurons(layer, names[node.input[0]], names[node.output[0]])


def over_time(neurons: Dynamics, steps: int) -> Piece:
    """Returns neurons over all steps: currents [T*B, ...], time-major, to spikes of the same shape."""
    g = Builder()
    if neurons.whole is not None:
        shape = [g.op("Shape", ["currents"], "shape", start=1)]
        unfolded = g.op("Concat", [g.constant("unfold", np.array([steps, -1], np.int64)), *shape], "unfolded", axis=0)
        x = g.op("Reshape", ["currents", unfolded], "by_step")
        g.add(neurons.whole, [x], ["spikes"], "")
        return Piece(["currents"], ["spikes"], g.nodes, g.constants)
    currents = ["currents"]
    if steps > 1:
        currents = [f"{t}/current" for t in range(steps)]
        g.nodes.append(helper.make_node("Split", ["currents"], currents, "split", axis=0, num_outputs=steps))
    states: list[str] = []
    spikes = []
    for t, current in enumerate(currents):
        piece = neurons.step(t)
        s, *states = g.add(piece, [current, *states], [None] * len(piece.outputs), f"{t}/")
        spikes.append(s)
    g.op("Concat", spikes, "spikes", axis=0)
    nodes = needed(g.nodes, ["spikes"])
    return Piece(["currents"], ["spikes"], nodes, g.constants)


def states_of(network: Network) -> list[StateOf]:
    """Returns the states of a network's steps, in the order of its layers."""
    if network.factors:
        why = f"the normalisation {next(iter(network.factors))!r} does something else in every step"
        raise ZooError(f"no graph of one time step: {why}; take the layout flat or function")
    for layer, neurons in network.neurons.items():
        if neurons.any_step is None:
            several = "do not start from zeros, or do something else in every step"
            why = f"the neurons {layer!r}, {neurons.kind}, {several if neurons.later else 'know one step alone'}"
            raise ZooError(f"no graph of one time step: {why}; take the layout flat or function")
    return [StateOf(layer, state) for layer, neurons in network.neurons.items() for state in neurons.states]


def step(network: Network) -> Builder:
    """Returns one step, from "input" and "state_i" to "logits" and "new_state_i"; all states start at zero."""
    g, states = Builder(), states_of(network)
    given = [f"state_{i}" for i in range(len(states))]
    names = _fix(g, network, image=False) | {"input": "input"}
    logits, new = _any_step(g, network, names, states, given)
    g.op("Identity", [logits], "logits")
    for i, name in enumerate(new):
        g.op("Identity", [name], f"new_state_{i}")
    return g


def loop(network: Network) -> Builder:
    """Returns all steps, from "input" and "timesteps", a number, to "logits": an ONNX Loop over one step."""
    g, states = Builder(), states_of(network)
    steps = g.op("Cast", [TIMESTEPS], "steps", to=TensorProto.FLOAT)
    frames = _frames_of(g, network.encoding, g.op("Sub", [steps, g.constant("one", np.float32(1))], "last_step"))
    names = _fix(g, network, image=frames is None)
    batch = g.op("Shape", ["input"], "batch", start=0, end=1)
    before = [_zeros(g, state, batch, f"start/{i}") for i, (_, state) in enumerate(states)]
    total = State((network.classes,), True, TensorProto.FLOAT)
    before.append(_zeros(g, total, batch, "start/logits"))
    inner = Builder()
    if frames is not None:
        names["input"] = frames(inner, "t", "t")
    given = [f"state/{i}" for i in range(len(states))]
    logits, new = _any_step(inner, network, names, states, given)
    inner.op("Identity", [logits], _LOGITS)
    inner.op("Add", ["logits/before", _LOGITS], "logits/after")
    inner.op("Identity", ["more"], "more/after")
    for i, name in enumerate(new):
        inner.op("Identity", [name], f"state/{i}/after")
    ends = [f"state/{i}/after" for i in range(len(states))]
    flag = State((), False, TensorProto.BOOL)
    around = [flag, *(state for _, state in states), total]
    body = helper.make_graph(
        needed(inner.nodes, ["more/after", *ends, "logits/after"]),
        "time_step",
        [_value_info("t", _COUNTER), *map(_value_info, ["more", *given, "logits/before"], around)],
        [*map(_value_info, ["more/after", *ends, "logits/after"], around)],
    )
    read = set().union(*map(read_by, body.node))
    body.initializer.extend(tensor for name, tensor in inner.constants.items() if name in read)
    results = [*(f"end/{i}" for i in range(len(states))), "logits/total"]
    g.nodes.append(helper.make_node("Loop", [TIMESTEPS, "", *before], results, "time", body=body))
    g.op("Div", ["logits/total", "steps"], "logits")
    return g


def _any_step(
    g: Builder, network: Network, names: dict[str, str], states: list[StateOf], given: list[str]
) -> tuple[str, list[str]]:
    """Appends one step from given states, and returns the names of its logits and new states."""
    held: dict[str, list[str]] = {layer: [] for layer in network.neurons}
    for (layer, _), name in zip(states, given, strict=True):
        held[layer].append(name)
    forms = {layer: neurons.any_step for layer, neurons in network.neurons.items() if neurons.any_step}
    logits = _add_step(g, network, names, forms, {}, held, "t")
    new = {layer: iter(values) for layer, values in held.items()}
    return logits, [next(new[layer]) for layer, _ in states]


def _value_info(name: str, state: State) -> Any:
    """Returns the declaration of a state in a graph."""
    return helper.make_tensor_value_info(name, state.dtype, [*(["batch"] if state.batched else []), *state.shape])


def _zeros(g: Builder, state: State, batch: str, name: str) -> str:
    zero = helper.make_tensor("zero", state.dtype, [1], [0])
    sizes = g.constant(f"{name}/sizes", np.array(state.shape, np.int64))
    shape = g.op("Concat", [batch, sizes], f"{name}/shape", axis=0) if state.batched else sizes
    return g.op("ConstantOfShape", [shape], name, value=zero)


def _fix(g: Builder, network: Network, *, image: bool) -> dict[str, str]:
    """Appends what is the same in every step, and returns its names: constants and, if the input is one `image` for all
    steps, what it goes through before the first neurons."""
    fixed = {name: g.constant(name, value, shared=False) for name, value in network.piece.constants.items()}
    if image:
        fixed["input"] = "input"
        for node in network.piece.nodes:
            if node.domain != DOMAIN and all(name in fixed for name in node.input if name):
                g.nodes.append(renamed(node, fixed, ""))
    return fixed


def _add_step(
    g: Builder,
    network: Network,
    names: dict[str, str],
    forms: Mapping[str, Piece],
    factors: Mapping[str, str],
    states: dict[str, list[str]],
    step: str,
) -> str:
    """Appends one step of a network, and returns the name of its logits.

    Args:
        names: of the values that are there, the step's "input" among them.
        forms: of the neurons in this step.
        factors: name of the factor of each per-step normalisation.
        states: names of the states of each layer that has run; they become those after the step.
        step: ends the names of the spikes, and begins those of all else.
    """
    for node in network.piece.nodes:
        out = node.output[0]
        if out in names:
            continue
        if node.domain != DOMAIN:
            g.nodes.append(renamed(node, names, f"{step}/"))
            continue
        x, layer = names[node.input[0]], layer_of(node)
        if node.op_type == FACTOR:
            names[out] = g.op("Mul", [x, factors[layer]], f"{step}/{out}")
            continue
        given = [x, *states.get(layer, [])]
        results = [f"{layer}/{SPIKES}/{step}", *[None] * (len(forms[layer].outputs) - 1)]
        names[out], *states[layer] = g.add(forms[layer], given, results, f"{layer}/{step}/")
    return names["logits"]


def _frames_of(g: Builder, encoding: str, last_step: str) -> _Frames | None:
    """Returns how a graph makes the frame of a time step; None where every step sees the image itself. Nodes that all
    steps share are appended to `g`; `last_step` names a value that holds T - 1, float32."""
    if encoding == "direct":
        return None
    if encoding == "frames":
        return lambda inner, t, prefix: inner.op("Gather", ["input", t], f"{prefix}/frame", axis=1)
    # latency: a spike at step round((T - 1) (1 - p)), a tie to the even step; none for 0.
    zero, one = g.constant("zero", np.float32(0)), g.constant("one", np.float32(1))
    p = g.op("Clip", ["input", zero, one], "latency/brightness")
    late = g.op("Mul", [last_step, g.op("Sub", [one, p], "latency/rest")], "latency/late")
    seen, never = g.op("Greater", [p, zero], "latency/seen"), g.constant("latency/never", np.float32(-1))
    when = g.op("Where", [seen, g.op("Round", [late], "latency/step"), never], "latency/spike_at")

    def frame(inner: Builder, t: str, prefix: str) -> str:
        clock = inner.op("Cast", [t], f"{prefix}/clock", to=TensorProto.FLOAT)
        now = inner.op("Equal", [when, clock], f"{prefix}/now")
        return inner.op("Cast", [now], f"{prefix}/frame", to=TensorProto.FLOAT)

    return frame
