"""Half precision: weights of convolutions over spikes alone, exact on the exact copy, refused where changed."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from test_export import network

import export
import zoo
from export.file import add_description
from export.graph import build_graph, store_in_half
from export.int8 import convolutions
from export.network import take_apart
from export.run import create_session
from zoo import ZooError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def right(one_thread):
    torch.manual_seed(0)
    net = network()
    return net, add_description(build_graph(net, half=True), net)


def halves(proto):
    return [t for t in proto.graph.initializer if t.data_type == TensorProto.FLOAT16]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["flat", "loop"])
def test_the_gate_passes(layout, tmp_path):
    net = network()
    whole = export.to_onnx(net, tmp_path / "fp32.onnx", layout=layout, verify=False)
    report = export.to_onnx(net, tmp_path / "fp16.onnx", layout=layout, precision="fp16")
    assert report["verification"]["dyadic"]["identical"]
    assert report["verification"]["real"]["flip_rate"] > 1e-4  # with weights that it holds: see test_norms
    assert report["metadata"]["precision"] == "fp16"
    proto = onnx.load(tmp_path / "fp16.onnx")
    stored = {t.name.removesuffix("/half") for t in halves(proto)}
    assert stored == set(convolutions(take_apart(net, all_steps=True)))
    assert "conv1.weight" not in stored
    saved = whole["bytes"] - report["bytes"]
    assert saved == pytest.approx(2 * sum(int(np.prod(t.dims)) for t in halves(proto)), rel=0.2)


def test_weights_are_rounded_and_nothing_else(right):
    net, proto = right
    rounded = build_graph(net)
    for tensor in rounded.graph.initializer:
        if f"{tensor.name}/half" in {t.name for t in halves(proto)}:
            array = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    x = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    a, b = (create_session(p.SerializeToString()).run(["logits"], {"input": x})[0] for p in (rounded, proto))
    assert np.array_equal(a, b)


def test_a_convolution_that_runs_twice_is_stored_once():
    net = network(timesteps=2)
    net.stages[0][1].conv2.weight = net.stages[0][1].conv1.weight
    proto = build_graph(net, half=True)
    assert len([t for t in halves(proto) if t.name.startswith("stages.0.1.conv")]) == 1


@pytest.mark.parametrize("norm", ["bn", pytest.param("tebn", marks=pytest.mark.slow)])
def test_only_convolutions_over_spikes_are_rounded(norm):
    net = zoo.create_model("ms_resnet18_w16", norm=norm, timesteps=1)  # its shortcuts read currents
    flat, function = ({t.name for t in halves(build_graph(net, kind, half=True))} for kind in ("flat", "function"))
    assert flat == function
    assert not [name for name in flat if "shortcut" in name]


def test_the_right_graph_passes(right, monkeypatch):
    """And a changed one does not: see test_mutations."""
    net, proto = right
    monkeypatch.setattr(sys.modules["export.verify"], "run_gate", lambda *_: {})  # which ran above
    export.verify(net, proto.SerializeToString())


def test_what_is_refused(tmp_path):
    with pytest.raises(ZooError, match=r"no bf16: ONNX Runtime's CPU provider has no bfloat16 convolution"):
        export.to_onnx(network(), tmp_path / "x.onnx", precision="bf16")
    proto = build_graph(network(timesteps=1))
    for name, number in (("large", 70_000), ("low", -70_000)):
        proto.graph.initializer.append(numpy_helper.from_array(np.float32([number]), name))
        with pytest.raises(ZooError, match=f"the weight {name} has numbers beyond half precision"):
            store_in_half(proto, [name])
    with pytest.raises(ZooError, match="no convolution over spikes"):
        store_in_half(proto, [])
    assert not list(tmp_path.iterdir())
