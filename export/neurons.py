"""Neurons in ONNX: the `step` of each layer, traced as it stands, so that a neuron of your own leaves like ours.

A step has two forms: the first, whose last state is None, and a later one, from currents and state tensors to spikes
and new state tensors. What a state holds beside tensors (GLIF counts its steps) is a constant of the form; where it
changes from step to step, each step has a form. PSN has no steps: it is one piece, over all steps at once.

A spike has a form that ONNX Runtime runs fastest: a clipped line so steep that it is a step. HardSigmoid(u) = max(0,
min(1, alpha u + beta)). With alpha a power of two so large that neighbouring float32 numbers at the threshold are 1
apart after the product, and beta = 1 - alpha threshold, it is exactly u >= threshold in float32: 1 at the threshold, 0
one number below. ONNX Runtime fuses it into the convolution in front and keeps it in that convolution's blocked layout,
which a comparison and a cast leave. So do factors with one entry per channel instead of a scalar, and sums instead of
differences. export/reports/forms.json has the measurement.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zoo.errors import ZooError, one_line
from zoo.neurons import PSN, SpikingNeuron

from .graph import Dynamics, Network, Piece, State, cut, renamed
from .trace import trace

_MANTISSA = 24
"""Bits of a float32 number's."""
_BATCH = 3
_ROW = {0: "batch"}


class _Form(NamedTuple):
    """One form of one layer: what is traced."""

    layer: int
    x: Tensor
    state: list[Any] | None
    """Its leaves, examples of tensors among them; None for the first step."""
    spec: Any
    results: list[Tensor]
    """Examples of the outputs."""


class _Forms(nn.Module):
    """All forms of all layers in one module: one trace instead of many."""

    def __init__(self, layers: Sequence[SpikingNeuron], forms: Sequence[_Form]) -> None:
        super().__init__()
        self.layers, self.forms = nn.ModuleList(layers), forms

    def forward(self, currents: list[Tensor], states: list[list[Tensor]]) -> list[list[Tensor]]:
        outputs = []
        for form, x, tensors in zip(self.forms, currents, states, strict=True):
            layer: Any = self.layers[form.layer]
            if isinstance(layer, PSN):
                outputs.append([layer(x.flatten(0, 1))])
                continue
            given = iter(tensors)
            leaves = form.state and [next(given) if isinstance(leaf, Tensor) else leaf for leaf in form.state]
            spikes, new = layer.step(x, None if leaves is None else pytree.tree_unflatten(leaves, form.spec))
            outputs.append([spikes, *_tensors(pytree.tree_leaves(new))])
        return outputs


@torch.no_grad()
def trace_neurons(layers: dict[str, SpikingNeuron], shapes: dict[str, tuple[int, ...]]) -> dict[str, Dynamics]:
    """Returns each layer in ONNX.

    Args:
        layers: on the CPU, in float32; layers that are alike in everything are traced once.
        shapes: of the currents of each at one step, without the batch.

    Raises:
        ZooError: a `step` that fails, gives no spikes in the shape of its currents, or cannot be traced.
    """
    for layer in layers.values():
        layer.kernel = "reference"
    call = object()
    kinds = {name: _kind(layer, shapes[name], call) for name, layer in layers.items()}
    new: dict[Any, str] = {}
    for name, kind in kinds.items():
        if kind not in _KNOWN:
            new.setdefault(kind, name)
    if new:
        traced = _trace_layers([(name, layers[name], shapes[name]) for name in new.values()])
        _KNOWN.update(zip(new, traced, strict=True))
    return {name: _KNOWN[kind] for name, kind in kinds.items()}


_KNOWN: dict[Any, Dynamics] = {}
"""Traces of each kind of layer: the layers of a network are much alike, and so are networks."""


def _nodes(neurons: Dynamics) -> list[NodeProto]:
    return [node for piece in (neurons.first, *neurons.later) if piece is not None for node in piece.nodes]


def _kind(layer: SpikingNeuron, shape: tuple[int, ...], call: object) -> Any:
    """Returns what is equal for layers of one class and shape that are equal in every attribute, parameter and buffer;
    of a class of one's own, within one call: its code may call code that changes."""
    values = {**vars(layer), **dict(layer.named_parameters()), **dict(layer.named_buffers())}
    found = []
    for key, value in values.items():
        if isinstance(value, Tensor):
            value = (value.dtype, value.shape, value.numpy().tobytes())
        if "_hook" not in key and key not in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            found.append((key, type(value), value))
    own = not type(layer).__module__.startswith("zoo.")
    kind = (type(layer), shape, *found, *([call] if own else ()))
    try:
        hash(kind)
    except TypeError:  # something whose equality is not known
        return object()
    return object() if layer._modules else kind


_ELEMENTWISE = {
    *("Abs", "Add", "And", "Cast", "Ceil", "Clip", "Div", "Equal", "Exp", "Floor", "Greater", "GreaterOrEqual"),
    *("HardSigmoid", "Identity", "Less", "LessOrEqual", "Log", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow"),
    *("Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Softplus", "Sqrt", "Sub", "Sum", "Tanh", "Where", "Xor"),
}


def _trace_layers(layers: list[tuple[str, SpikingNeuron, tuple[int, ...]]]) -> list[Dynamics]:
    found: list[tuple[list[_Form], bool]] = []
    for i, (name, layer, shape) in enumerate(layers):
        try:
            found.append(_forms(i, layer, shape))
        except Exception as error:  # code of anyone's
            kind = type(layer).__name__
            raise ZooError(f"cannot export neuron layer {name!r}, {kind}: {one_line(error)}") from error
    pieces = iter(_trace([layer for _, layer, _ in layers], [form for forms, _ in found for form in forms]))
    return [
        _dynamics(layer, forms, [next(pieces) for _ in forms], alike)
        for (_, layer, _), (forms, alike) in zip(layers, found, strict=True)
    ]


def _tensors(leaves: Sequence[Any] | None) -> list[Tensor]:
    return [leaf for leaf in leaves or () if isinstance(leaf, Tensor)]


def _forms(i: int, layer: SpikingNeuron, shape: tuple[int, ...]) -> tuple[list[_Form], bool]:
    """Returns the forms of a layer, tried out in PyTorch: of each step, or of the first two where the others are alike;
    and whether all are alike, and a first step the second one from zeros."""
    if isinstance(layer, PSN):
        x = torch.zeros(layer.timesteps, _BATCH, *shape)
        return [_Form(i, x, None, None, [x.flatten(0, 1)])], False
    x = torch.randn(_BATCH, *shape, generator=torch.Generator().manual_seed(0)) * 2
    forms: list[_Form] = []
    leaves, spec, state = None, None, None
    for t in range(max(layer.timesteps, 2)):
        try:
            spikes, state = layer.step(x, state)
        except ZooError:
            if t < layer.timesteps:
                raise
            break  # a neuron that knows one step alone
        if not isinstance(spikes, Tensor) or (spikes.shape, spikes.dtype) != (x.shape, x.dtype):
            got = f"{spikes.dtype} {list(spikes.shape)}" if isinstance(spikes, Tensor) else type(spikes).__name__
            raise ZooError(f"its step gives {got} instead of spikes in the shape and type of currents {list(x.shape)}")
        before = leaves, spec
        leaves, spec = pytree.tree_flatten(state)
        forms.append(_Form(i, x, *before, [spikes, *_tensors(leaves)]))
    kinds = [(form.spec, [x.shape for x in _tensors(form.state)], _constants(form.state)) for form in forms[1:]]
    alike = all(kind == kinds[0] for kind in kinds)
    return (forms[:2], _starts_at_zero(layer, forms)) if alike else (forms, False)


def _starts_at_zero(layer: SpikingNeuron, forms: list[_Form]) -> bool:
    """Returns whether a first step is a later one from states of zeros."""
    first, *later = forms
    if not later:
        return False
    zeros = [torch.zeros_like(leaf) if isinstance(leaf, Tensor) else leaf for leaf in later[0].state or ()]
    spikes, state = layer.step(first.x, pytree.tree_unflatten(zeros, later[0].spec))
    leaves = pytree.tree_leaves(state)
    results = [spikes, *_tensors(leaves)]
    same = all(torch.equal(a, b) for a, b in zip(results, first.results, strict=True))
    return same and _constants(leaves) == _constants(later[0].state)


def _constants(leaves: Sequence[Any] | None) -> list[Any]:
    return [leaf for leaf in leaves or () if not isinstance(leaf, Tensor)]


def _trace(layers: list[SpikingNeuron], forms: list[_Form]) -> list[Piece]:
    """Returns the piece of each form."""
    states = [[state.clone() for state in _tensors(form.state)] for form in forms]
    rows = [{1: "batch"} if isinstance(layers[form.layer], PSN) else _ROW for form in forms]
    inner = [[_ROW if _batched(state) else None for state in given] for given in states]
    example = [form.x.clone() for form in forms], states  # clones: the exporter takes one tensor for one input
    # PSN has matrices, no factors, and many nodes to merge.
    rewrite = all(isinstance(layer, PSN) for layer in layers)
    what = "the steps of its neurons"
    graph = trace(_Forms(layers, forms), example, (rows, inner), what=what, rewrite=rewrite).graph
    currents = iter([value.name for value in graph.input][: len(forms)])
    given = iter([value.name for value in graph.input][len(forms) :])
    results = iter([value.name for value in graph.output])
    constants = {tensor.name: tensor for tensor in graph.initializer}
    pieces = []
    for form, state in zip(forms, states, strict=True):
        inputs, outputs = [next(currents), *(next(given) for _ in state)], [next(results) for _ in form.results]
        pieces.append(_relabelled(cut(inputs, outputs, graph.node, constants)))
    return pieces


def _dynamics(layer: SpikingNeuron, forms: list[_Form], pieces: list[Piece], alike: bool) -> Dynamics:
    kind, (first, *later) = type(layer).__name__, pieces
    if isinstance(layer, PSN):
        return Dynamics(None, [], first, None, [], kind)
    states = [
        State(tuple(s.shape[_batched(s) :]), _batched(s), onnx.helper.np_dtype_to_tensor_dtype(s.numpy().dtype))
        for s in forms[0].results[1:]
    ]
    return Dynamics(first, later, None, later[0] if alike else None, states, kind)


def _batched(state: Tensor) -> bool:
    return state.dim() > 0 and state.shape[0] == _BATCH


def _relabelled(piece: Piece) -> Piece:
    """Returns the same piece, each value named after its operation and place: equal pieces have equal names."""
    names = {name: f"input_{i}" for i, name in enumerate(piece.inputs)}
    read = [name for node in piece.nodes for name in node.input] + piece.outputs
    constants = [name for name in dict.fromkeys(read) if name in piece.constants]
    names |= {name: f"constant_{i}" for i, name in enumerate(constants)}
    nodes, seen = [], Counter[str]()
    for node in piece.nodes:
        kind = node.op_type.lower()
        for name in node.output:
            seen[kind] += 1
            names[name] = f"{kind}_{seen[kind]}" if name else ""
        nodes.append(renamed(node, names, ""))
    inputs, outputs = ([names[name] for name in values] for values in (piece.inputs, piece.outputs))
    return Piece(inputs, outputs, nodes, {names[name]: piece.constants[name] for name in constants})


def with_steep_spikes(network: Network) -> Network:
    """Returns the same network with the spikes' fast form."""
    neurons = {}
    for name, layer in network.neurons.items():
        shape = network.shapes[name]
        # A factor with an entry for each channel would give a smaller value, one of the whole layer, another shape.
        alike = all(state.batched and state.shape == shape for state in layer.states)
        factors = shape if alike and all(node.op_type in _ELEMENTWISE for node in _nodes(layer)) else ()
        first, any_step = (piece and steep_spikes(piece, factors) for piece in (layer.first, layer.any_step))
        later = [steep_spikes(piece, factors) for piece in layer.later]
        neurons[name] = layer._replace(first=first, later=later, any_step=any_step)
    return network._replace(neurons=neurons)


def steep(threshold: float) -> tuple[float, float] | None:
    """Returns alpha and beta of the HardSigmoid that is u >= threshold in float32; None where there is none."""
    threshold = float(np.float32(threshold))
    mantissa, exponent = math.frexp(threshold)
    if mantissa == 0.5:  # numbers below a power of two are closer to it than those above
        mantissa, exponent = 1.0, exponent - 1
    if threshold == 0 or not -100 < exponent < 100:
        return None
    return 2.0 ** (_MANTISSA - exponent), 1 - mantissa * 2**_MANTISSA


def steep_spikes(piece: Piece, shape: tuple[int, ...]) -> Piece:
    """Returns a step of neurons with spikes in their fast form; `shape` is that of its currents and states without the
    batch, () where not all have one: maps [C, H, W] have factors with an entry per channel."""
    made = {name: node for node in piece.nodes for name in node.output}
    constants = dict(piece.constants)
    floats = {name: t for name, t in constants.items() if t.data_type == TensorProto.FLOAT and math.prod(t.dims) == 1}
    scalars = {name: numpy_helper.to_array(t).item() for name, t in floats.items()}
    lines: dict[str, tuple[str, float, float]] = {}  # from a spike to what it is of, alpha and beta
    nodes: list[NodeProto] = []

    def times(value: str, factor: float, out: str) -> None:
        name = f"{out}/factor"
        entries = np.full((1, shape[0], 1, 1) if len(shape) == 3 else (), factor, np.float32)
        constants[name] = numpy_helper.from_array(entries, name)
        nodes.append(helper.make_node("Mul", [value, name], [out]))

    for node in piece.nodes:
        out = node.output[0]
        spike = _comparison(node, made, scalars)
        if spike is not None and (line := steep(spike[1])) is not None:
            lines[out] = (spike[0], *line)
            nodes.append(_hard_sigmoid(spike[0], out, *line))
            continue
        if node.op_type == "Sub" and node.input[1] in lines and scalars.get(node.input[0]) == 1:
            u, alpha, beta = lines[node.input[1]]  # 1 - spike
            nodes.append(_hard_sigmoid(u, out, -alpha, 1 - beta))
            continue
        if node.op_type == "Sub" and (product := _scaled(made.get(node.input[1]), scalars)) is not None:
            times(product[0], -product[1], f"{out}/negative")
            nodes.append(helper.make_node("Add", [node.input[0], f"{out}/negative"], [out]))
            continue
        if (product := _scaled(node, scalars)) is not None:
            times(*product, out)
            continue
        nodes.append(node)
    return cut(piece.inputs, piece.outputs, nodes, constants)


def _comparison(node: NodeProto, made: dict[str, NodeProto], scalars: dict[str, float]) -> tuple[str, float] | None:
    """Returns u and threshold of a spike, (u - threshold >= 0) or (u >= threshold) cast to float32; None if it is none.

    The two are the same in IEEE arithmetic, where only equal numbers differ by zero.
    """
    compared = made.get(node.input[0]) if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT else None
    if compared is None or compared.op_type != "GreaterOrEqual":
        return None
    u, threshold = compared.input[0], scalars.get(compared.input[1])
    difference = made.get(u)
    if threshold == 0 and difference is not None and difference.op_type == "Sub":
        u, threshold = difference.input[0], scalars.get(difference.input[1])
    return None if threshold is None else (u, threshold)


def _scaled(node: NodeProto | None, scalars: dict[str, float]) -> tuple[str, float] | None:
    """Returns a value and the number that it is multiplied by; None if the node does something else."""
    if node is None or node.op_type != "Mul":
        return None
    for value, factor in (node.input, reversed(node.input)):
        if factor in scalars and value not in scalars:
            return value, scalars[factor]
    return None


def _hard_sigmoid(u: str, out: str, alpha: float, beta: float) -> NodeProto:
    return helper.make_node("HardSigmoid", [u], [out], alpha=alpha, beta=beta)
