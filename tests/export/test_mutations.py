"""A wrong graph is caught: each change of a right file, in every layout, is refused by `export.verify`."""

from __future__ import annotations

import copy
import json
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from test_export import network

import export
from export.commands import LAYOUTS
from export.exact_copy import exact_twin
from export.file import add_description, add_step_logits
from export.network import build_graph
from export.verify import BOUNDS, _verify_real, compare_exactly, compare_where_alike
from zoo import ZooError

verify = sys.modules["export.verify"]  # the function has its name


@pytest.fixture(scope="module")
def right(one_thread):
    """A network, and its right graph in every layout, and a flat one in half precision."""
    torch.manual_seed(0)
    net = network(timesteps=2)
    net.lif1.decay, net.lif1.threshold = 0.7, 0.9  # numbers that no other layer has
    graphs = {layout: add_description(build_graph(net, layout), net) for layout in LAYOUTS}
    return net, graphs | {"fp16": add_description(build_graph(net, precision="fp16"), net)}


def constant(proto, wanted, change):
    """Change the first constant that is wanted, wherever it is."""
    bodies = [proto.graph, *(a.g for node in proto.graph.node for a in node.attribute if a.name == "body")]
    tensors = [tensor for body in bodies for tensor in body.initializer]
    tensors += [a.t for f in proto.functions for node in f.node for a in node.attribute if a.name == "value"]
    tensor = next(t for t in tensors if wanted(t))
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name))


def all_nodes(proto):
    inner = [a.g.node for node in proto.graph.node for a in node.attribute if a.name == "body"]
    return [n for nodes in (proto.graph.node, *inner, *(f.node for f in proto.functions)) for n in nodes]


def is_number(tensor, value):
    array = numpy_helper.to_array(tensor)
    return array.dtype == np.float32 and array.size and bool((array == np.float32(value)).all())


def weight(proto):
    def change(array):
        array.flat[3] += 0.5
        return array

    constant(proto, lambda t: t.name.startswith("stages.0.0.conv2"), change)


def decay(proto):
    constant(proto, lambda t: is_number(t, 0.7), lambda array: array + np.float32(0.1))


def threshold(proto):
    steep = [n for n in all_nodes(proto) if n.op_type == "HardSigmoid" and n.output[0].startswith("lif1/")]
    if not steep:
        constant(proto, lambda t: is_number(t, 0.9), lambda array: array + np.float32(0.1))
    for attribute in steep[0].attribute if steep else ():
        if attribute.name == "beta":
            attribute.f *= 1.1


def swapped_spikes(proto):
    spikes = ["stages.0.0.lif1/spikes", "stages.0.0.lif2/spikes"]
    for node in all_nodes(proto):
        for i, name in enumerate(node.input):
            for a, b in (spikes, spikes[::-1]):
                if name == a or name.startswith(f"{a}/"):
                    node.input[i] = name.replace(a, b)
                    break


def dropped_reset(proto):
    """1 - spike becomes 1."""
    resets = [n for n in all_nodes(proto) if n.op_type == "HardSigmoid" and n.attribute[0].f < 0]
    if not resets:
        node = [n for n in all_nodes(proto) if n.op_type == "Sub"][1]  # the first one compares with the threshold
        node.op_type, node.input[1] = "Max", node.input[0]
    for attribute in resets[0].attribute if resets else ():
        attribute.f = 0 if attribute.name == "alpha" else 1


def shifted_bias(proto):
    constant(proto, lambda t: t.name == "fc.bias", lambda array: array + np.float32(0.1) * (np.arange(10) == 4))


def swapped_rows(proto):
    constant(proto, lambda t: t.name.startswith("fc.weight"), lambda array: array[:, [1, 0, *range(2, 10)]])


def lie(key, value):
    def change(proto):
        next(entry for entry in proto.metadata_props if entry.key == key).value = value

    change.__name__ = f"lie_{key}"
    return change


def lying_threshold(proto):
    entry = next(p for p in proto.metadata_props if p.key == "neuron")
    neurons = json.loads(entry.value)
    neurons["lif1"]["threshold"] = 1.0
    entry.value = json.dumps(neurons)


RUNNING = [weight, decay, threshold, shifted_bias, swapped_rows]
"""Changes that a run shows on any images."""
ALL = [
    *RUNNING, dropped_reset, swapped_spikes, lying_threshold,
    lie("mean", "[0.5, 0.5, 0.5]"), lie("std", "[0.2, 0.25, 0.31]"), lie("labels", json.dumps(["x"] * 10)),
    lie("timesteps", "4"),
]  # fmt: skip


def changed(graph, mutation):
    wrong = onnx.ModelProto()
    wrong.CopyFrom(graph)
    mutation(wrong)
    assert wrong.SerializeToString(deterministic=True) != graph.SerializeToString(deterministic=True)
    return wrong


@pytest.fixture(params=[*LAYOUTS, "fp16"])
def seen(right, request, monkeypatch):
    """A network and its right graph, which is compared and not run: running it may find a change too, but here the
    rest has to; and tracing 50 times is slow."""
    net, graphs = right

    def built(_, layout, precision):
        return copy.deepcopy(graphs["fp16" if precision == "fp16" else layout])

    monkeypatch.setattr(verify, "run_gate", lambda *args: {})
    monkeypatch.setattr(verify, "build_graph", built)
    return net, graphs[request.param]


def test_the_right_file_passes(seen):
    net, graph = seen
    export.verify(net, graph.SerializeToString())


@pytest.mark.parametrize("mutation", ALL, ids=lambda m: m.__name__)
def test_a_wrong_graph_is_refused(mutation, seen):
    net, graph = seen
    with pytest.raises(ZooError, match="verification failed"):
        export.verify(net, changed(graph, mutation).SerializeToString())


@pytest.mark.parametrize("mutation", RUNNING, ids=lambda m: m.__name__)
def test_running_it_finds_it_too(mutation, right):
    net, graphs = right
    with pytest.raises(ZooError, match="verification failed on the real weights"):
        _verify_real(net, changed(graphs["flat"], mutation), None)


def silent(proto):
    """No neuron of the first layer spikes."""
    for node in proto.graph.node:
        if node.output[0].startswith("lif1/spikes/"):
            for attribute in node.attribute:
                attribute.f = 0


def test_the_exact_copy_shows_it_bit_for_bit(right):
    graph, runs, other = exact_twin(right[0], "flat", "fp32")
    compare_exactly(graph, runs, other, ["disable"])
    for mutation in (weight, threshold, shifted_bias, swapped_rows, silent):
        with pytest.raises(ZooError, match="differ from PyTorch's on exact arithmetic"):
            compare_exactly(changed(graph, mutation), runs, other, ["disable"])


def test_flips_are_told_as_fractions_of_their_layer(right, monkeypatch):
    """Where a graph is silent, they are the network's spikes."""
    net, graphs = right
    monkeypatch.setitem(BOUNDS, "fp32", (1.0, 0.0))
    monkeypatch.setattr(verify, "MAX_SPIKES", float("inf"))
    real = _verify_real(net, changed(graphs["flat"], silent), None)
    assert real["flip_rate_per_layer"]["lif1"] == real["spike_rates"]["lif1"] > 0


def test_what_only_the_networks_rounding_allows_is_not_within_the_fixed_bounds(right, monkeypatch):
    net, graphs = right
    run = verify.run_in_pytorch

    def far_off_in_float64(network, images):
        logits, spikes = run(network, images)
        return logits, {name: 1 - s if images.dtype == torch.float64 else s for name, s in spikes.items()}

    monkeypatch.setattr(verify, "run_in_pytorch", far_off_in_float64)
    monkeypatch.setattr(verify, "MAX_SPIKES", float("inf"))
    monkeypatch.setitem(BOUNDS, "fp32", (1e-3, 0.0))
    real = _verify_real(net, changed(graphs["flat"], silent), None)
    assert 1e-3 < real["flip_rate"] < real["rounding_flip_rate"] == 1
    assert not real["within_fixed_bounds"]


def test_other_weights_in_half_precision_are_refused(right):
    torch.manual_seed(1)
    with pytest.raises(ZooError, match="verification failed on the real weights"):
        _verify_real(network(timesteps=2), right[1]["fp16"], None)


def test_instruments_are_checked_like_all_else(right):
    net, graphs = right
    told = add_step_logits(graphs["flat"])
    told.graph.node[-1].input[0] = told.graph.node[-1].input[1]
    with pytest.raises(ZooError, match="operations are not those"):
        export.verify(net, told.SerializeToString())


def test_logits_are_compared_where_spikes_agree():
    expected, got = np.float32([[1, 2], [3, 4]]), np.float32([[1, 2.01], [3, 9]])
    compare_where_alike(expected, got, np.array([False, False]))
    with pytest.raises(ZooError, match="for image 0, whose spikes are all PyTorch's"):
        compare_where_alike(expected, got, np.array([True, False]))
