"""Instruments: what a graph tells beside its logits: spikes as they are, for a comparison, and counts of them."""

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from zoo.errors import ZooError

from .file import About, metadata, misfit
from .network import SPIKES
from .run import create_session, run_session

PREFIX = f"{SPIKES}/"
"""A count output is named after its layer: spikes/stages.0.0.lif1."""
STEP_LOGITS = "step_logits"


def spike_values(proto: onnx.ModelProto) -> dict[str, str]:
    """Returns the name of the spikes of each neuron layer, in a graph from `build_graph`."""
    return metadata(proto, "spike_values")


def check_spikes(proto: onnx.ModelProto, about: About, path: Path) -> None:
    """Raises ZooError unless a graph, run on one image, has the spikes of zeros and ones that its metadata tell of."""
    exposed = add_spike_outputs(proto)
    values = {output for node in exposed.graph.node for output in node.output}
    if lost := [value for value in about.spike_values.values() if value not in values]:
        raise misfit(f"{path}:", "spike_values", lost[0], "a value in the graph")
    session = create_session(exposed.SerializeToString(), threads=1)
    image = np.zeros((1, *about.input_shape), np.float32)
    for array in run_session(session, list(about.spike_values.values()), image):  # [T*B, ...] at B = 1
        if array.shape[:1] != (about.timesteps,):
            raise misfit(f"{path}:", "timesteps", about.timesteps, f"{array.shape[:1]} as in the graph")
        if not np.isin(array, (0, 1)).all():
            raise ZooError(f"{path}: what it calls spikes are not zeros and ones; export it again")


def add_spike_counts(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a graph with one more output per neuron layer: "spikes/<layer>", float32 [batch, timesteps].

    An entry is the number of spikes of that layer, for one image in one time step; a step graph has one step.

    Args:
        proto: a graph of `build_graph`, new or loaded from a file; returned as it is if it has these outputs already.
    """
    layers = spike_values(proto)
    if PREFIX + next(iter(layers)) in (output.name for output in proto.graph.output):
        return proto
    counted, graph = _with_spikes(proto, list(layers))
    graph.initializer.append(helper.make_tensor("spikes_axis", TensorProto.INT64, [1], [1]))
    steps, shape = _steps(counted, graph, "spikes_shape")
    for layer, value in layers.items():
        out = PREFIX + layer
        for kind, inputs, output, attributes in (
            ("Flatten", [value], f"{layer}/flat", {"axis": 1}),
            ("ReduceSum", [f"{layer}/flat", "spikes_axis"], f"{layer}/sum", {"keepdims": 0}),
            ("Reshape", [f"{layer}/sum", shape], f"{layer}/steps", {}),
            ("Transpose", [f"{layer}/steps"], out, {"perm": [1, 0]}),
        ):
            graph.node.append(helper.make_node(kind, inputs, [output], f"{out}/{kind}", **attributes))
        graph.output.append(helper.make_tensor_value_info(out, TensorProto.FLOAT, ["batch", steps]))
    return counted


def add_step_logits(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a graph with the output "step_logits", those of every time step, float32 [batch, timesteps, classes].

    Raises:
        ZooError: a step graph, whose logits are those of one step already, or a network whose last operation is not the
            mean over time.
    """
    told = copy.deepcopy(proto)
    graph = told.graph
    found = {name for node in graph.node for name in node.output}
    steps = list(itertools.takewhile(found.__contains__, (f"{t}/logits" for t in itertools.count())))
    loop = next((node for node in graph.node if node.op_type == "Loop"), None)
    last = next((node for node in graph.node if "logits" in node.output), None)
    if metadata(proto, "layout") == "step":
        raise ZooError("the logits of a step graph are those of one time step already: no step_logits")
    if steps:
        graph.initializer.append(helper.make_tensor("step_axis", TensorProto.INT64, [1], [1]))
        for name in steps:
            graph.node.append(helper.make_node("Unsqueeze", [name, "step_axis"], [f"{name}/step"]))
        graph.node.append(helper.make_node("Concat", [f"{name}/step" for name in steps], [STEP_LOGITS], axis=1))
    else:
        by_step = None
        if loop is not None:
            by_step = _scanned(loop, "t/logits", "logits/steps")
        elif last is not None and last.op_type == "ReduceMean":
            by_step = last.input[0]
        if by_step is None:
            raise ZooError("no step_logits: the last operation of this network is not the mean over time")
        graph.node.append(helper.make_node("Transpose", [by_step], [STEP_LOGITS], perm=[1, 0, 2]))
    classes = next(o for o in graph.output if o.name == "logits").type.tensor_type.shape.dim[1].dim_value
    count: Any = len(steps) or "time"
    graph.output.append(helper.make_tensor_value_info(STEP_LOGITS, TensorProto.FLOAT, ["batch", count, classes]))
    return told


def add_spike_outputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a graph whose further outputs are the spikes [T*B, ...] of every layer, named as in `spike_values`."""
    layers = spike_values(proto)
    exposed, graph = _with_spikes(proto, list(layers))
    for value in layers.values():
        graph.output.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, None))
    return exposed


def _steps(proto: onnx.ModelProto, graph: onnx.GraphProto, name: str) -> tuple[int | str, str]:
    """Returns how many time steps a graph has, and a value of that name for Reshape: [steps, -1]."""
    layout = metadata(proto, "layout")
    if layout == "loop":
        graph.initializer.append(helper.make_tensor(f"{name}/one", TensorProto.INT64, [1], [1]))
        graph.initializer.append(helper.make_tensor(f"{name}/rest", TensorProto.INT64, [1], [-1]))
        graph.node.append(helper.make_node("Reshape", ["timesteps", f"{name}/one"], [f"{name}/steps"]))
        graph.node.append(helper.make_node("Concat", [f"{name}/steps", f"{name}/rest"], [name], axis=0))
        return "time", name
    steps = 1 if layout == "step" else int(metadata(proto, "timesteps"))
    graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [2], [steps, -1]))
    return steps, name


def _with_spikes(proto: onnx.ModelProto, layers: list[str]) -> tuple[onnx.ModelProto, onnx.GraphProto]:
    """Returns a copy in which the spikes of each of the layers are one value, [T*B, ...]; and its graph."""
    copied = copy.deepcopy(proto)
    graph = copied.graph
    found = {name for node in graph.node for name in node.output}
    loop = next((node for node in graph.node if node.op_type == "Loop"), None)
    for value in (spike_values(proto)[layer] for layer in layers):
        if value in found:
            continue
        steps = list(itertools.takewhile(found.__contains__, (f"{value}/{t}" for t in itertools.count())))
        if f"{value}/byte" in found:
            graph.node.append(helper.make_node("Cast", [f"{value}/byte"], [value], value, to=TensorProto.FLOAT))
        elif f"{value}/bytes" in found:  # channels last
            graph.node.append(helper.make_node("Cast", [f"{value}/bytes"], [f"{value}/last"], to=TensorProto.FLOAT))
            graph.node.append(helper.make_node("Transpose", [f"{value}/last"], [value], value, perm=[0, 3, 1, 2]))
        elif steps:
            graph.node.append(helper.make_node("Concat", steps, [value], value, axis=0))
        elif f"{value}/t" in found:
            graph.node.append(helper.make_node("Identity", [f"{value}/t"], [value], value))
        elif loop is not None:
            stacked = _scanned(loop, f"{value}/t", f"{value}/stacked")
            if not any(tensor.name == "folded" for tensor in graph.initializer):
                graph.initializer.append(helper.make_tensor("folded", TensorProto.INT64, [1], [-1]))
            graph.node.append(helper.make_node("Shape", [stacked], [f"{value}/map"], start=2))
            graph.node.append(helper.make_node("Concat", ["folded", f"{value}/map"], [f"{value}/shape"], axis=0))
            graph.node.append(helper.make_node("Reshape", [stacked, f"{value}/shape"], [value], value))
    return copied, graph


def _scanned(loop: onnx.NodeProto, inner: str, name: str) -> str:
    """Gives a loop one more output, `name` [T, ...]: its value `inner` of every step."""
    body: onnx.GraphProto = next(a.g for a in loop.attribute if a.name == "body")
    body.node.append(helper.make_node("Identity", [inner], [f"{inner}/out"]))
    body.output.append(helper.make_tensor_value_info(f"{inner}/out", TensorProto.FLOAT, None))
    loop.output.append(name)
    return name
