"""Eight bits: proven on a copy that they represent exactly, refused where changed, near float32 on real weights."""

from __future__ import annotations

import itertools
import json
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from test_export import network, optimised
from torch import nn

import export
import export.__main__ as command
import zoo
from export.exact_copy import exact_copy
from export.file import add_description, metadata
from export.images import training_images
from export.int8 import (
    calibrate,
    convolutions,
    doubling,
    exact_in_bytes,
    in_units,
    int8_graph,
    least_change,
    moments,
    nearest,
    scales,
    stored,
)
from export.network import take_apart
from export.run import create_session
from export.verify import run_gate
from zoo import ZooError
from zoo.neurons import IF, LIF, PLIF

pytestmark = pytest.mark.usefixtures("one_thread")


def noise(model, count=8):
    return np.random.default_rng(0).standard_normal((count, *model.pretrained_cfg["input_size"])).astype(np.float32)


def rounding(net):
    return calibrate(take_apart(net, all_steps=True), noise(net))


def in_bytes(net, rounded=None):
    """The graph of a network in eight bits."""
    parts = take_apart(net, all_steps=True)
    return add_description(int8_graph(parts, rounded or calibrate(parts, noise(net))), net)


@pytest.fixture(scope="module")
def right():
    torch.manual_seed(0)
    net = network(timesteps=2)
    return net, in_bytes(net)


@pytest.fixture(scope="module")
def parts(right):
    return take_apart(right[0], all_steps=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "keywords",
    [
        {"neuron": {"name": "lif", "decay": 0.25, "decay_input": True}, "norm": "tdbn", "timesteps": 2},
        {"neuron": {"name": "lif", "reset": "soft"}},
        {"neuron": "plif", "encoding": "latency"},
        {"neuron": "psn"},
        {"neuron": {"name": "plif", "tau": 3.0}, "surrogate": "arctan", "timesteps": 2},  # no fast form
    ],
    ids=str,
)
def test_the_gate_passes(keywords, tmp_path):
    net = network(**keywords)
    images = np.abs(noise(net)).clip(0, 1) if "encoding" in keywords else noise(net)
    report = export.to_onnx(net, tmp_path / "x.onnx", precision="int8", calibration=images, spike_counts=True)
    assert report["metadata"]["precision"] == "int8"
    assert report["metadata"]["calibration_images"] == "8"
    assert over_bytes(onnx.load(tmp_path / "x.onnx")) == len(convolutions(take_apart(net, all_steps=True)))


def over_bytes(proto):
    """How many convolutions are between operations that make one over bytes of them."""
    made = {name: node.op_type for node in proto.graph.node for name in node.output}
    rounded = {node.input[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    found = [node for node in proto.graph.node if node.op_type == "Conv" and node.output[0] in rounded]
    assert all(made[name] == "DequantizeLinear" for node in found for name in node.input)
    return len(found)


def test_onnx_runtime_computes_the_convolutions_over_bytes(right, tmp_path):
    _, proto = right
    kinds = [node.op_type for node in optimised(proto.SerializeToString(), tmp_path).graph.node]
    assert kinds.count("QLinearConv") == over_bytes(proto) > 2


@pytest.mark.slow
def test_spikes_of_a_stem_are_turned_once(tmp_path):
    """ONNX Runtime turns layouts where bytes with channels last meet others: not at every shortcut and step."""
    torch.manual_seed(0)
    net = zoo.create_model("sresnet19_w16", timesteps=2).eval()
    export.to_onnx(net, tmp_path / "x.onnx", precision="int8", calibration=noise(net))
    kinds = [node.op_type for node in optimised(tmp_path / "x.onnx", tmp_path).graph.node]
    assert kinds.count("Transpose") <= 4  # 12 when each of the three first blocks turned its currents


@pytest.mark.parametrize(
    ("name", "others"),
    [
        pytest.param("sew_resnet19_w16", set(), marks=pytest.mark.slow),
        ("plif_net_w16", set()),
        pytest.param("ms_resnet19_w16", {"shortcut"}, marks=pytest.mark.slow),
    ],
)
def test_whole_numbers_are_found_in_other_families(name, others):
    """Sums of spikes (SEW) and their maxima (PLIF) are whole; the membrane currents on the shortcuts of MS are not."""
    net = zoo.create_model(name, timesteps=1).eval()
    found = convolutions(take_apart(net, all_steps=True))
    convs = [n for n, m in net.named_modules() if isinstance(m, torch.nn.Conv2d) and n != "conv1"]
    assert set(found) == {f"{n}.weight" for n in convs if not others & set(n.split("."))}


def constant(proto, name, change):
    tensor = next(t for t in proto.graph.initializer if t.name.endswith(name))
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name))


def node(proto, kind):
    return next(n for n in proto.graph.node if n.op_type == kind)


def swap_spikes(proto):
    a, b = [n for n in proto.graph.node if n.op_type == "DequantizeLinear" and n.name.endswith("/input")][1:3]
    a.input[0], b.input[0] = b.input[0], a.input[0]


def lie(proto):
    entry = next(p for p in proto.metadata_props if p.key == "currents")
    told = json.loads(entry.value)
    name = next(iter(told))
    told[name][0] *= 1.5
    entry.value = json.dumps(told)


def one_more(array):
    array.flat[0] += -1 if array.flat[0] > 0 else 1
    return array


CHANGES = {
    "weight": lambda p: constant(p, "conv2.weight", lambda a: np.where(a == a.max(), a - 9, a).astype(a.dtype)),
    "scale": lambda p: constant(p, "conv2.weight/scale", lambda a: a * np.float32(1.1)),
    "bias": lambda p: constant(p, "conv2.weight/bias", lambda a: a + 300),
    "threshold": lambda p: constant(p, node(p, "LessOrEqual").input[1], lambda a: a * np.float32(1.2)),
    "reset": lambda p: node(p, "ThresholdedRelu").attribute[0].__setattr__("f", -1e9),
    "spikes": swap_spikes,
    "told": lie,
    "one rounding": lambda p: constant(p, "conv2.weight", one_more),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_graph_is_refused(right, parts, change, monkeypatch):
    net, proto = right
    wrong = onnx.ModelProto.FromString(proto.SerializeToString())
    CHANGES[change](wrong)
    assert wrong.SerializeToString() != proto.SerializeToString()
    monkeypatch.setattr(sys.modules["export.verify"], "take_apart", lambda *_, **__: parts)  # traced once
    with pytest.raises(ZooError, match="verification failed"):
        export.verify(net, wrong.SerializeToString())


def test_the_right_graph_passes(right):
    net, proto = right
    export.verify(net, proto.SerializeToString())
    assert all(scale > 0 and 0 <= zero <= 255 for scale, zero, _ in metadata(proto, "currents").values())


@pytest.mark.parametrize(("low", "high"), [(-1.5, 4.0), (1.0, 2.0), (-2.0, -1.0)])
def test_currents_and_zero_lie_in_their_range(low, high):
    scale, zero = stored(low, high)
    assert (0 - zero) * scale == pytest.approx(min(low, 0), abs=scale)
    assert (255 - zero) * scale == pytest.approx(max(high, 0), abs=scale)


def test_weights_are_rounded_by_output_channel():
    weight = np.float32([[[[1.0]], [[-0.5]]], [[[0.0]], [[0.0]]]])
    assert scales(weight).tolist() == pytest.approx([1 / 127, 1])
    assert nearest(weight).reshape(2, 2).tolist() == [[127, -64], [0, 0]]


def test_a_pruned_channel_keeps_its_bias(tmp_path):
    net = network(timesteps=1)
    block = net.stages[0][0]
    with torch.no_grad():
        block.conv1.weight[:4], block.bn1.weight[:4], block.bn1.bias[:4] = 0, 0, torch.tensor([0.3, 0.6, 0.9, 1.2])
    export.to_onnx(net, tmp_path / "x.onnx", precision="int8", calibration=noise(net))
    model = onnx.load(tmp_path / "x.onnx")
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    name = next(n for n in arrays if n.endswith("stages.0.0.conv1.weight/bias"))
    kept = arrays[name] * arrays[name.removesuffix("bias") + "scale"]
    assert kept[:4] == pytest.approx([0.3, 0.6, 0.9, 1.2], rel=1e-5)


@pytest.mark.parametrize("factor", [100, pytest.param(0.01, marks=pytest.mark.slow)])
def test_scales_of_other_images_are_refused(factor):
    """With them no neuron, or nearly every one, spikes behind the stem."""
    torch.manual_seed(0)
    net = network(timesteps=2)
    rounded = {name: r._replace(scale=factor * r.scale) for name, r in rounding(net).items()}
    proto = in_bytes(net, rounded)
    with pytest.raises(ZooError, match="verification failed on the real weights"):
        run_gate(net, proto, noise(net, 32))


@pytest.mark.parametrize("groups", [1, 4])
def test_rounding_for_the_output_beats_rounding_to_nearest(groups):
    """Inputs that are correlated, as spikes are; the second moments are those of the convolution itself."""
    torch.manual_seed(0)
    shared = torch.rand(64, 1, 12, 12) * torch.rand(1, 8, 1, 1)
    x = (shared + 0.3 * torch.rand(64, 8, 12, 12) > 0.5).float()
    weight = torch.randn(16, 8 // groups, 3, 3).numpy()
    form = {"padding": 1, "stride": 2, "groups": groups}
    moment = moments(x, [3, 3], [2, 2], [1, 1, 1, 1], [1, 1], groups=groups, rows=10**6)
    exact = torch.nn.functional.conv2d(x, torch.from_numpy(in_units(weight)), **form)

    def error(rounded):
        return (torch.nn.functional.conv2d(x, torch.from_numpy(rounded).float(), **form) - exact).square().sum()

    best = least_change(weight, moment)
    assert error(best) < 0.8 * error(nearest(weight))
    assert np.abs(best - in_units(weight)).max() < 2
    flat = (nearest(weight) - in_units(weight)).reshape(groups, -1, moment.shape[1])
    told = np.einsum("goi,gij,goj->", flat, moment.numpy(), flat)
    assert told == pytest.approx(error(nearest(weight)).item(), rel=1e-3)


def test_an_error_is_made_up_for_in_every_later_block(monkeypatch):
    weight, x = torch.randn(4, 3, 3, 3).numpy(), torch.rand(50, 27)
    moment = (x.T @ x)[None]
    in_one = least_change(weight, moment)
    monkeypatch.setattr("export.int8._BLOCK", 8)
    assert np.array_equal(least_change(weight, moment), in_one)


def test_which_neurons_have_the_fast_form():
    assert doubling(LIF(4), 4) == 2
    assert doubling(IF(4), 4) == 1
    assert doubling(PLIF(4), 4) == 2
    assert doubling(LIF(4, decay=0.7), 4) is None
    assert doubling(LIF(4, reset="soft"), 4) is None
    assert doubling(LIF(100), 100) is None


def test_the_proof_tells_currents_of_convolutions_apart():
    net = network(timesteps=1)
    _, rounded = exact_in_bytes(take_apart(exact_copy(net), all_steps=True), 1.0)
    zeros = [r.zero for r in rounded.values()]
    assert all(a != b for a, b in itertools.pairwise(zeros))


@pytest.mark.slow
def test_a_proof_of_other_operations_is_none():
    fast, slow = network("plif", timesteps=2), network({"name": "plif", "tau": 3.0}, timesteps=2)
    proto = in_bytes(fast)
    with pytest.raises(ZooError, match="operations are not those"):
        run_gate(slow, proto, None)


@pytest.mark.slow
@pytest.mark.data
def test_accuracy_on_real_images(data_root, tmp_path):
    model = zoo.load("sresnet19_w16_gs.t2_cifar10")
    data = zoo.load_dataset("cifar10", data_root)
    mean, std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
    training = export.images.normalise(data.train_images[:64].numpy(), mean, std)
    export.to_onnx(model, tmp_path / "x.onnx", precision="int8", calibration=training, verify=False)
    session = create_session((tmp_path / "x.onnx").read_bytes(), threads=1)
    images = export.images.normalise(data.test_images[:500].numpy(), mean, std)
    (logits,) = session.run(["logits"], {"input": images})
    assert (logits.argmax(1) == data.test_labels[:500].numpy()).mean() > 0.70


def test_networks_of_frames_take_frames(tmp_path):
    net, frames = network(encoding="frames", timesteps=2), np.ones((4, 2, 3, 16, 16), np.float32)
    np.savez(tmp_path / "frames.npz", images=frames)
    assert np.array_equal(training_images(net, str(tmp_path / "frames.npz"), None, 3), frames[:3])
    with pytest.raises(ZooError, match=r"takes frames \[2, 3, \d+, \d+\], and digits has images: i2e:digits turns"):
        training_images(net, "digits", None, 3)


def test_a_weight_has_one_scale():
    net = network(timesteps=2)
    net.stages[0][0].conv2.weight = net.stages[0][0].conv1.weight
    with pytest.raises(ZooError, match=r"no int8: stages.0.0.conv2.weight is used twice"):
        rounding(net)
    net = network(timesteps=2)
    block = net.stages[0][0]
    block.bn2 = nn.Sequential(block.bn2, nn.ReLU(), OnceMore(block.conv2))  # of spikes, then of currents
    with pytest.raises(ZooError, match=r"conv2.*weight is used twice"):
        rounding(net)


class OnceMore(nn.Module):
    """A layer that the network has in another place."""

    def __init__(self, layer):
        super().__init__()
        self.layers = [layer]

    def forward(self, x):
        return self.layers[0](x)


class OfSequences(nn.Module):
    """A convolution of positions in a row, as transformers have them, between neurons."""

    def __init__(self, channels, timesteps):
        super().__init__()
        self.lif1, self.lif2 = LIF(timesteps), LIF(timesteps)
        self.conv, self.bn = nn.Conv1d(channels, channels, 3, padding=1), nn.BatchNorm1d(channels)

    def forward(self, x):
        return self.lif2(self.bn(self.conv(self.lif1(2 * x.flatten(2))))).unflatten(2, x.shape[2:])


def test_a_convolution_of_sequences_stays_in_float32(tmp_path):
    net = network(timesteps=2)
    net.stages[0][0] = OfSequences(net.stages[0][0].conv1.in_channels, 2).eval()
    export.to_onnx(net, tmp_path / "x.onnx", precision="int8", calibration=noise(net))
    assert over_bytes(onnx.load(tmp_path / "x.onnx")) == len(convolutions(take_apart(net, all_steps=True))) > 0
    assert "stages.0.0.conv.weight" not in rounding(net)


def test_bad_input(tmp_path, monkeypatch):
    net = network()
    monkeypatch.setattr(sys.modules["export.to_onnx"], "calibrate", lambda *_: pytest.fail("calibrated"))
    images = noise(net)
    for keywords, words in (
        ({"precision": "int4"}, "unknown precision 'int4'"),
        ({"precision": "int8"}, "give calibration images"),
        ({"calibration": images}, "give calibration images"),
        ({"precision": "int8", "calibration": images, "layout": "step"}, "int8 has the layout flat alone"),
        ({"precision": "int8", "calibration": images, "layout": "round"}, "unknown layout 'round'"),
        ({"precision": "int8", "calibration": images[:, :2]}, "expected images"),
        ({"precision": "int8", "calibration": images[:0]}, "expected images"),
    ):
        with pytest.raises(ZooError, match=words):
            export.to_onnx(net, tmp_path / "x.onnx", **keywords)
    assert training_images(net, "digits", None, 4).shape == (4, 3, 16, 16)  # brought to the network's size
    with pytest.raises(ZooError, match="--calibration names one"):
        command.main(["svgg11_w8", "-o", str(tmp_path / "x.onnx"), "--precision", "int8"])
    assert not list(tmp_path.iterdir())


def test_the_command_takes_scales_from_training_images(tmp_path):
    how = ["--timesteps", "1", "--precision", "int8", "--calibration", "digits", "--calibration-images", "16"]
    how += ["--verify", "quick", "--json", str(tmp_path / "x.json")]
    command.main(["svgg11_w8", "-o", str(tmp_path / "x.onnx"), *how])
    report = json.loads((tmp_path / "x.json").read_text())
    assert report["metadata"]["precision"] == "int8"
    assert report["metadata"]["calibration_images"] == "16"
