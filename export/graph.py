"""From a network of the zoo to its ONNX graph."""

import json
from typing import Any

import onnx
from onnx import TensorProto, helper
from torch import nn

from zoo.errors import ZooError

from .assembly import make_model
from .encodings import input_shape
from .layouts import folded, unrolled
from .parts import input_size, needs_all_steps, neuron_layers, take_apart
from .skeleton import inference_copy
from .trace import OPSET

IR_VERSION = 10
SPIKE_VALUES = "spike_values"
"""Metadata key: JSON map from a neuron layer to its spikes, the value of that name in the graph [T*B, ...], or the
values with /0, /1 ... behind the name, one for each time step [B, ...]."""


def build_graph(model: nn.Module) -> onnx.ModelProto:
    """The graph of a network, batch dynamic: "input" [batch, C, H, W] to "logits" [batch, classes].

    Batch normalisation is folded into the convolutions. The metadata maps neuron layers to their spikes.

    Raises:
        ZooError: a network that cannot be exported.
    """
    all_steps = needs_all_steps(model)
    parts = take_apart(model, all_steps=all_steps)
    g = (folded if all_steps else unrolled)(parts)
    shape = ["batch", *input_shape(parts.encoding, parts.size, parts.timesteps)]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", parts.classes])]
    proto = make_model(g, inputs, outputs, {"": OPSET}, IR_VERSION)
    spikes = {name: f"{name}/spikes" for name in neuron_layers(model)}
    helper.set_model_props(proto, {SPIKE_VALUES: json.dumps(spikes)})
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
    """Neuron layer -> name of its spikes, in a graph from `build_graph`."""
    return json.loads(next(p.value for p in proto.metadata_props if p.key == SPIKE_VALUES))
