"""From a network of the zoo to its ONNX graph, in any layout and precision."""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from zoo.errors import ZooError, one_of

from . import file
from .event import event_graph
from .int8 import Rounded, int8_graph
from .layouts import lay_out
from .network import needs_all_steps, neuron_layers, spike_convolutions, take_apart


def build_graph(
    model: nn.Module,
    layout: str = "flat",
    rounded: Mapping[str, Rounded] | None = None,
    *,
    half: bool = False,
    events: bool = False,
) -> onnx.ModelProto:
    """Returns the graph of a network, batch dynamic: "input" [batch, C, H, W] to "logits" [batch, classes].

    Batch normalisation is a convolution behind the one that it normalises (see `export.network`); in int8 it is folded
    into it. The metadata maps neuron layers to their spikes.

    Args:
        model: a network of the zoo.
        layout: "flat", "function", "step" or "loop"; see `export.layouts`.
        rounded: for int8, each convolution over spikes in eight bits; see `export.int8`.
        half: for fp16, weights of convolutions over spikes in half precision; see `store_in_half`.
        events: for int16, event-driven; see `export.event`.

    Raises:
        ZooError: an unknown layout, or a network that cannot be exported in it.
    """
    check_layout(layout, "int8" if rounded is not None else "int16" if events else "fp32")
    if rounded is not None:
        return int8_graph(take_apart(model, all_steps=True), neuron_layers(model), rounded)
    all_steps = needs_all_steps(model)
    if all_steps and layout in ("step", "loop"):
        raise ZooError(f"no layout {layout!r} for psn neurons, which take all steps at once: flat or function")
    if events:
        one_step = layout == "step"
        return event_graph(take_apart(model, all_steps=not one_step, fold_norms=False), neuron_layers(model), one_step)
    network = take_apart(model, all_steps=all_steps or layout == "function", fold_norms=False)
    # A graph of functions is to be read, and has spikes as they are.
    proto = lay_out(network if layout == "function" else network.with_steep_spikes(), layout)
    if half:
        store_in_half(proto, dict.fromkeys(node.input[1] for node in spike_convolutions(network)))
    return proto


def check_layout(layout: str, precision: str) -> None:
    """Raises ZooError unless there is such a layout, in this precision."""
    if layout not in file.LAYOUTS:
        raise one_of("layout", layout, file.LAYOUTS)
    known = {"int8": ["flat"], "int16": ["flat", "step"]}.get(precision, file.LAYOUTS)
    if layout not in known:
        raise ZooError(f"{precision} has the layout {' or '.join(known)} alone, not {layout!r}")


def store_in_half(proto: onnx.ModelProto, weights: Iterable[str]) -> None:
    """Makes a graph one of fp16: stores these weights in half precision, and casts them to float32, to compute in.

    So a file has half the size, unless most of its weights are those of fully connected layers. A checkpoint of
    `weights: fp16` loses nothing: batch normalisation is not folded into them. Membrane potentials, thresholds and
    currents stay in float32, where a rounding would flip the decision to spike; so do the stem, whose rounding meets
    every image in full, and the classifier. ONNX Runtime casts the weights once, when it loads the file. To compute in
    half precision would be no gain on a CPU, whose provider casts all that a convolution reads and writes to float32
    and back; and for bfloat16 it has none.

    Raises:
        ZooError: there is no weight, or one is too large for it.
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
    next(entry for entry in proto.metadata_props if entry.key == "precision").value = "fp16"


def is_half(network: nn.Module) -> bool:
    """Returns whether half precision holds the weights of a network's convolutions as they are: `weights: fp16` of a
    recipe."""
    weights = [module.weight.detach() for module in network.modules() if isinstance(module, nn.Conv1d | nn.Conv2d)]
    return all(bool((weight.half() == weight).all()) for weight in weights)
