"""Batch normalisation behind its convolution: weights reach the graph as they are, and ONNX Runtime leaves them so."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from test_export import network
from torch import nn

import export
from export.graph import build_graph
from export.network import currents_of, factor_and_shift, neuron_layers, take_apart
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


@pytest.mark.parametrize(
    ("norm", "layout"),
    [
        ("bn", "flat"),
        ("tebn", "flat"),
        pytest.param("tebn", "function", marks=pytest.mark.slow),
    ],
)
def test_weights_are_the_networks_own(layout, norm):
    net = network(norm=norm, timesteps=2)
    proto = build_graph(net, layout)
    bodies = [proto.graph, *(a.g for n in proto.graph.node for a in n.attribute if a.type == onnx.AttributeProto.GRAPH)]
    stored = {t.name: numpy_helper.to_array(t) for graph in bodies for t in graph.initializer}
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            assert np.array_equal(stored[f"{name}.weight"], module.weight.detach().numpy()), name
        if isinstance(module, nn.BatchNorm2d):
            assert stored[f"{name}/factor"].shape == (module.num_features, 1, 1, 1)
            assert stored[f"{name}/shift"].shape == (module.num_features,)


def test_onnx_runtime_does_not_fold_them(tmp_path):
    """What the form rests on: once this fails, it is to be measured anew."""
    proto = build_graph(network())
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx")
    before, after = constants(proto), constants(optimised)
    assert len(scalings(optimised)) == len(scalings(proto)) > 3
    for node in optimised.graph.node:
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
        export.verify(net, proto.SerializeToString())


@pytest.mark.parametrize("fold_norms", [True, False])
def test_the_currents_of_neurons_are_taken_apart(fold_norms):
    """What a kernel over spikes fuses: convolution, normalisation, shortcut, neurons."""
    net = network(timesteps=2)
    currents = currents_of(take_apart(net, all_steps=True, fold_norms=fold_norms))
    assert list(currents) == list(neuron_layers(net))
    first, *_ = currents.values()
    assert [current.convolution for current in first] == [None]  # over the image
    summands = currents["stages.0.0.lif2"]
    weights = [current.convolution.input[1] for current in summands if current.convolution]
    assert weights[0] == "stages.0.0.conv2.weight"
    assert len(summands) == 2
    for current in summands:
        if current.convolution:
            assert (current.norm is None) == fold_norms


@pytest.mark.parametrize("affine", [True, False])
def test_it_is_pytorchs_batch_normalisation(affine):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(16, affine=affine, eps=1e-3)
    nn.init.uniform_(norm.running_var, 0.1, 3)
    nn.init.normal_(norm.running_mean)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    x = torch.randn(8, 16, 4, 4)
    weight, bias = (norm.weight, norm.bias) if affine else (torch.ones(16), torch.zeros(16))
    values = [v.detach().numpy() for v in (weight, bias, norm.running_mean, norm.running_var)]
    factor, shift = (v.reshape(-1, 1, 1) for v in factor_and_shift(values, norm.eps))
    np.testing.assert_allclose(x.numpy() * factor + shift, norm.eval()(x).detach(), rtol=1e-5, atol=1e-6)
