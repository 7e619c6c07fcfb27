"""NIR: what leaves comes back as the same graph, and spikes as the network does; what NIR lacks is named."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from conftest import tiny
from torch import nn
from torch.nn import functional as F

import zoo
from export.exact_copy import exact_copy, exact_images
from export.graph import Piece
from export.nir import _Builder, nir_graph, to_nir
from zoo import ZooError

nir = pytest.importorskip("nir")


def tensor(array):
    return torch.from_numpy(np.asarray(array))


def interpret(graph, image, steps):
    """Logits of every step of a NIR graph, [steps, B, classes], and the spikes of its neurons."""
    before = {name: [a for a, b in graph.edges if b == name] for name in graph.nodes}
    state, logits, spikes = {}, [], {}

    def value(name, done):
        if name not in done:
            x = sum(value(source, done) for source in before[name]) if before[name] else image
            done[name] = run(name, graph.nodes[name], x)
        return done[name]

    def run(name, node, x):
        kind = type(node).__name__
        if kind == "Conv2d":
            how = (node.stride, node.padding, node.dilation)
            return F.conv2d(x, tensor(node.weight), tensor(node.bias), *(tuple(map(int, h)) for h in how), node.groups)
        if kind == "Affine":
            return F.linear(x, tensor(node.weight), tensor(node.bias))
        if kind == "AvgPool2d":
            return F.avg_pool2d(
                x, tuple(map(int, node.kernel_size)), tuple(map(int, node.stride)), tuple(map(int, node.padding))
            )
        if kind == "Flatten":
            return x.flatten(1)
        if kind in ("LIF", "IF"):
            v, tau = state.get(name, torch.zeros(())), tensor(node.tau) if kind == "LIF" else None
            u = v + tensor(node.r) * x if tau is None else v + ((0 - v) + tensor(node.r) * x) / tau
            s = (u >= tensor(node.v_threshold)).float()
            state[name] = torch.where(s > 0, tensor(node.v_reset), u)
            spikes.setdefault(name, []).append(s)
            return s
        return x

    for _ in range(steps):
        logits.append(value("output", {}))
    return torch.stack(logits), {name: torch.cat(steps) for name, steps in spikes.items()}


def with_stem(module):
    """A network whose first convolution follows another module."""
    net = tiny((1, 1), stem=8, timesteps=2)
    net.set_submodule("conv1", nn.Sequential(module, net.conv1))
    net.pretrained_cfg = {"input_size": (3, 16, 16), "mean": (0.5,) * 3, "std": (0.2,) * 3}
    return net


class Twice(nn.Module):
    """One convolution that runs twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.conv(self.conv(x))


SOFT = {"name": "lif", "reset": "soft"}
NETWORKS = {
    "sresnet": lambda: tiny(timesteps=3),
    "pooled": lambda: with_stem(nn.AvgPool2d(3, 2, padding=1)),
    "twice": lambda: with_stem(Twice()),
    "svgg9": lambda: zoo.create_model("svgg9_w16", timesteps=2),  # with hidden linear layers
    "svgg": lambda: zoo.create_model("svgg11_w8", timesteps=2, neuron="if"),
    "ms_resnet": lambda: zoo.create_model("ms_resnet19_w16", timesteps=2, neuron={"name": "lif", "decay_input": True}),
    "sew_resnet": lambda: zoo.create_model("sew_resnet19_w16", timesteps=2, neuron="plif"),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in ("sresnet", "twice", "pooled") else pytest.mark.slow) for name in NETWORKS],
)
def test_a_graph_comes_back_and_spikes_alike(name, tmp_path):
    net = NETWORKS[name]()
    net.pretrained_cfg = dict(getattr(net, "pretrained_cfg", {})) or {
        "input_size": (3, 16, 16), "mean": (0.5,) * 3, "std": (0.2,) * 3,
    }  # fmt: skip
    exact = exact_copy(net)
    report = to_nir(exact, tmp_path / "x.nir")
    assert [p.name for p in tmp_path.iterdir()] == ["x.nir"]
    graph, back = nir_graph(exact), nir.read(tmp_path / "x.nir")
    assert (len(back.nodes), len(back.edges)) == (report["nodes"], report["edges"])
    assert sorted(map(tuple, back.edges)) == sorted(graph.edges)
    for key, node in graph.nodes.items():
        mine, theirs = node.to_dict(), back.nodes[key].to_dict()
        for field, value in mine.items():
            if isinstance(value, np.ndarray):
                assert np.array_equal(value, theirs[field]), (key, field)
    images, seen = exact_images(exact, 2), {}
    for key, layer in exact.named_modules():
        if isinstance(layer, zoo.neurons.SpikingNeuron):
            layer.register_forward_hook(lambda m, i, out, key=key: seen.__setitem__(key, out))
    with torch.no_grad():
        expected = exact(images, per_step=True)
        got, spikes = interpret(back, images, exact.timesteps)
    assert spikes.keys() == seen.keys()
    for key, value in seen.items():
        assert torch.equal(spikes[key], value.view(spikes[key].shape)), key
    assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("name", "changes", "operation"),
    [
        ("plif_net_w16", {}, "MaxPool"),
        ("svgg11_w8", {"neuron": "clif"}, "neuron CLIF"),
        pytest.param("sresnet19_w16", {"neuron": SOFT}, "reset by subtraction", marks=pytest.mark.slow),
        pytest.param("sresnet19_w16", {"norm": "tebn"}, "factor for each time step", marks=pytest.mark.slow),
    ],
)
def test_what_nir_lacks_is_named(name, changes, operation, tmp_path):
    with pytest.raises(ZooError, match=f"cannot export to NIR: it has no {operation}"):
        to_nir(zoo.create_model(name, timesteps=1, **changes), tmp_path / "x.nir")
    assert list(tmp_path.iterdir()) == []


class MeanOfChannels(nn.Module):
    def forward(self, x):
        return x + x.mean(1, keepdim=True)


class Votes(nn.Module):
    def forward(self, x):
        return x.unflatten(-1, (10, 10)).mean(-1)


def test_means_and_shapes_that_nir_lacks_are_named():
    with pytest.raises(ZooError, match=r"no mean over axes \[1\] of the shape \[-1, 3, 16, 16\]"):
        nir_graph(with_stem(MeanOfChannels()))
    for groups, window, padding in ((3, 3, 1), (1, (1, 3), (0, 1))):
        with pytest.raises(ZooError, match="no convolution in groups, or of a window that is not square"):
            nir_graph(with_stem(nn.Conv2d(3, 3, window, padding=padding, groups=groups)))
    net = with_stem(nn.Identity())
    net.fc = nn.Sequential(nn.Linear(net.fc.in_features, 100), Votes())
    with pytest.raises(ZooError, match=r"no change of the shape \[-1, 100\] to \[-1, 10, 10\]"):
        nir_graph(net)


@pytest.mark.parametrize("side", [4, 1])
def test_a_mean_that_drops_its_axes_is_followed_by_vectors(side):
    """Whatever the side of the map: what a matrix meets is a vector, in NIR too."""
    x = onnx.helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0)
    product = onnx.helper.make_node("MatMul", ["mean", "fc.weight/transposed"], ["product"])
    total = onnx.helper.make_node("Add", ["product", "bias"], ["logits"])
    axes, weight, bias = np.array([2, 3]), np.ones((3, 5), np.float32), np.zeros(5, np.float32)
    values = {"axes": axes, "fc.weight/transposed": weight, "bias": bias}
    constants = {name: onnx.numpy_helper.from_array(value, name) for name, value in values.items()}
    piece = Piece(["input"], ["logits"], [x, product, total], constants)
    builder = _Builder(nir, SimpleNamespace(piece=piece, layers={}, size=(3, side, side)))
    graph = builder.graph({})
    got, _ = interpret(graph, torch.full((2, 3, side, side), 2.0), 1)
    assert torch.equal(got, torch.full((1, 2, 5), 6.0))


def test_pools_that_nir_lacks_are_named(tmp_path):
    for module in (nn.AvgPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)):
        with pytest.raises(ZooError, match="average pool with ceil_mode, or with padding"):
            nir_graph(with_stem(module))
    report = to_nir(with_stem(nn.Identity()), tmp_path / "new" / "x.nir")
    assert (tmp_path / "new" / "x.nir").stat().st_size == report["bytes"]
    with pytest.raises(ZooError, match="is a directory"):
        to_nir(with_stem(nn.Identity()), tmp_path / "new")
