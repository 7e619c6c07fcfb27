"""From a network of the zoo to its parts, traced by PyTorch's exporter, and to its ONNX graph."""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from zoo.checkpoint.weights import check_tensors
from zoo.errors import ZooError
from zoo.network import SpikingNetwork, check_registered, unwrapped
from zoo.neurons import PSN, SpikingNeuron
from zoo.neurons.base import input_current
from zoo.neurons.norm import TEBN

from .commands import check_layout
from .event import event_graph
from .graph import (
    DOMAIN,
    FACTOR,
    LAYER,
    NEURONS,
    SPIKES,
    Builder,
    Network,
    Piece,
    cut,
    is_placeholder,
    lay_out,
    layer_of,
    renamed,
    spike_convolutions,
)
from .neurons import trace_neurons, with_steep_spikes
from .trace import trace

_NORM = "Norm"
"""A placeholder of a batch normalisation, which `_standard` resolves."""
# Attributes and number of constants of the Gemm of a linear layer.
_LINEAR = ({"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}, 2)


def build_graph(model: nn.Module, layout: str = "flat", precision: str = "fp32") -> onnx.ModelProto:
    """Returns the graph of a network, batch dynamic: "input" [batch, C, H, W] to "logits" [batch, classes].

    Batch normalisation is a convolution behind the one that it normalises (see `_add_norm`). The metadata map neuron
    layers to their spikes. Layouts: see `export.graph`; "fp16": `store_in_half`; "int16": `export.event`; the graph in
    eight bits is made by `export.int8`.
    """
    check_layout(layout, precision)
    steps = layout in ("step", "loop")
    all_steps = any(isinstance(layer, PSN) for layer in model.modules())
    if all_steps and steps:
        raise ZooError(f"no layout {layout!r} for psn neurons, which take all steps at once: flat or function")
    all_steps = all_steps or layout == "function" or (precision == "int16" and not steps)
    network = take_apart(model, all_steps=all_steps, fold_norms=False)
    if precision == "int16":
        return event_graph(network, one_step=steps)
    if layout != "function":  # which is to be read, and has spikes as they are
        network = with_steep_spikes(network)
    proto = lay_out(network, layout, precision)
    if precision == "fp16":
        weights = dict.fromkeys(node.input[1] for node in spike_convolutions(network))
        store_in_half(proto, weights)
    return proto


def store_in_half(proto: onnx.ModelProto, weights: Iterable[str]) -> None:
    """Makes a graph one of fp16: stores these weights in half precision, and casts them to float32, to compute in.

    So a file has half the size, unless most of its weights are those of fully connected layers. A checkpoint of
    `weights: fp16` loses nothing: batch normalisation is not folded into them. Membrane potentials, thresholds and
    currents stay in float32, where a rounding would flip the decision to spike; so do the stem, whose rounding meets
    every image in full, and the classifier. ONNX Runtime casts the weights once, when it loads the file. To compute in
    half precision would be no gain on a CPU, whose provider casts all that a convolution reads and writes to float32
    and back; and for bfloat16 it has none.
    """
    known = {tensor.name: tensor for tensor in proto.graph.initializer}
    casts = []
    if not (weights := list(weights)):
        raise ZooError("no fp16: this network has no convolution over spikes with weights of its own")
    for name in weights:
        array = numpy_helper.to_array(known[name])
        if np.abs(array).max(initial=0) > np.finfo(np.float16).max:
            raise ZooError(f"no fp16: the weight {name} has numbers beyond half precision; take fp32")
        proto.graph.initializer.remove(known[name])
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float16), f"{name}/half"))
        casts.append(helper.make_node("Cast", [f"{name}/half"], [name], name, to=TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def exportable(model: nn.Module) -> SpikingNetwork:
    """Returns the network itself, out of what torch.compile, DataParallel ... put it into.

    Raises:
        ZooError: not a network of the zoo with a classifier and neurons.
    """
    check_registered(model := unwrapped(model))
    modules = model.named_modules(remove_duplicate=False)
    layers = {name: module for name, module in modules if isinstance(module, SpikingNeuron)}
    if not isinstance(model, SpikingNetwork) or not layers:
        raise ZooError(
            f"cannot export {type(model).__name__}: it is not a spiking network of the zoo, with neuron layers; build "
            "one with zoo.create_model or zoo.load_checkpoint"
        )
    if not model.num_classes:
        raise ZooError("cannot export a network without a classifier (num_classes 0): reset_classifier adds one")
    if SPIKES in layers:
        raise ZooError(f"cannot export a network with a neuron layer called {SPIKES!r}, as graphs call what it sends")
    if len({id(layer) for layer in layers.values()}) < len(layers):
        raise ZooError("cannot export a network that uses one neuron layer under two names: give each its own")
    return model


def inference_copy(model: nn.Module) -> nn.Module:
    """Returns a deep copy on the CPU, in float32 and evaluation mode; the network itself stays as it is.

    Where encoding draws random numbers, the copy takes the encoder's spikes, event frames [B, T, C, H, W].
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is None:
            raise ZooError(f"cannot export {name}: without running statistics, it depends on the rest of the batch")
    check_tensors("the network", model.state_dict())
    held = (value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor))
    computed = {id(value): value.detach().clone() for value in held if not value.is_leaf}
    network: Any = copy.deepcopy(model, computed).cpu().float().eval()
    for module in list(network.modules()):
        _make_weights_its_own(module)
    if network.encoding == "rate":
        network.encoding = "frames"
    return network


def _make_weights_its_own(module: Any) -> None:
    """Gives a layer the weights that pruning or a parametrisation computes for it, in place of what they are of."""
    for hook in list(module._forward_pre_hooks.values()):
        if isinstance(hook, prune.BasePruningMethod):
            prune.remove(module, hook._tensor_name)
    if parametrize.is_parametrized(module):  # its class is one of its own, which the network copied from has, too
        weights = {name: nn.Parameter(getattr(module, name).detach()) for name in module.parametrizations}
        module.__class__ = parametrize.type_before_parametrizations(module)
        del module.parametrizations
        for name, weight in weights.items():
            setattr(module, name, weight)


def take_apart(model: nn.Module, *, all_steps: bool, fold_norms: bool = True) -> Network:
    """Returns the parts of a network, which stays as it is.

    Args:
        all_steps: the operations are those of all steps, folded into the batch; otherwise those of one step, which
            takes what the first convolution sees in it.
        fold_norms: fold batch normalisation into the convolutions; otherwise it is a convolution, see `_add_norm`.
    """
    network: Any = inference_copy(exportable(model))
    steps, encoding, size = network.timesteps, network.encoding, tuple(network.pretrained_cfg["input_size"])
    example = torch.zeros(2, *(network.input_shape if all_steps else size))
    layers = {name: module for name, module in network.named_modules() if isinstance(module, SpikingNeuron)}
    per_step = {name: norm for name, norm in network.named_modules() if isinstance(norm, TEBN)}
    norms: dict[str, nn.Module] = {}
    if not fold_norms:
        plain = nn.BatchNorm2d.forward  # of a class with one of its own, the trace tells what it computes
        maps = ((name, m) for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d))
        norms = {name: m for name, m in maps if type(m).forward is plain}
    shapes: dict[str, tuple[int, ...]] = {}
    for name in norms:
        network.set_submodule(name, _Placeholder(_NORM, name))
    for name in layers:
        network.set_submodule(name, _Neurons(name, steps if all_steps else 1, shapes))
    if not all_steps:
        for name, norm in per_step.items():
            network.set_submodule(name, _Placeholder(FACTOR, name, norm.bn))
        for module in network.modules():
            for key in {"timesteps", "_timesteps"} & vars(module).keys():
                vars(module)[key] = 1
        network.encoding = "direct"  # one step of any encoding is an image
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"]}
    graph = trace(network, (example,), ({0: "batch"},), what=type(network).__name__, **names).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    values = [*graph.input, *graph.value_info]
    forms = {value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim) for value in values}
    piece = _standard(cut(["input"], ["logits"], graph.node, constants), forms, norms)
    ran = [layer_of(node) for node in piece.nodes if is_placeholder(node, NEURONS)]
    if twice := [name for name in ran if ran.count(name) > 1]:
        raise ZooError(f"cannot export a network that runs neuron layer {twice[0]!r} twice in one forward")
    if missing := [name for name in layers if name not in ran]:
        raise ZooError(f"cannot export a network whose forward leaves out neuron layers {', '.join(missing)}")
    if (classes := graph.output[0].type.tensor_type.shape.dim[1].dim_value) != network.num_classes:
        found = f"it has {network.num_classes} classes, and its classifier gives {classes} numbers"
        raise ZooError(f"cannot export this network: {found}: reset_classifier(N) puts in one for N classes")
    shapes = {name: shapes[name] for name in ran}
    factors = {name: norm.p.detach().numpy() for name, norm in per_step.items()}
    dynamics = trace_neurons(layers, shapes)
    return Network(piece, shapes, dynamics, layers, factors, steps, encoding, size, classes, forms)


class _Placeholder(nn.Module):
    """Takes the place of a layer in the copy of a network that is traced: one node, behind another layer if need be."""

    def __init__(self, kind: str, name: str, before: nn.Module | None = None) -> None:
        super().__init__()
        self.kind, self.name, self.before = kind, name, before

    def forward(self, x: Tensor) -> Tensor:
        """Returns a symbolic node in the shape of its input."""
        x = x if self.before is None else self.before(x)
        about: dict[str, Any] = {LAYER: self.name}
        return torch.onnx.ops.symbolic(f"{DOMAIN}::{self.kind}", (x,), about, dtype=x.dtype, shape=x.shape, version=1)


class _Neurons(_Placeholder):
    def __init__(self, name: str, timesteps: int, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__(NEURONS, name)
        self.timesteps, self.shapes = timesteps, shapes

    def forward(self, x: Tensor, **current: Any) -> Tensor:
        """Does what `SpikingNeuron.forward` does up to the currents, and returns a placeholder for the spikes."""
        x = input_current(x, self.timesteps, **current)
        self.shapes[self.name] = tuple(map(int, x.shape[1:]))
        return super().forward(x)


def _standard(piece: Piece, forms: dict[str, tuple[int, ...]], norms: dict[str, nn.Module]) -> Piece:
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
        if is_placeholder(node, _NORM):
            _add_norm(g, layer_of(node), norms[layer_of(node)], x, out)
        elif node.op_type == "BatchNormalization" and known:
            shape = [-1, *[1] * (len(forms[node.input[0]]) - 2)]
            factor, shift = factor_and_shift(arrays, attributes.get("epsilon", 1e-5))
            values = (("scale", factor.reshape(shape)), ("shift", shift.reshape(shape)))
            scale, shifted = (g.constant(f"{out}/{name}", value, shared=False) for name, value in values)
            g.op("Add", [g.op("Mul", [x, scale], f"{out}/scaled"), shifted], out)
        elif node.op_type == "Gemm" and known and (attributes, len(constants)) == _LINEAR:
            turned = g.constant(f"{node.input[1]}/transposed", arrays[0].T.copy(), shared=False)
            g.op("Add", [g.op("MatMul", [x, turned], f"{out}/product"), names[node.input[2]]], out)
        else:
            g.nodes.append(renamed(node, names, ""))
    return cut(piece.inputs, piece.outputs, g.nodes, g.constants)


def factor_and_shift(constants: Sequence[NDArray[Any]], eps: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns batch normalisation in evaluation mode as x * factor + shift, with PyTorch's rounding of both;
    `constants` are weight, bias, running mean and running variance, [C] each."""
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
