"""Spikes as outputs of a graph: all of them for a comparison, or their counts for a measurement."""

import onnx
from onnx import TensorProto, helper

from .graph import spike_values

PREFIX = "spikes/"
"""A count output is named after its layer: spikes/stages.0.0.lif1."""


def add_spike_counts(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A graph with one more output a neuron layer: "spikes/<layer>", float32 [batch, timesteps].

    An entry is the number of spikes of that layer, for one image in one time step.

    Args:
        proto: a graph of `build_graph`, new or loaded from a file; returned as it is if it has these outputs already.
    """
    layers = spike_values(proto)
    if PREFIX + next(iter(layers)) in (output.name for output in proto.graph.output):
        return proto
    steps = timesteps(proto)
    counted = _copy(proto)
    graph = counted.graph
    graph.initializer.append(helper.make_tensor("spikes_axis", TensorProto.INT64, [1], [1]))
    graph.initializer.append(helper.make_tensor("spikes_shape", TensorProto.INT64, [2], [steps, -1]))
    for layer, value in layers.items():
        out = PREFIX + layer
        graph.node.extend(
            [
                helper.make_node("Flatten", [value], [f"{layer}/flat"], f"{out}/Flatten", axis=1),
                helper.make_node(
                    "ReduceSum", [f"{layer}/flat", "spikes_axis"], [f"{layer}/sum"], f"{out}/ReduceSum", keepdims=0
                ),
                helper.make_node("Reshape", [f"{layer}/sum", "spikes_shape"], [f"{layer}/steps"], f"{out}/Reshape"),
                helper.make_node("Transpose", [f"{layer}/steps"], [out], f"{out}/Transpose", perm=[1, 0]),
            ]
        )
        graph.output.append(helper.make_tensor_value_info(out, TensorProto.FLOAT, ["batch", steps]))
    return counted


def add_spike_outputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A graph whose further outputs are the spikes [T*B, ...] of every neuron layer, named as in `spike_values`."""
    exposed = _copy(proto)
    for value in spike_values(proto).values():
        exposed.graph.output.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, None))
    return exposed


def timesteps(proto: onnx.ModelProto) -> int:
    """T of a graph with metadata."""
    return int(next(p.value for p in proto.metadata_props if p.key == "timesteps"))


def _copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    return copied
