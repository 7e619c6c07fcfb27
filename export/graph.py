"""From a network of the zoo to its ONNX graph."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import onnx
from onnx import FunctionProto, TensorProto, helper
from torch import nn

from zoo.errors import ZooError, one_of, quoted
from zoo.files import parse_json, sha256_of
from zoo.neurons import SpikingNeuron

from .assembly import Assembly, make_model
from .encodings import input_shape
from .half import stored_in_half
from .int8 import Rounded, quantised, spike_convolutions
from .layouts import LAYOUTS, TIMESTEPS, folded, loop, states_of, step, unrolled, value_info, with_functions
from .parts import Parts, needs_all_steps, neuron_layers, take_apart
from .skeleton import DOMAIN
from .trace import OPSET

IR_VERSION = 10
SPIKE_VALUES = "spike_values"
"""Metadata key: JSON map from a neuron layer to its spikes: the value of that name in the graph, [T*B, ...]; or, where
time is not in the batch, those with /0, /1 ... behind the name, one for each step, or /t, [B, ...] each."""
SPIKE_SHAPES = "spike_shapes"
"""Metadata key: JSON map from a neuron layer to the shape of its spikes, of one image at one step."""
STATES = "states"
"""Metadata key: JSON list of a step graph's states, {input, output, layer, shape, start}; null: the batch."""
LAYOUT = "layout"
"""Metadata key: one of LAYOUTS."""
PRECISION = "precision"
"""Metadata key: one of PRECISIONS."""
CURRENTS = "currents"
"""Metadata key of int8: JSON map from a convolution's weight to [scale, zero point] of its currents and the start of
the sha256 of its weights in eight bits."""
PRECISIONS = ["fp32", "fp16", "int8"]
_NAMES = (LAYOUT, PRECISION)
_KINDS = {SPIKE_VALUES: dict, SPIKE_SHAPES: dict, CURRENTS: dict, STATES: list, "timesteps": int, "encoding": str}


def build_graph(
    model: nn.Module, layout: str = "flat", rounded: Mapping[str, Rounded] | None = None, *, half: bool = False
) -> onnx.ModelProto:
    """The graph of a network, batch dynamic: "input" [batch, C, H, W] to "logits" [batch, classes].

    Batch normalisation is a convolution behind the one that it normalises (see `export.norms`); in int8 it is folded
    into it. The metadata maps neuron layers to their spikes.

    Args:
        model: a network of the zoo.
        layout: "flat", "function", "step" or "loop"; see `export.layouts`.
        rounded: for int8, each convolution over spikes in eight bits; see `export.int8`.
        half: for fp16, weights of convolutions over spikes in half precision; see `export.half`.

    Raises:
        ZooError: an unknown layout, or a network that cannot be exported in it.
    """
    check_layout(layout, int8=rounded is not None)
    if rounded is not None:
        return int8_graph(take_apart(model, all_steps=True), neuron_layers(model), rounded)
    all_steps = needs_all_steps(model)
    if all_steps and layout in ("step", "loop"):
        raise ZooError(f"no layout {layout!r} for psn neurons, which take all steps at once: flat or function")
    parts = take_apart(model, all_steps=all_steps or layout == "function", fold_norms=False)
    if layout != "function":  # which is to be read
        parts = parts.with_steep_spikes()
    g, functions = _lay_out(parts, layout, all_steps)
    if half:
        stored_in_half(g, dict.fromkeys(node.input[1] for node in spike_convolutions(parts)))
    return _finished(parts, g, layout, {PRECISION: "fp16" if half else "fp32"}, functions)


def check_layout(layout: str, *, int8: bool) -> None:
    """Raise ZooError unless there is such a layout, in this precision."""
    if layout not in LAYOUTS:
        raise one_of("layout", layout, LAYOUTS)
    if int8 and layout != "flat":
        raise ZooError(f"int8 has the layout flat alone, not {layout!r}")


def int8_graph(parts: Parts, layers: Mapping[str, SpikingNeuron], rounded: Mapping[str, Rounded]) -> onnx.ModelProto:
    """The flat graph in eight bits of a network's parts, of all steps; see `build_graph`."""
    told = {name: [r.scale, r.zero, sha256_of(r.weight.tobytes())[:16]] for name, r in rounded.items()}
    graph = quantised(parts, layers, rounded)
    return _finished(parts, graph, "flat", {PRECISION: "int8", CURRENTS: json.dumps(told)})


def folded_graph(parts: Parts) -> onnx.ModelProto:
    """The graph of a network's parts with time in the batch, in float32."""
    return _finished(parts, folded(parts), "flat", {PRECISION: "fp32"})


def flat_graph(parts: Parts) -> onnx.ModelProto:
    """The flat graph of a network's parts, of one step, in float32."""
    return _finished(parts, unrolled(parts), "flat", {PRECISION: "fp32"})


def _finished(
    parts: Parts, g: Assembly, layout: str, told: dict[str, str], functions: Iterable[FunctionProto] = ()
) -> onnx.ModelProto:
    inputs, outputs, about = _interface(parts, layout)
    opsets = {"": OPSET} | ({DOMAIN: 1} if functions else {})
    proto = make_model(g, inputs, outputs, opsets, IR_VERSION, functions)
    spikes = {name: f"{name}/spikes" for name in parts.neurons}
    shapes = {name: parts.skeleton.shapes[name] for name in spikes}
    told = {LAYOUT: layout, **told, SPIKE_VALUES: json.dumps(spikes), SPIKE_SHAPES: json.dumps(shapes)}
    helper.set_model_props(proto, told | about)
    check_graph(proto)
    return proto


def _lay_out(parts: Parts, layout: str, all_steps: bool) -> tuple[Assembly, list[FunctionProto]]:
    if layout == "function":
        return with_functions(parts)
    if layout == "flat":
        return (folded if all_steps else unrolled)(parts), []
    return (step if layout == "step" else loop)(parts), []


def _interface(parts: Parts, layout: str) -> tuple[list[Any], list[Any], dict[str, str]]:
    """Inputs, outputs, and what the metadata says of them."""
    steps = "time" if layout == "loop" else parts.timesteps
    shape = parts.size if layout == "step" else input_shape(parts.encoding, parts.size, steps)
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *shape])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", parts.classes])]
    if layout == "loop":
        inputs.append(helper.make_tensor_value_info(TIMESTEPS, TensorProto.INT64, []))
    if layout != "step":
        return inputs, outputs, {}
    described: list[dict[str, Any]] = []
    for i, (layer, state) in enumerate(states_of(parts)):
        inputs.append(value_info(f"state_{i}", state))
        outputs.append(value_info(f"new_state_{i}", state))
        sizes = [*([None] if state.batched else []), *state.shape]
        of: dict[str, Any] = {"layer": layer or None, "shape": sizes, "start": 0}
        described.append({"input": f"state_{i}", "output": f"new_state_{i}"} | of)
    return inputs, outputs, {STATES: json.dumps(described)}


def check_graph(proto: onnx.ModelProto) -> None:
    """Raise ZooError unless the model is valid ONNX, in standard operators and its functions of them, and without batch
    normalisation."""
    own = {(function.domain, function.name) for function in proto.functions}
    bodies = [proto.graph.node, *(function.node for function in proto.functions)]
    foreign = {(node.domain, node.op_type) for body in bodies for node in body if node.domain} - own
    if foreign:
        raise ZooError(f"the graph has operators that are not ONNX's: {sorted(foreign)}")
    if any(node.op_type == "BatchNormalization" for node in proto.graph.node):
        raise ZooError("a batch normalisation could not be folded: each must directly follow a convolution or linear")
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ZooError(f"the graph is not valid ONNX: {error}") from error


def metadata(proto: onnx.ModelProto, key: str) -> Any:
    """An entry of a graph's metadata; all but names are JSON.

    Raises:
        ZooError: there is none, or it is malformed.
    """
    text = next((p.value for p in proto.metadata_props if p.key == key), None)
    if text is None:
        raise ZooError(f"the graph's metadata say no {key}: it is no file from `python -m export`, or was changed")
    value = text if key in _NAMES else parse_json(text, f"metadata {key}")
    kind = _KINDS.get(key, object)
    if not isinstance(value, kind):
        raise ZooError(f"the graph's metadata {key} must be JSON of a {kind.__name__}, not {quoted(text)}")
    return value


def spike_values(proto: onnx.ModelProto) -> dict[str, str]:
    """Neuron layer -> name of its spikes, in a graph from `build_graph`."""
    return metadata(proto, SPIKE_VALUES)
