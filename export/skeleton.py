"""A network traced without its neurons: a placeholder node stands where each layer of them is.

Of a network at one time step, the skeleton is what every layout but one is made of: copied once a step for a flat
graph, kept as it is for a step or a loop. At all steps, folded into the batch, it has a neuron's name where it is.
"""

import copy
from typing import Any, NamedTuple

import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.neurons.base import input_current, repeat_steps
from zoo.neurons.norm import TEBN, is_per_step

from .assembly import Assembly, Piece, cut, needed, renamed
from .norms import add_norm, factor_and_shift
from .trace import trace

DOMAIN = "snnzoo"
NEURONS, FACTOR, NORM = "Neurons", "Factor", "Norm"
"""Placeholders: a layer of neurons; a factor that each time step has its own of (TEBN); a batch normalisation, which
this file resolves."""
LAYER = "layer"
"""Attribute of a placeholder: the name of the layer that it stands for."""


_LINEAR = ({"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}, 2)
"""Attributes and constants of the Gemm of a linear layer."""


class Skeleton(NamedTuple):
    """A network without its neurons."""

    piece: Piece
    """From "input" to "logits"; a placeholder's first output is named as its layer."""
    shapes: dict[str, tuple[int, ...]]
    """Of the currents of each layer of neurons, without the batch; in the order in which they run."""


class _Placeholder(nn.Module):
    """Takes the place of a layer in the copy of a network that is traced: one node."""

    def __init__(self, kind: str, name: str, timesteps: int, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.kind, self.name, self.timesteps, self.shapes = kind, name, timesteps, shapes

    def node(self, x: Tensor) -> Tensor:
        attributes: dict[str, Any] = {LAYER: self.name}
        return torch.onnx.ops.symbolic(
            f"{DOMAIN}::{self.kind}", (x,), attributes, dtype=x.dtype, shape=x.shape, version=1
        )


class _Neurons(_Placeholder):
    def forward(self, x: Tensor, *, norm: nn.Module | None = None, repeat: bool = False, **current: Any) -> Tensor:
        """As `SpikingNeuron.forward`, to a placeholder for the spikes."""
        if repeat and is_per_step(norm):
            x, repeat = repeat_steps(x, self.timesteps), False
        x = input_current(x, self.timesteps, norm, repeat=repeat, **current)
        self.shapes[self.name] = tuple(map(int, x.shape[1:]))
        return self.node(x)


class _Norm(_Placeholder):
    def __init__(self, name: str) -> None:
        super().__init__(NORM, name, 1, {})

    def forward(self, x: Tensor) -> Tensor:
        return self.node(x)


class _Factor(_Placeholder):
    def __init__(self, name: str, norm: TEBN) -> None:
        super().__init__(FACTOR, name, 1, {})
        self.bn = norm.bn

    def forward(self, x: Tensor) -> Tensor:
        return self.node(self.bn(x))


def inference_copy(model: nn.Module) -> nn.Module:
    """A deep copy on the CPU, in float32 and evaluation mode; the network itself stays as it is.

    Where encoding draws random numbers, the copy takes the encoder's spikes, event frames [B, T, C, H, W].

    Raises:
        ZooError: a batch normalisation of it has no statistics of its own.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is None:
            raise ZooError(f"cannot export {name}: without running statistics, it depends on the rest of the batch")
    network: Any = copy.deepcopy(model).cpu().float().eval()
    if getattr(network, "encoding", "direct") == "rate":
        network.encoding = "frames"
    return network


def trace_skeleton(
    network: Any, layers: list[str], size: tuple[int, ...], timesteps: int | None, *, fold_norms: bool = True
) -> Skeleton:
    """The skeleton of a network.

    Args:
        network: an `inference_copy`; it is used up.
        layers: names of its layers of neurons.
        size: of the input, without the batch.
        timesteps: T, if all steps are in the batch; None for a skeleton of one step, which takes what the first
            convolution sees in it.
        fold_norms: fold batch normalisation into the convolutions; otherwise see `export.norms`.

    Raises:
        ZooError: PyTorch's exporter fails, or a layer runs twice or never.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    norms: dict[str, nn.Module] = {}
    if not fold_norms:
        norms = {n: m for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for name in norms:
        network.set_submodule(name, _Norm(name))
    for name in layers:
        network.set_submodule(name, _Neurons(NEURONS, name, timesteps or 1, shapes))
    if timesteps is None:
        for name, norm in [(n, m) for n, m in network.named_modules() if isinstance(m, TEBN)]:
            network.set_submodule(name, _Factor(name, norm))
        for module in network.modules():
            for key in {"timesteps", "_timesteps"} & vars(module).keys():
                vars(module)[key] = 1
        if hasattr(network, "encoding"):
            network.encoding = "direct"  # one step of any encoding is an image
    example = (torch.zeros(2, *size),)
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"]}
    graph = trace(network, example, ({0: "batch"},), what=type(network).__name__, **names).graph
    piece = plain(cut(graph, ["input"], ["logits"]), ranks(graph), norms)
    ran = [layer_of(node) for node in piece.nodes if node.domain == DOMAIN and node.op_type == NEURONS]
    if twice := [name for name in ran if ran.count(name) > 1]:
        raise ZooError(f"cannot export a network that runs neuron layer {twice[0]!r} twice in one forward")
    if missing := [name for name in layers if name not in ran]:
        raise ZooError(f"cannot export a network whose forward leaves out neuron layers {', '.join(missing)}")
    return Skeleton(piece, {name: shapes[name] for name in ran})


def layer_of(node: Any) -> str:
    """The layer that a placeholder stands for."""
    return next(a.s.decode() for a in node.attribute if a.name == LAYER)


def ranks(graph: onnx.GraphProto) -> dict[str, int]:
    """Axes of each value whose shape the exporter noted."""
    return {value.name: len(value.type.tensor_type.shape.dim) for value in [*graph.input, *graph.value_info]}


def plain(piece: Piece, ranks: dict[str, int], norms: dict[str, nn.Module]) -> Piece:
    """The same with a convolution for each placeholder of one of `norms`; an affine map for each batch normalisation
    that no convolution in front could take in; and with MatMul and Add for Gemm, which ONNX Runtime's quantisation does
    not take in the middle of a graph."""
    g = Assembly()
    names = {name: name for name in piece.inputs}
    names |= {name: g.constant(name, value, shared=False) for name, value in piece.constants.items()}

    def affine(node: onnx.NodeProto, constants: list[Any]) -> None:
        eps = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        shape = [-1, *[1] * (ranks[node.input[0]] - 2)]
        factor, shift = factor_and_shift([numpy_helper.to_array(value) for value in constants], eps)
        out = names.setdefault(node.output[0], node.output[0])
        values = (("scale", factor.reshape(shape)), ("shift", shift.reshape(shape)))
        by = [g.constant(f"{out}/{name}", v, shared=False) for name, v in values]
        scaled = g.op("Mul", [names[node.input[0]], by[0]], f"{out}/scaled")
        g.op("Add", [scaled, by[1]], out)

    def product(node: onnx.NodeProto, weight: Any) -> None:
        out = names.setdefault(node.output[0], node.output[0])
        turned = g.constant(f"{node.input[1]}/transposed", numpy_helper.to_array(weight).T.copy(), shared=False)
        y = g.op("MatMul", [names[node.input[0]], turned], f"{out}/product")
        g.op("Add", [y, names[node.input[2]]], out)

    for node in piece.nodes:
        constants = [piece.constants.get(name) for name in node.input[1:]]
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if (node.domain, node.op_type) == (DOMAIN, NORM):
            out = names.setdefault(node.output[0], node.output[0])
            add_norm(g, layer_of(node), norms[layer_of(node)], names[node.input[0]], out)
        elif node.op_type == "BatchNormalization" and None not in constants:
            affine(node, constants)
        elif node.op_type == "Gemm" and None not in constants and (attributes, len(constants)) == _LINEAR:
            product(node, constants[0])
        else:
            g.nodes.append(renamed(node, names, ""))
    nodes = needed(g.nodes, piece.outputs)
    read = {name for node in nodes for name in node.input} | set(piece.outputs)
    return Piece(piece.inputs, piece.outputs, nodes, {n: t for n, t in g.constants.items() if n in read})
