"""From a network of the zoo to its time-unrolled ONNX graph.

A copy of the network is traced with a placeholder for each neuron layer; the placeholders' function is then inlined.
What comes out uses standard operators only, computes everything in one run, and keeps no state between runs.
"""

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes import Sequential
from onnx_ir.passes import common as passes
from torch import nn

from zoo.errors import ZooError
from zoo.neurons import LIF, SpikingNeuron

from .functions import DOMAIN, LAYER, OPSET, LIFPlaceholder, kind_of, lif_function

IR_VERSION = 10
SPIKE_VALUES = "spike_values"
"""Metadata key: JSON map from a neuron layer to the value in the graph that holds its spikes [T*B, ...]."""


def neuron_layers(model: nn.Module) -> dict[str, LIF]:
    """The neuron layers of a network by name, in the order of `named_modules`.

    Raises:
        ZooError: not a network of the zoo with a classifier and neurons that ONNX export knows.
    """
    modules = model.named_modules(remove_duplicate=False)
    layers: dict[str, Any] = {name: module for name, module in modules if isinstance(module, SpikingNeuron)}
    if not layers or not isinstance(getattr(model, "pretrained_cfg", None), dict):
        raise ZooError(
            f"cannot export {type(model).__name__}: it is not a spiking network of the zoo, with neuron layers and a "
            "pretrained_cfg; build one with zoo.create_model or zoo.load_checkpoint"
        )
    if not getattr(model, "num_classes", 0):
        raise ZooError("cannot export a network without a classifier (num_classes 0): reset_classifier adds one")
    if len({id(layer) for layer in layers.values()}) < len(layers):
        raise ZooError("cannot export a network that uses one neuron layer under two names: give each its own")
    for name, layer in layers.items():
        if not (isinstance(layer, LIF) and layer.fused):
            raise ZooError(
                f"cannot export neuron layer {name!r}: {type(layer).__name__} has dynamics of its own; lif, if and "
                "plif have an ONNX form, another needs one in export/functions.py"
            )
    return layers


def input_size(model: nn.Module) -> tuple[int, int, int]:
    """Channels, height, width of a network's images."""
    size = tuple(model.pretrained_cfg.get("input_size") or ())  # type: ignore[operator, union-attr]
    if len(size) != 3:
        raise ZooError(f"pretrained_cfg['input_size'] must be (channels, height, width), not {size}")
    return size


def inference_copy(model: nn.Module) -> nn.Module:
    """A deep copy on the CPU, in float32 and evaluation mode; the network itself stays as it is."""
    return copy.deepcopy(model).cpu().float().eval()


def build_graph(model: nn.Module) -> onnx.ModelProto:
    """The flat graph of a network: "input" [batch, C, H, W] to "logits" [batch, classes], batch dynamic.

    Batch normalisation is folded into the convolutions. The metadata maps neuron layers to their spikes.

    Raises:
        ZooError: a network that cannot be exported.
    """
    layers = neuron_layers(model)
    traced = inference_copy(model)
    for name in layers:
        traced.set_submodule(name, LIFPlaceholder(name, traced.get_submodule(name)))  # type: ignore[arg-type]
    example = torch.zeros(2, *input_size(model))
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                traced, (example,), dynamo=True, dynamic_shapes=({0: "batch"},), input_names=["input"],
                output_names=["logits"], opset_version=OPSET, verbose=False,
            )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError as error:
        raise ZooError(f"PyTorch's ONNX exporter failed on {type(model).__name__}: {_root_cause(error)}") from error
    assert program is not None
    graph = program.model
    spikes = _name_spikes(graph, list(layers))
    for kind in {kind_of(layer) for layer in layers.values()}:
        function = lif_function(kind)
        graph.functions[function.identifier()] = function
    graph.opset_imports.setdefault(DOMAIN, 1)
    # Metadata goes because the exporter notes source paths and stack traces in every node.
    flatten = Sequential(
        passes.InlinePass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.ClearMetadataAndDocStringPass(),
    )
    proto = ir.to_proto(flatten(graph).model)
    proto.ir_version = min(proto.ir_version, IR_VERSION)
    onnx.helper.set_model_props(proto, {SPIKE_VALUES: json.dumps(spikes)})
    check_graph(proto)
    return proto


def check_graph(proto: onnx.ModelProto) -> None:
    """Raise ZooError unless the model is valid ONNX, flat, in standard operators and without batch normalisation."""
    foreign = sorted({f"{node.domain}::{node.op_type}" for node in proto.graph.node if node.domain})
    if proto.functions or foreign:
        raise ZooError(f"the graph is not flat: {len(proto.functions)} functions, operators {foreign}")
    if any(node.op_type == "BatchNormalization" for node in proto.graph.node):
        raise ZooError("a batch normalisation could not be folded: each must directly follow a convolution or linear")
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ZooError(f"the graph is not valid ONNX: {error}") from error


def spike_values(proto: onnx.ModelProto) -> dict[str, str]:
    """Neuron layer -> value that holds its spikes [T*B, ...], in a graph from `build_graph`."""
    return json.loads(next(p.value for p in proto.metadata_props if p.key == SPIKE_VALUES))


def _name_spikes(graph: ir.Model, layers: list[str]) -> dict[str, str]:
    """Name the output of each placeholder after its layer."""
    found = {}
    for node in graph.graph:
        if node.domain == DOMAIN:
            layer = node.attributes.pop(LAYER).as_string()  # the function does not take it
            if layer in found:
                raise ZooError(f"cannot export a network that runs neuron layer {layer!r} twice in one forward")
            found[layer] = node.outputs[0].name = f"{layer}/spikes"
    if missing := [name for name in layers if name not in found]:
        raise ZooError(f"cannot export a network whose forward leaves out neuron layers {', '.join(missing)}")
    return {name: found[name] for name in layers}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hush the exporter: deprecations inside PyTorch and progress notes say nothing about the network."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
