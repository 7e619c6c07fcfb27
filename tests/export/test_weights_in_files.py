"""Weights reach the graph as they are: batch normalisation stands behind its convolution, where ONNX Runtime leaves it,
and half precision holds weights of convolutions over spikes alone, exact on the exact copy, refused where changed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from test_export import network, optimised
from torch import nn

import export
import zoo
from export.int8 import convolutions
from export.network import build_graph, store_in_half, take_apart
from export.run import create_session
from export.verify import _verify_real
from zoo import ZooError

pytestmark = pytest.mark.usefixtures("one_thread")


def halved(net):
    """The network with the weights that `weights: fp16` stores."""
    for parameter in net.parameters():
        parameter.data = parameter.data.half().float()
    return net


def constants(proto):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def scalings(proto):
    """Convolutions of one weight for each channel."""
    shapes = {name: array.shape for name, array in constants(proto).items()}
    return [n for n in proto.graph.node if n.op_type == "Conv" and shapes[n.input[1]][1:] == (1, 1, 1)]


@pytest.mark.parametrize(("norm", "layout"), [("bn", "flat"), ("tebn", "function")])
def test_weights_are_the_networks_own(layout, norm):
    net = network(norm=norm, timesteps=2)
    proto = build_graph(net, layout)
    stored = constants(proto)
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            assert np.array_equal(stored[f"{name}.weight"], module.weight.detach().numpy()), name
        if isinstance(module, nn.BatchNorm2d):
            assert stored[f"{name}/factor"].shape == (module.num_features, 1, 1, 1)
            assert stored[f"{name}/shift"].shape == (module.num_features,)


def test_onnx_runtime_does_not_fold_them(tmp_path):
    """What the form rests on: once this fails, it is to be measured anew."""
    proto = build_graph(network())
    folded = optimised(proto.SerializeToString(), tmp_path, "EXTENDED")
    before, after = constants(proto), constants(folded)
    assert len(scalings(folded)) == len(scalings(proto)) > 3
    for node in folded.graph.node:
        if node.op_type in ("Conv", "FusedConv"):
            assert np.array_equal(after[node.input[1]], before[node.input[1]]), node.name


def test_half_precision_loses_nothing_of_weights_that_it_holds(tmp_path):
    torch.manual_seed(0)
    same = export.to_onnx(halved(network()), tmp_path / "same.onnx", precision="fp16")["verification"]["real"]
    assert same["flip_rate"] < 1e-5
    assert same["within_fixed_bounds"]


def test_the_bounds_of_fp16_are_those_of_fp32_where_it_loses_nothing(tmp_path):
    torch.manual_seed(0)
    net = halved(network(timesteps=2))
    export.to_onnx(net, tmp_path / "x.onnx", precision="fp16", verify=False)
    proto = onnx.load(tmp_path / "x.onnx")
    tensor = next(t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16)
    array = numpy_helper.to_array(tensor) * np.float16(1.01)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    with pytest.raises(ZooError, match=r"differ from PyTorch's \(allowed (1.00e-03|\d.\d+e-0[4-9])\)"):
        _verify_real(net, proto, None)


@pytest.mark.parametrize("affine", [True, False])
def test_it_is_pytorchs_batch_normalisation(affine):
    torch.manual_seed(0)
    net = network(timesteps=1)
    net.bn1 = norm = nn.BatchNorm2d(net.bn1.num_features, affine=affine, eps=1e-3).eval()
    nn.init.uniform_(norm.running_var, 0.1, 3)
    for tensor in (norm.running_mean, *norm.parameters()):
        nn.init.normal_(tensor)
    stored, x = constants(build_graph(net)), torch.randn(8, norm.num_features, 4, 4)
    factor, shift = (stored[f"bn1/{what}"].reshape(-1, 1, 1) for what in ("factor", "shift"))
    np.testing.assert_allclose(x.numpy() * factor + shift, norm(x).detach(), rtol=1e-5, atol=1e-5)


def halves(proto):
    return [t for t in proto.graph.initializer if t.data_type == TensorProto.FLOAT16]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["flat", "loop"])
def test_the_gate_passes(layout, tmp_path):
    net = network()
    whole = export.to_onnx(net, tmp_path / "fp32.onnx", layout=layout, verify=False)
    report = export.to_onnx(net, tmp_path / "fp16.onnx", layout=layout, precision="fp16")
    assert report["verification"]["real"]["flip_rate"] > 1e-4  # with weights that it holds: see above
    assert report["metadata"]["precision"] == "fp16"
    proto = onnx.load(tmp_path / "fp16.onnx")
    stored = {t.name.removesuffix("/half") for t in halves(proto)}
    assert stored == set(convolutions(take_apart(net, all_steps=True)))
    assert "conv1.weight" not in stored
    saved = whole["bytes"] - report["bytes"]
    assert saved == pytest.approx(2 * sum(int(np.prod(t.dims)) for t in halves(proto)), rel=0.2)


def test_weights_are_rounded_and_nothing_else():
    net = network()
    proto, rounded = build_graph(net, precision="fp16"), build_graph(net)
    for tensor in rounded.graph.initializer:
        if f"{tensor.name}/half" in {t.name for t in halves(proto)}:
            array = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    x = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    a, b = (create_session(p.SerializeToString()).run(["logits"], {"input": x})[0] for p in (rounded, proto))
    assert np.array_equal(a, b)


def test_a_convolution_that_runs_twice_is_stored_once():
    net = network(timesteps=2)
    net.stages[0][0].conv2.weight = net.stages[0][0].conv1.weight
    proto = build_graph(net, precision="fp16")
    assert len([t for t in halves(proto) if t.name.startswith("stages.0.0.conv")]) == 1


@pytest.mark.parametrize("norm", ["bn", pytest.param("tebn", marks=pytest.mark.slow)])
def test_only_convolutions_over_spikes_are_rounded(norm):
    net = zoo.create_model("ms_resnet18_w16", norm=norm, timesteps=1)  # its shortcuts read currents
    flat, function = (
        {t.name for t in halves(build_graph(net, kind, precision="fp16"))} for kind in ("flat", "function")
    )
    assert flat == function
    assert not [name for name in flat if "shortcut" in name]


def test_weights_beyond_half_precision_are_refused():
    proto = build_graph(network(timesteps=1))
    for name, number in (("large", 70_000), ("low", -70_000)):
        proto.graph.initializer.append(numpy_helper.from_array(np.float32([number]), name))
        with pytest.raises(ZooError, match=f"the weight {name} has numbers beyond half precision"):
            store_in_half(proto, [name])
    with pytest.raises(ZooError, match="no convolution over spikes"):
        store_in_half(proto, [])
