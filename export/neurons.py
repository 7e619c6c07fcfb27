"""Neurons in ONNX: the `step` of each layer, traced as it stands, so that a neuron of your own leaves like ours.

A step has two forms: the first, whose last state is None, and a later one, from currents and state tensors to spikes
and new state tensors. What a state holds beside tensors (GLIF counts its steps) is a constant of the form; where it
changes from step to step, each step has a form. PSN has no steps: it is one piece, over all steps at once.
"""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import onnx
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zoo.errors import ZooError, one_line
from zoo.neurons import PSN, SpikingNeuron

from .assembly import Piece, cut, merged, relabelled
from .trace import trace

_BATCH = 3
_ROW = {0: "batch"}


class State(NamedTuple):
    """A state tensor: its shape, without the batch axis if it has one, and its type in ONNX."""

    shape: tuple[int, ...]
    batched: bool
    dtype: int


class Dynamics(NamedTuple):
    """A layer of neurons in ONNX."""

    first: Piece | None
    """Currents to spikes and states; None where steps do not exist."""
    later: list[Piece]
    """Of steps 2, 3 ...: currents and states to spikes and states; a single one if all are alike."""
    whole: Piece | None
    """Currents [T*B, ...], given as [T, B, ...], to spikes, where steps do not exist."""
    any_step: Piece | None
    """Of any step, if states start at zero: currents, states and, unless steps are alike, the number of the step."""
    states: list[State]
    kind: str
    """The class of the layer."""

    @property
    def counts_steps(self) -> bool:
        """Whether `any_step` needs the number of the step."""
        return self.any_step is not None and len(self.any_step.inputs) > 1 + len(self.states)

    @property
    def elementwise(self) -> bool:
        """Whether each neuron is computed by itself, from scalars: then the shape of the currents plays no part."""
        pieces = [piece for piece in (self.first, *self.later) if piece is not None]
        nodes = all(node.op_type in _ELEMENTWISE for piece in pieces for node in piece.nodes)
        return bool(pieces) and nodes and all(not t.dims for piece in pieces for t in piece.constants.values())

    def step(self, t: int) -> Piece:
        """The form of the step that follows `t` others."""
        assert self.first is not None
        return self.first if t == 0 else self.later[min(t, len(self.later)) - 1]


class _Form(NamedTuple):
    """One form of one layer: what is traced."""

    layer: int
    x: Tensor
    state: list[Any] | None
    """Its leaves, examples of tensors among them; None for the first step."""
    spec: Any
    results: list[Tensor]
    """Examples of the outputs."""
    zero: bool = False
    """Of a first step, from states of zeros."""


class _Forms(nn.Module):
    """All forms of all layers in one module: one trace instead of many."""

    def __init__(self, layers: Sequence[SpikingNeuron], forms: Sequence[_Form]) -> None:
        super().__init__()
        self.layers, self.forms = nn.ModuleList(layers), forms

    def forward(self, currents: list[Tensor], states: list[list[Tensor]]) -> list[list[Tensor]]:
        outputs = []
        for form, x, tensors in zip(self.forms, currents, states, strict=True):
            layer: Any = self.layers[form.layer]
            outputs.append([layer(x.flatten(0, 1))] if isinstance(layer, PSN) else _step(layer, x, tensors, form))
        return outputs


def _step(layer: SpikingNeuron, x: Tensor, tensors: Sequence[Tensor], form: _Form) -> list[Tensor]:
    given = iter(tensors)
    leaves = form.state and [next(given) if isinstance(leaf, Tensor) else leaf for leaf in form.state]
    spikes, new = layer.step(x, None if leaves is None else pytree.tree_unflatten(leaves, form.spec))
    return [spikes, *_tensors(pytree.tree_leaves(new))]


@torch.no_grad()
def trace_neurons(layers: dict[str, SpikingNeuron], shapes: dict[str, tuple[int, ...]]) -> dict[str, Dynamics]:
    """Each layer in ONNX.

    Args:
        layers: on the CPU, in float32; layers that are alike in everything are traced once.
        shapes: of the currents of each at one step, without the batch.

    Raises:
        ZooError: a `step` that fails, gives no spikes in the shape of its currents, or cannot be traced.
    """
    found: dict[str, Dynamics] = {}
    for layer in layers.values():
        layer.kernel = "reference"
    while left := [name for name in layers if name not in found]:
        new: list[tuple[str, SpikingNeuron, tuple[int, ...]]] = []
        for name in left:
            layer, shape = layers[name], shapes[name]
            if (known := next((k for k in _KNOWN if k.fits(layer, shape)), None)) is not None:
                found[name] = known.of_shape(shape)
            elif not any(are_alike(layer, other) for _, other, _ in new):
                new.append((name, layer, shape))
        if new:  # of what differs in shape alone, the second waits: perhaps the first one's trace is its own, too
            for (name, layer, shape), dynamics in zip(new, _trace_layers(new), strict=True):
                found[name] = dynamics
                _KNOWN.append(_Known(copy.deepcopy(layer), shape, dynamics))
    del _KNOWN[:-_REMEMBERED]
    return {name: found[name] for name in layers}


class _Known(NamedTuple):
    layer: SpikingNeuron
    shape: tuple[int, ...]
    dynamics: Dynamics

    def fits(self, layer: SpikingNeuron, shape: tuple[int, ...]) -> bool:
        """Whether this is the trace of another layer, too: they are alike, and shapes are equal or play no part."""
        return (self.shape == shape or self.dynamics.elementwise) and are_alike(self.layer, layer)

    def of_shape(self, shape: tuple[int, ...]) -> Dynamics:
        """The dynamics for currents of that shape."""
        states = [s._replace(shape=shape) if s.shape == self.shape else s for s in self.dynamics.states]
        return self.dynamics._replace(states=states)


_KNOWN: list[_Known] = []
"""The last traces: the layers of a network are much alike, and so are networks."""
_REMEMBERED = 256
_ELEMENTWISE = {
    *("Abs", "Add", "And", "Cast", "Ceil", "Clip", "Div", "Equal", "Exp", "Floor", "Greater", "GreaterOrEqual"),
    *("HardSigmoid", "Identity", "Less", "LessOrEqual", "Log", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow"),
    *("Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Softplus", "Sqrt", "Sub", "Sum", "Tanh", "Where", "Xor"),
}


def _trace_layers(layers: list[tuple[str, SpikingNeuron, tuple[int, ...]]]) -> list[Dynamics]:
    forms: list[_Form] = []
    for i, (name, layer, shape) in enumerate(layers):
        try:
            forms += _forms(i, layer, shape)
        except Exception as error:  # code of anyone's
            kind = type(layer).__name__
            raise ZooError(f"cannot export neuron layer {name!r}, {kind}: {one_line(error)}") from error
    pieces = list(zip(forms, _trace([layer for _, layer, _ in layers], forms), strict=True))
    return [_dynamics(layer, [p for p in pieces if p[0].layer == i]) for i, (_, layer, _) in enumerate(layers)]


def are_alike(layer: SpikingNeuron, other: SpikingNeuron) -> bool:
    """Whether two layers are of one class and equal in every attribute, parameter and buffer."""
    if type(layer) is not type(other):
        return False
    mine, theirs = ({**vars(x), **dict(x.named_parameters()), **dict(x.named_buffers())} for x in (layer, other))
    hidden = {"_parameters", "_buffers", "_modules"} | {key for key in mine if "_hook" in key}
    if mine.keys() != theirs.keys() or layer._modules:
        return False
    return all(_equal(value, theirs[key]) for key, value in mine.items() if key not in hidden)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    plain = (int, float, str, bool, tuple, frozenset, set, type(None), torch.dtype)
    return a is b or (isinstance(a, plain) and type(a) is type(b) and a == b)


def _tensors(leaves: Sequence[Any] | None) -> list[Tensor]:
    return [leaf for leaf in leaves or () if isinstance(leaf, Tensor)]


def _forms(i: int, layer: SpikingNeuron, shape: tuple[int, ...]) -> list[_Form]:
    """The forms of a layer, tried out in PyTorch: of each step, or of the first two where the others are alike; and, if
    its states start at zero, the one of a first step from zeros."""
    if isinstance(layer, PSN):
        x = torch.zeros(layer.timesteps, _BATCH, *shape)
        return [_Form(i, x, None, None, [x.flatten(0, 1)])]
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
    constants = [_constants(form.state) for form in forms[1:]]
    zero = _from_zeros(layer, forms, leaves)
    alike = all(values == constants[0] for values in constants)
    return [*(forms[:2] if alike else forms), *zero]


def _from_zeros(layer: SpikingNeuron, forms: list[_Form], last: Sequence[Any] | None) -> list[_Form]:
    """The form of a first step whose states are zeros, if it does what the first form does; else none. `last` is the
    state after all forms."""
    first, *others = forms
    if not others:
        return []
    leaves = [torch.zeros_like(leaf) if isinstance(leaf, Tensor) else leaf for leaf in others[0].state or ()]
    # A counter of steps counts on from one before.
    pairs = zip(leaves, (others[1].state if len(others) > 1 else last) or (), strict=True)
    counts = [(a, b) if type(a) is int and type(b) is int else (a, a) for a, b in pairs]
    leaves = [a if isinstance(a, Tensor) else a if a is b else 2 * a - b for a, b in counts]
    spikes, state = layer.step(first.x, pytree.tree_unflatten(leaves, others[0].spec))
    results = [spikes, *_tensors(pytree.tree_leaves(state))]
    same = all(torch.equal(a, b) for a, b in zip(results, first.results, strict=True))
    same = same and _constants(pytree.tree_leaves(state)) == _constants(others[0].state)
    return [_Form(first.layer, first.x, leaves, others[0].spec, results, zero=True)] if same else []


def _constants(leaves: Sequence[Any] | None) -> list[Any]:
    return [leaf for leaf in leaves or () if not isinstance(leaf, Tensor)]


def _trace(layers: list[SpikingNeuron], forms: list[_Form]) -> list[Piece]:
    """The piece of each form."""
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
    return [
        relabelled(cut(graph, [next(currents), *(next(given) for _ in state)], [next(results) for _ in form.results]))
        for form, state in zip(forms, states, strict=True)
    ]


def _dynamics(layer: SpikingNeuron, traced: list[tuple[_Form, Piece]]) -> Dynamics:
    kind = type(layer).__name__
    (form, first), *later = [(form, piece) for form, piece in traced if not form.zero]
    if isinstance(layer, PSN):
        return Dynamics(None, [], first, None, [], kind)
    states = [
        State(tuple(s.shape[_batched(s) :]), _batched(s), onnx.helper.np_dtype_to_tensor_dtype(s.numpy().dtype))
        for s in form.results[1:]
    ]
    forms = [piece for _, piece in later]
    zero = [(form, piece) for form, piece in traced if form.zero]
    any_step = None
    if zero:
        alike = all(_constants(form.state) == _constants(zero[0][0].state) for form, _ in later)
        any_step = forms[0] if alike else merged([zero[0][1], *forms])
    return Dynamics(first, forms, None, any_step, states, kind)


def _batched(state: Tensor) -> bool:
    return state.dim() > 0 and state.shape[0] == _BATCH
