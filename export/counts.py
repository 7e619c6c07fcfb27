"""Spikes as outputs of a graph: all of them for a comparison, or their counts for a measurement."""

import copy
import itertools

import onnx
from onnx import TensorProto, helper

from .graph import spike_values

PREFIX = "spikes/"
"""A count output is named after its layer: spikes/stages.0.0.lif1."""


def add_spike_counts(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A graph with one more output per neuron layer: "spikes/<layer>", float32 [batch, timesteps].

    An entry is the number of spikes of that layer, for one image in one time step.

    Args:
        proto: a graph of `build_graph`, new or loaded from a file; returned as it is if it has these outputs already.
    """
    layers = spike_values(proto)
    if PREFIX + next(iter(layers)) in (output.name for output in proto.graph.output):
        return proto
    steps = int(next(p.value for p in proto.metadata_props if p.key == "timesteps"))
    counted = _with_spikes(proto)
    graph = counted.graph
    graph.initializer.append(helper.make_tensor("spikes_axis", TensorProto.INT64, [1], [1]))
    graph.initializer.append(helper.make_tensor("spikes_shape", TensorProto.INT64, [2], [steps, -1]))
    for layer, value in layers.items():
        out = PREFIX + layer
        for kind, inputs, output, attributes in (
            ("Flatten", [value], f"{layer}/flat", {"axis": 1}),
            ("ReduceSum", [f"{layer}/flat", "spikes_axis"], f"{layer}/sum", {"keepdims": 0}),
            ("Reshape", [f"{layer}/sum", "spikes_shape"], f"{layer}/steps", {}),
            ("Transpose", [f"{layer}/steps"], out, {"perm": [1, 0]}),
        ):
            graph.node.append(helper.make_node(kind, inputs, [output], f"{out}/{kind}", **attributes))
        graph.output.append(helper.make_tensor_value_info(out, TensorProto.FLOAT, ["batch", steps]))
    return counted


def add_spike_outputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A graph whose further outputs are the spikes [T*B, ...] of every neuron layer, named as in `spike_values`."""
    exposed = _with_spikes(proto)
    for value in spike_values(proto).values():
        exposed.graph.output.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, None))
    return exposed


def _with_spikes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which the spikes of every layer are one value, [T*B, ...]."""
    found = {name for node in proto.graph.node for name in node.output}
    copied = copy.deepcopy(proto)
    for value in spike_values(proto).values():
        steps = list(itertools.takewhile(found.__contains__, (f"{value}/{t}" for t in itertools.count())))
        if value not in found and steps:
            copied.graph.node.append(helper.make_node("Concat", steps, [value], value, axis=0))
    return copied
