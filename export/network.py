"""A network taken apart for export: its operations, with a placeholder for each layer of neurons, and the neurons.

Every graph is made of these parts. Of one time step, the operations are copied once a step for a flat graph, kept as
they are for a step or a loop; of all steps, folded into the batch, they are the graph of layout `function`, with a call
where each placeholder is, and what int8 rewrites.
"""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.network import SpikingNetwork, check_registered
from zoo.neurons import PSN, SpikingNeuron
from zoo.neurons.base import input_current, repeat_steps
from zoo.neurons.norm import TEBN, is_per_step

from .neurons import Dynamics, trace_neurons
from .pieces import Builder, Piece, cut, needed, renamed
from .trace import trace

DOMAIN = "snnzoo"
NEURONS, FACTOR, NORM = "Neurons", "Factor", "Norm"
"""Placeholders: a layer of neurons; a factor that each time step has its own of (TEBN); a batch normalisation, which
`_standard` resolves."""
SPIKES = "spikes"
"""A layer's are LAYER/spikes in a graph, their count spikes/LAYER."""
MOST = 128
"""Largest whole number that a convolution over bytes takes: the sum of two products fits sixteen bits, which processors
without instructions of their own for it have."""
_LAYER = "layer"
# Attributes and number of constants of the Gemm of a linear layer.
_LINEAR = ({"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}, 2)


class Network(NamedTuple):
    """The parts of a network."""

    piece: Piece
    """From "input" to "logits"; a placeholder's first output is named as its layer."""
    shapes: dict[str, tuple[int, ...]]
    """The shapes of the currents of each layer of neurons, without the batch; in the order in which they run."""
    neurons: dict[str, Dynamics]
    factors: dict[str, NDArray[Any]]
    """[T] of each normalisation that has a factor for every step."""
    timesteps: int
    encoding: str
    size: tuple[int, ...]
    """Channels, height, width of one step's input."""
    classes: int

    def with_steep_spikes(self) -> "Network":
        """Returns the same with the spikes' fast form; see `export.neurons`."""
        return self._replace(neurons={name: n.steep(self.shapes[name]) for name, n in self.neurons.items()})


class Current(NamedTuple):
    """A summand of the currents of a layer of neurons: what kernels over spikes compute together with the neurons."""

    value: str
    convolution: onnx.NodeProto | None
    """The convolution over whole numbers, with weights of its own, that it is of."""
    norm: onnx.NodeProto | None
    """The normalisation behind it, where that is not folded into the weights; see `_add_norm`."""


def neuron_layers(model: nn.Module) -> dict[str, SpikingNeuron]:
    """Returns the neuron layers of a network by name, in the order of `named_modules`.

    Raises:
        ZooError: not a network of the zoo with a classifier and neurons.
    """
    check_registered(model)
    modules = model.named_modules(remove_duplicate=False)
    layers = {name: module for name, module in modules if isinstance(module, SpikingNeuron)}
    if not layers or not isinstance(getattr(model, "pretrained_cfg", None), dict):
        raise ZooError(
            f"cannot export {type(model).__name__}: it is not a spiking network of the zoo, with neuron layers and a "
            "pretrained_cfg; build one with zoo.create_model or zoo.load_checkpoint"
        )
    if not getattr(model, "num_classes", 0):
        raise ZooError("cannot export a network without a classifier (num_classes 0): reset_classifier adds one")
    if isinstance(model, SpikingNetwork):
        _check_classifier(model)
    if SPIKES in layers:
        raise ZooError(f"cannot export a network with a neuron layer called {SPIKES!r}, as graphs call what it sends")
    if unprintable := [name for name in layers if not name.isprintable()]:
        raise ZooError(f"cannot export a network with a neuron layer called {unprintable[0]!r:.100}: no printable name")
    if len({id(layer) for layer in layers.values()}) < len(layers):
        raise ZooError("cannot export a network that uses one neuron layer under two names: give each its own")
    return layers


def _check_classifier(model: SpikingNetwork) -> None:
    with torch.device("meta"):
        own = getattr(model.make_classifier(model.head_hidden_size), "out_features", None)
    if (outputs := getattr(model.fc, "out_features", own)) != own:
        found = f"its classifier has {outputs} outputs, one of {model.num_classes} classes has {own}"
        raise ZooError(f"cannot export this network: {found}: reset_classifier(N) puts in one for N classes")


def time_steps(model: nn.Module) -> int:
    """Returns how many time steps the layers of neurons of a network take."""
    return next(iter(neuron_layers(model).values())).timesteps


def input_size(model: nn.Module) -> tuple[int, int, int]:
    """Returns channels, height and width of a network's images."""
    size = tuple(model.pretrained_cfg.get("input_size") or ())  # type: ignore[operator, union-attr]
    if len(size) != 3:
        raise ZooError(f"pretrained_cfg['input_size'] must be (channels, height, width), not {size}")
    return size


def network_input(model: nn.Module) -> tuple[int, ...]:
    """Returns the shape of what the network takes in all steps, without the batch."""
    shape = input_shape(getattr(model, "encoding", "direct"), input_size(model), time_steps(model))
    return tuple(map(int, shape))


def input_shape(encoding: str, size: tuple[int, ...], timesteps: int | str) -> tuple[int | str, ...]:
    """Returns the shape of the input of all steps, without the batch: frames where the encoding needs them.

    Rate encoding draws random numbers, which a graph does not: it takes the spikes that the encoder made, as frames.
    """
    return (timesteps, *size) if encoding in ("frames", "rate") else size


def needs_all_steps(model: nn.Module) -> bool:
    """Returns whether a layer of neurons takes no single steps."""
    return any(isinstance(layer, PSN) for layer in neuron_layers(model).values())


def inference_copy(model: nn.Module) -> nn.Module:
    """Returns a deep copy on the CPU, in float32 and evaluation mode; the network itself stays as it is.

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


def take_apart(model: nn.Module, *, all_steps: bool, fold_norms: bool = True) -> Network:
    """Returns the parts of a network, which stays as it is.

    Args:
        model: a network of the zoo.
        all_steps: the operations are those of all steps, folded into the batch; otherwise those of one step, which
            takes what the first convolution sees in it.
        fold_norms: fold batch normalisation into the convolutions; otherwise it is a convolution, see `_add_norm`.

    Raises:
        ZooError: a network that cannot be exported.
    """
    layers, size, steps = neuron_layers(model), input_size(model), time_steps(model)
    encoding = getattr(model, "encoding", "direct")
    network: Any = inference_copy(model)
    neurons: dict[str, Any] = {name: network.get_submodule(name) for name in layers}
    per_step = {name: norm for name, norm in network.named_modules() if isinstance(norm, TEBN)}
    norms: dict[str, nn.Module] = {}
    if not fold_norms:
        norms = {n: m for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    shapes: dict[str, tuple[int, ...]] = {}
    for name in norms:
        network.set_submodule(name, _Placeholder(NORM, name))
    for name in layers:
        network.set_submodule(name, _Neurons(name, steps if all_steps else 1, shapes))
    if not all_steps:
        for name, norm in per_step.items():
            network.set_submodule(name, _Placeholder(FACTOR, name, norm.bn))
        for module in network.modules():
            for key in {"timesteps", "_timesteps"} & vars(module).keys():
                vars(module)[key] = 1
        if hasattr(network, "encoding"):
            network.encoding = "direct"  # one step of any encoding is an image
    example = (torch.zeros(2, *(network_input(model) if all_steps else size)),)
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"]}
    graph = trace(network, example, ({0: "batch"},), what=type(network).__name__, **names).graph
    piece = _standard(cut(graph, ["input"], ["logits"]), _ranks(graph), norms)
    ran = [layer_of(node) for node in piece.nodes if is_placeholder(node, NEURONS)]
    if twice := [name for name in ran if ran.count(name) > 1]:
        raise ZooError(f"cannot export a network that runs neuron layer {twice[0]!r} twice in one forward")
    if missing := [name for name in layers if name not in ran]:
        raise ZooError(f"cannot export a network whose forward leaves out neuron layers {', '.join(missing)}")
    shapes = {name: shapes[name] for name in ran}
    factors = {name: norm.p.detach().numpy() for name, norm in per_step.items()}
    classes: Any = model.num_classes
    return Network(piece, shapes, trace_neurons(neurons, shapes), factors, steps, encoding, size, classes)


class _Placeholder(nn.Module):
    """Takes the place of a layer in the copy of a network that is traced: one node, behind another layer if need be."""

    def __init__(self, kind: str, name: str, before: nn.Module | None = None) -> None:
        super().__init__()
        self.kind, self.name, self.before = kind, name, before

    def forward(self, x: Tensor) -> Tensor:
        """Returns a symbolic node in the shape of its input."""
        x = x if self.before is None else self.before(x)
        about: dict[str, Any] = {_LAYER: self.name}
        return torch.onnx.ops.symbolic(f"{DOMAIN}::{self.kind}", (x,), about, dtype=x.dtype, shape=x.shape, version=1)


class _Neurons(_Placeholder):
    def __init__(self, name: str, timesteps: int, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__(NEURONS, name)
        self.timesteps, self.shapes = timesteps, shapes

    def forward(self, x: Tensor, *, norm: nn.Module | None = None, repeat: bool = False, **current: Any) -> Tensor:
        """Does what `SpikingNeuron.forward` does up to the currents, and returns a placeholder for the spikes."""
        if repeat and is_per_step(norm):
            x, repeat = repeat_steps(x, self.timesteps), False
        x = input_current(x, self.timesteps, norm, repeat=repeat, **current)
        self.shapes[self.name] = tuple(map(int, x.shape[1:]))
        return super().forward(x)


def is_placeholder(node: onnx.NodeProto, kind: str) -> bool:
    """Returns whether a node is a placeholder of this kind."""
    return node.domain == DOMAIN and node.op_type == kind


def layer_of(node: onnx.NodeProto) -> str:
    """Returns the layer that a placeholder stands for."""
    return next(a.s.decode() for a in node.attribute if a.name == _LAYER)


def _ranks(graph: onnx.GraphProto) -> dict[str, int]:
    """Returns the number of axes of each value whose shape the exporter noted."""
    return {value.name: len(value.type.tensor_type.shape.dim) for value in [*graph.input, *graph.value_info]}


def _standard(piece: Piece, ranks: dict[str, int], norms: dict[str, nn.Module]) -> Piece:
    """Returns the same with a convolution for each placeholder of one of `norms`; an affine map for each batch
    normalisation that no convolution in front could take in; and with MatMul and Add for Gemm, which ONNX Runtime's
    quantisation does not take in the middle of a graph."""
    g = Builder()
    names = {name: name for name in piece.inputs}
    names |= {name: g.constant(name, value, shared=False) for name, value in piece.constants.items()}
    for node in piece.nodes:
        constants = [piece.constants.get(name) for name in node.input[1:]]
        arrays = [numpy_helper.to_array(value) for value in constants if value is not None]
        known = len(arrays) == len(constants)
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        out = names.setdefault(node.output[0], node.output[0])
        x = names.get(node.input[0], "") if node.input else ""
        if is_placeholder(node, NORM):
            _add_norm(g, layer_of(node), norms[layer_of(node)], x, out)
        elif node.op_type == "BatchNormalization" and known:
            shape = [-1, *[1] * (ranks[node.input[0]] - 2)]
            factor, shift = factor_and_shift(arrays, attributes.get("epsilon", 1e-5))
            values = (("scale", factor.reshape(shape)), ("shift", shift.reshape(shape)))
            scale, shifted = (g.constant(f"{out}/{name}", value, shared=False) for name, value in values)
            g.op("Add", [g.op("Mul", [x, scale], f"{out}/scaled"), shifted], out)
        elif node.op_type == "Gemm" and known and (attributes, len(constants)) == _LINEAR:
            turned = g.constant(f"{node.input[1]}/transposed", arrays[0].T.copy(), shared=False)
            g.op("Add", [g.op("MatMul", [x, turned], f"{out}/product"), names[node.input[2]]], out)
        else:
            g.nodes.append(renamed(node, names, ""))
    nodes = needed(g.nodes, piece.outputs)
    read = {name for node in nodes for name in node.input} | set(piece.outputs)
    return Piece(piece.inputs, piece.outputs, nodes, {n: t for n, t in g.constants.items() if n in read})


def factor_and_shift(constants: Sequence[NDArray[Any]], eps: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns batch normalisation in evaluation mode as x * factor + shift, with PyTorch's rounding of both.

    Args:
        constants: weight, bias, running mean, running variance, [C] each.
        eps: is added to the variance.
    """
    weight, bias, mean, var = (np.asarray(value, np.float32) for value in constants)
    factor = weight * (np.float32(1) / np.sqrt(var + np.float32(eps)))
    shift = bias.astype(np.float64) - mean.astype(np.float64) * factor.astype(np.float64)
    return factor.astype(np.float32), shift.astype(np.float32)


def _add_norm(g: Builder, name: str, norm: Any, x: str, out: str) -> None:
    """Appends a BatchNorm2d in evaluation mode as a convolution of one weight for each channel.

    A convolution over spikes adds up weights, and weights of eleven bits (`weights: fp16`) add up with hardly a
    rounding: on both sides of an export nearly always the same current. Folded into the weights, the factor of a
    normalisation gives them 24 bits, every sum is rounded, each program rounds in its own order, and where that crosses
    a threshold spikes differ, and those make others. ONNX Runtime folds what is written as BatchNormalization, or as
    Mul and Add, when it loads a file; a convolution it leaves where it is, in the layout of the one in front, with sum
    and spike fused into it. It costs small networks some percent of their time (export/reports/forms.json).
    """
    channels = norm.num_features
    weight, bias = (norm.weight, norm.bias) if norm.affine else (torch.ones(channels), torch.zeros(channels))
    values = [value.detach().numpy() for value in (weight, bias, norm.running_mean, norm.running_var)]
    factor, shift = factor_and_shift(values, norm.eps)
    by = (("factor", factor.reshape(-1, 1, 1, 1)), ("shift", shift))
    constants = [g.constant(f"{name}/{what}", value, shared=False) for what, value in by]
    g.op("Conv", [x, *constants], out, kernel_shape=[1, 1], group=channels)


def currents_of(network: Network) -> dict[str, list[Current]]:
    """Returns the summands of the currents of each layer of neurons: convolutions, their normalisations, shortcuts, as
    far as nothing else reads the sums between them."""
    nodes, constants = network.piece.nodes, network.piece.constants
    made_by = {name: node for node in nodes for name in node.output}
    convolutions = {node.output[0]: node for node in spike_convolutions(network)}
    read = Counter([*(name for node in nodes for name in node.input), *network.piece.outputs])

    def summands(value: str) -> list[Current]:
        node = made_by.get(value)
        if node is not None and node.op_type == "Add" and read[value] == 1 and not constants.keys() & set(node.input):
            return [summand for name in node.input for summand in summands(name)]
        if node is not None and node.op_type == "Conv" and node.input[1].endswith("/factor"):
            return [Current(value, convolutions.get(node.input[0]), node)]
        return [Current(value, convolutions.get(value), None)]

    return {layer_of(node): summands(node.input[0]) for node in nodes if is_placeholder(node, NEURONS)}


def spike_convolutions(network: Network) -> list[onnx.NodeProto]:
    """Returns the convolutions over whole numbers with weights of their own, of sequences, too."""
    found, limits = [], dict[str, int]()
    for node in network.piece.nodes:
        limit = whole(node, limits)
        if limit is not None:
            limits[node.output[0]] = limit
        if node.op_type == "Conv" and node.input[0] in limits and node.input[1] in network.piece.constants:
            found.append(node)
    return found


def whole(node: onnx.NodeProto, limits: Mapping[str, int]) -> int | None:
    """Returns the largest number that a node gives, if it gives whole numbers from 0 on, and few enough: spikes, their
    sums and their maxima. `limits` has those of its inputs."""
    if node.domain == DOMAIN:
        return 1 if node.op_type == NEURONS else None
    known = [limits.get(name) for name in node.input if name]
    if not known or None in known[: 2 if node.op_type == "Add" else 1]:
        return None
    if node.op_type == "Add" and sum(known) <= MOST:  # type: ignore[arg-type]
        return sum(known)  # type: ignore[arg-type]
    return known[0] if node.op_type in ("MaxPool", "Identity") else None


def repeats(node: onnx.NodeProto, steps: int) -> bool:
    """Returns whether a node gives the currents of one image to every time step."""
    axis = next((a.i for a in node.attribute if a.name == "axis"), None)
    return node.op_type == "Concat" and axis == 0 and list(node.input) == [node.input[0]] * steps
