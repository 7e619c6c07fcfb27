"""ONNX export: the graph is flat, equals PyTorch, says what it is; the gate that checks this can fail."""

from __future__ import annotations

import itertools
import json
import sys
import types

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import ROOT, tiny
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

import export
import export.__main__ as command
import zoo
from export import bench_ort
from export.exact_copy import exact_copy, exact_images
from export.file import add_description, add_spike_counts, describe, is_ours
from export.images import load_images, network_inputs, normalise
from export.network import build_graph, inference_copy
from export.neurons import trace_neurons
from export.run import CPU, OPTIMIZATIONS, Runner, create_session
from export.verify import check_same_operations, run_gate
from zoo import SpikeCounter, ZooError
from zoo.neurons import GLIF, PLIF, SpikingNeuron
from zoo.neurons.base import unfold_steps
from zoo.result import check


def network(neuron="lif", timesteps=3, **kwargs):
    """A tiny network on 16 x 16 images with active neurons: a block near the identity, then one that downsamples."""
    net = tiny((1, 1), stem=8, neuron=neuron, timesteps=timesteps, **kwargs)
    net.pretrained_cfg = {
        "architecture": "tiny",
        "input_size": (3, 16, 16),
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.25, 0.3),
        "label_names": [str(i) for i in range(net.num_classes)],
    }
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 2.0)
            module.momentum = None  # the plain average of the few batches below
    with torch.no_grad():
        for _ in range(5):
            net(2 * torch.randn(8, *([timesteps] if net.encoding == "frames" else []), 3, 16, 16))
    return net.eval()


def graph_layers(net):
    """The names of its neuron layers."""
    return [name for name, module in net.named_modules() if isinstance(module, SpikingNeuron)]


def optimised(model, folder, level="ALL"):
    """What ONNX Runtime makes of a graph."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3  # such a file is for this machine alone, which it warns of
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("onnx")


@pytest.fixture(scope="module")
def exact(folder):
    """A network of exact arithmetic and its file."""
    torch.manual_seed(0)
    net = exact_copy(network())
    export.to_onnx(net, folder / "exact.onnx", tag="t3_test", verify=False)
    return net, folder / "exact.onnx"


@pytest.fixture(scope="module")
def sresnet(folder):
    """The command line's export of an untrained network, its file and its report."""
    path, report = folder / "sresnet.onnx", folder / "sresnet.json"
    command.main(["sresnet20_w16", "-o", str(path), "--timesteps", "2", "--json", str(report)])
    return path, json.loads(report.read_text())


def test_command_exports_and_verifies(sresnet):
    path, report = sresnet
    assert report["bytes"] == path.stat().st_size
    assert report["metadata"]["initialisation"] == "seed 0"
    dyadic, real = report["verification"]["dyadic"], report["verification"]["real"]
    assert dyadic["levels"] == list(OPTIMIZATIONS)
    assert len(dyadic["spike_rates"]) == 19
    assert all(rate > 0 for rate in dyadic["spike_rates"].values())
    assert real["inputs"] == "random inputs"
    assert real["flip_rate"] <= 1e-3
    assert list(path.parent.glob(".*")) == []


def test_graph_is_flat_and_portable(sresnet):
    proto = onnx.load(sresnet[0])
    assert not proto.functions
    assert [value.name for value in (*proto.graph.input, *proto.graph.output)] == ["input", "logits"]
    assert {node.domain for node in proto.graph.node} == {""}
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 20)]
    assert proto.ir_version <= 10
    assert proto.producer_name == "snn-zoo"
    assert str(ROOT).encode() not in sresnet[0].read_bytes()
    onnx.checker.check_model(proto, full_check=True)


def test_learned_numbers_are_pytorchs_own_and_change_no_node():
    """PyTorch's sigmoid and NumPy's, with which constants were folded once, differ in the last bit for some of these,
    and a PLIF may learn a factor close to 1, which the exporter's rules take for 1. Names are those of a layer that is
    traced alone: the exact copy, whose layers may be known already, is compared with the network by them."""
    layers = {str(w): PLIF(2) for w in (0.5, -13.2, -1.0, 0.2, 0.7, 1.5, 1.9, 3.0, 13.2, 20.0)}
    for w, layer in layers.items():
        nn.init.constant_(layer.w, float(w))
    glif = GLIF(2)
    for i, parameter in enumerate(glif.parameters()):
        nn.init.constant_(parameter, 0.1 * i)
    traced = trace_neurons(layers | {"glif": glif}, dict.fromkeys([*layers, "glif"], (3,)))
    pieces = {name: dynamics.later[0] for name, dynamics in traced.items()}
    known = {
        name: {float(x) for tensor in piece.constants.values() for x in numpy_helper.to_array(tensor).flat}
        for name, piece in pieces.items()
    }
    nodes = {name: [(node.op_type, list(node.output)) for node in piece.nodes] for name, piece in pieces.items()}
    assert "Sigmoid" not in {kind for of_layer in nodes.values() for kind, _ in of_layer}
    assert glif.constants()["threshold"].item() in known["glif"]
    for w, layer in layers.items():
        assert {layer.gain.item(), layer.decay.item()} <= known[w]
        assert nodes[w] == nodes["0.5"]


def test_gate_catches_other_weights(exact):
    _, path = exact
    torch.manual_seed(1)
    other = exact_copy(network())
    with pytest.raises(ZooError, match="the file's metadata say weights_sha256"):
        export.verify(other, path.read_bytes())
    with pytest.raises(ZooError, match="failed on the real weights"):
        run_gate(inference_copy(other), onnx.load(path), None)


def test_spike_counts_equal_the_counter(exact, tmp_path):
    net, _ = exact
    export.to_onnx(net, tmp_path / "x.onnx", spike_counts=True, verify=False)
    session, images = create_session((tmp_path / "x.onnx").read_bytes()), exact_images(net, 3)
    names = [output.name for output in session.get_outputs()]
    assert names == ["logits", *(f"spikes/{name}" for name in graph_layers(net))]
    outputs = dict(zip(names, session.run(None, {"input": images.numpy()}), strict=True))
    for i in range(3):
        with torch.no_grad(), SpikeCounter(net) as counter:
            net(images[i : i + 1])
        summary = counter.summary()
        for name, spikes in summary["spikes_per_layer"].items():
            assert outputs[f"spikes/{name}"].shape == (3, 3)
            assert outputs[f"spikes/{name}"][i].sum() == spikes > 0
        steps = sum(value[i] for name, value in outputs.items() if name != "logits")
        assert steps.tolist() == summary["spikes_per_step"]
    proto = onnx.load(tmp_path / "x.onnx")
    assert add_spike_counts(proto) is proto


def test_metadata_is_complete(exact, sresnet):
    proto = onnx.load(exact[1])
    about = {p.key: p.value for p in proto.metadata_props}
    assert (about["architecture"], about["tag"]) == ("tiny", "t3_test")
    assert len(about["weights_sha256"]) == 64
    assert about["pixels"] == "RGB pixels in 0 .. 255 divided by 255, less mean, divided by std"
    assert all(about[key] in proto.doc_string for key in ("pixels", "license"))
    for key, value in {
        "timesteps": 3, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "input_size": [3, 16, 16],
        "labels": [str(i) for i in range(10)], "encoding": "direct",
        "neuron": {"decay": 0.5, "threshold": 1.0, "reset": "hard", "decay_input": False},
    }.items():  # fmt: skip
        assert json.loads(about[key]) == value
    proto = onnx.load(sresnet[0])
    values = json.loads({p.key: p.value for p in proto.metadata_props}["spike_values"])
    assert list(values) == graph_layers(zoo.create_model("sresnet20_w16"))
    assert {f"{value}/1" for value in values.values()} <= {name for node in proto.graph.node for name in node.output}


def test_metadata_names_the_checkpoint_and_each_neuron(tmp_path):
    model = zoo.create_model("sresnet19_w16", neuron={"name": "plif", "decay": 0.5})
    model.lif1.w.data.fill_(1.0)
    checksum = zoo.save_checkpoint(tmp_path / "c", model, tag="t4_test", data_cfg={"label_names": ["a"] * 10})
    assert describe(model)["weights_sha256"] == checksum  # the file that the weights would be saved to
    loaded, extra = command.load(str(tmp_path / "c"), timesteps=2)
    about = describe(loaded)
    assert extra == {}
    assert (about["tag"], about["weights_sha256"], about["timesteps"]) == ("t4_test", checksum, "2")
    neurons = json.loads(about["neuron"])
    assert neurons["lif1"]["decay"] == pytest.approx(1 - 1 / (1 + np.exp(-1)))
    assert neurons["stages.0.0.lif1"]["decay"] == 0.5
    with torch.no_grad():
        loaded.fc.weight.add_(1.0)  # another network: nothing that is known of the first one is true of it
    changed = describe(loaded)
    assert changed["weights_sha256"] not in (checksum, None)
    assert changed["tag"] == ""
    assert not {"epochs", "seed", "test_reads"} & changed.keys()
    assert describe(loaded, "mine")["tag"] == "mine"
    with pytest.raises(ZooError, match="tag must be a tag of letters"):
        describe(loaded, "bad tag!")


@pytest.mark.slow
def test_export_leaves_the_model_alone_and_repeats_itself(tmp_path):
    net = network("plif").train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modules = list(net.modules())
    first = export.to_onnx(net, tmp_path / "x.onnx", verify=False)
    export.verify(net, (tmp_path / "x.onnx").read_bytes())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert list(net.modules()) == modules
    assert all(module.training for module in modules)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    assert export.to_onnx(net, tmp_path / "y.onnx", verify=False)["sha256"] == first["sha256"]


class Adaptive(SpikingNeuron):
    """A neuron of a user's own: its threshold rises with each spike, and decays back."""

    def __init__(self, timesteps, **others):
        super().__init__(timesteps, **others)
        self.back = nn.Parameter(torch.tensor(0.3))

    def step(self, x_t, state=None):
        v, a = (torch.zeros_like(x_t),) * 2 if state is None else state
        u = 0.9 * v + x_t
        s = self.surrogate.spike(u - (self.threshold + a))
        return s, (u * (1 - s), self.back * a + 0.2 * s)


class Refractory(SpikingNeuron):
    """Silent for a step after each spike, which a whole number counts; its drive is one for the whole layer."""

    def step(self, x_t, state=None):
        if state is None:
            state = torch.zeros_like(x_t, dtype=torch.int32), torch.zeros_like(x_t[:, :1, :1, :1])
        wait, drive = state
        s = self.surrogate.spike(x_t + drive - self.threshold) * (1 - (wait >= 1).float())
        return s, (s.to(torch.int32), 0.5 * drive + 0.25 * s.mean((1, 2, 3), keepdim=True))


class Broken(Adaptive):
    def step(self, x_t, state=None):
        return x_t.sum(), None


def of_neurons(make, every=2, **kwargs):
    """A network whose neuron layers are made so: every second one, each of another shape, or all."""
    net = network(**kwargs)
    for name in graph_layers(net)[every - 1 :: every]:
        net.set_submodule(name, make(net.timesteps))
    return net


class Masked(SpikingNeuron):
    """It chooses by a truth value, which a graph has as a constant."""

    def __init__(self, timesteps, **others):
        super().__init__(timesteps, **others)
        self.register_buffer("all", torch.tensor(True))

    def step(self, x_t, state=None):
        u = x_t if state is None else 0.5 * state + x_t
        s = self.surrogate.spike(torch.where(self.all, u, 0 * u) - self.threshold)
        return s, u * (1 - s)


def test_a_file_with_truth_values_is_verified(tmp_path):
    net = network(timesteps=1)
    net.lif1 = Masked(1)
    export.to_onnx(net, tmp_path / "x.onnx", verify=False)
    export.verify(net, tmp_path / "x.onnx")


@pytest.mark.slow
def test_a_neuron_of_ones_own_is_traced_from_its_step(tmp_path):
    report = export.to_onnx(of_neurons(Adaptive, timesteps=2), tmp_path / "x.onnx")
    assert report["verification"]["real"]["flip_rate"] < 1e-3
    neuron = json.loads(report["metadata"]["neuron"])
    assert neuron == {"kind": "Adaptive", "threshold": 1.0, "back": pytest.approx(0.3)}
    with pytest.raises(ZooError, match=r"'lif1', Broken: its step gives torch.float32 \[\] instead of spikes"):
        export.to_onnx(of_neurons(Broken), tmp_path / "y.onnx")


class Sliding(SpikingNeuron):
    """It keeps its last currents: its state grows (a sliding PSN, Fang et al. 2023)."""

    share = 0.5

    def step(self, x_t, state=None):
        past = [*(state or ()), x_t][-3:]
        u = sum(self.share**i * x for i, x in enumerate(reversed(past)))
        return self.surrogate.spike(u - self.threshold), past


def test_a_state_that_grows_and_a_number_of_the_class_are_traced(monkeypatch):
    net, images = network(timesteps=4), torch.randn(2, 3, 16, 16)
    net.lif1 = Sliding(4)
    seen = []
    for change in (
        lambda: None,
        lambda: monkeypatch.setattr(Sliding, "share", 0.25),
        lambda: monkeypatch.setattr(Sliding, "step", Inhibited.step),  # as a notebook takes a changed file over
        lambda: monkeypatch.setattr(sys.modules[__name__], "HELD_BACK", 0.25),  # what its code reads
    ):
        change()
        (logits,) = Runner(add_description(build_graph(net), net))(images.numpy(), ["logits"])
        seen.append(net(images).detach().numpy())
        assert np.allclose(logits, seen[-1], atol=1e-5)
    assert all(np.abs(a - b).max() > 0.01 for a, b in itertools.pairwise(seen))


HELD_BACK = 0.5


class Inhibited(SpikingNeuron):
    """Its layer holds it back as a whole, and its numbers hang on that layer's channels."""

    def step(self, x_t, state=None):
        x = x_t * (8 / x_t.shape[1])
        u = (0 if state is None else state) + x - HELD_BACK * x.flatten(1).mean(1).reshape(-1, *[1] * (x.dim() - 1))
        s = self.surrogate.spike(u - self.threshold)
        return s, u * (1 - s)


def test_a_neuron_that_looks_at_its_whole_layer_is_traced_for_each(tmp_path):
    export.to_onnx(of_neurons(Inhibited, timesteps=2), tmp_path / "x.onnx", verify="quick")


def test_a_network_with_a_pruned_layer_is_verified(tmp_path):
    net = network(timesteps=2)
    nn.init.zeros_(net.stages[0][0].conv1.weight)
    export.to_onnx(net, tmp_path / "x.onnx", verify="quick")


def halved(layer):
    prune.l1_unstructured(layer, "weight", 0.5)


@pytest.mark.parametrize("computed", [halved, parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm` is deprecated")
def test_weights_that_are_computed_are_exported_as_they_come_out(computed, tmp_path):
    net = network(timesteps=2)
    convolution = net.stages[0][0].conv1
    computed(convolution)
    net.eval()(torch.zeros(1, 3, 16, 16))
    weight, before = convolution.weight.detach().clone(), set(net.state_dict())
    export.to_onnx(net, tmp_path / "x.onnx", precision="fp16", verify="quick")
    held = [numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "x.onnx").graph.initializer]
    assert any(np.array_equal(array, weight.half().numpy()) for array in held)
    assert set(net.state_dict()) == before
    assert torch.equal(convolution.weight, weight)


@pytest.mark.parametrize("layout", ["flat", "step"])
def test_a_normalisation_behind_a_fully_connected_layer_is_verified(layout, tmp_path):
    net = network(timesteps=2)
    net.fc = nn.Sequential(net.fc, nn.BatchNorm1d(net.num_classes)).eval()
    net.fc[1].running_mean += torch.arange(10.0)
    export.to_onnx(net, tmp_path / "x.onnx", layout=layout, verify="quick")


def test_a_layer_of_one_weight_is_verified(tmp_path):
    net = network(timesteps=1)
    net.conv1 = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Conv2d(1, 1, 1), nn.Conv2d(1, net.conv1.out_channels, 1))
    export.to_onnx(net, tmp_path / "x.onnx", verify="quick")


def greatest(net, x, **_):
    return unfold_steps(net.forward_classifier(net.forward_pre_logits(x)), net.timesteps).amax(0)


def test_a_head_that_is_no_mean_over_time_is_told_of_the_layout_that_has_it(tmp_path):
    net = network(timesteps=2)
    net.forward_head = types.MethodType(greatest, net)
    with pytest.raises(ZooError, match=r"logits differ .*a head that is no mean over time has the layout function"):
        export.to_onnx(net, tmp_path / "x.onnx", verify="quick")
    export.to_onnx(net, tmp_path / "x.onnx", layout="function", verify="quick")


def test_a_forward_that_knows_one_precision_is_one_error(tmp_path):
    net = network(timesteps=1)
    net.conv1 = nn.Sequential(Applied(torch.Tensor.float), net.conv1)
    with pytest.raises(ZooError, match="forward cannot be run in float64, to compare: "):
        export.to_onnx(net, tmp_path / "x.onnx", verify="quick")


@pytest.mark.parametrize("name", ["bn1.running_var", "fc.bias"])
def test_a_network_that_diverged_is_refused(name, tmp_path):
    net = network(timesteps=2)
    net.state_dict()[name][0] = float("nan")
    with pytest.raises(ZooError, match=rf"the network: .*{name}.* NaN"):
        export.to_onnx(net, tmp_path / "x.onnx", verify=False)
    assert not (tmp_path / "x.onnx").exists()


def test_votes_over_many_steps_are_verified(tmp_path):
    """The mean of ten votes rounds, and PyTorch and ONNX Runtime add five such means in another order."""
    export.to_onnx(zoo.create_model("plif_net_w16", timesteps=5).eval(), tmp_path / "x.onnx", verify="quick")


class MeanOverPositions(nn.Module):
    def forward(self, x):
        return x.mean((2, 3), keepdim=True)


def test_the_exact_copy_has_means_over_a_power_of_two():
    """Which module or function ever takes them; where a network is built for its size, that stays."""
    net = network(timesteps=1)
    net.pool = MeanOverPositions()
    net.pretrained_cfg |= {"input_size": (3, 14, 14)}
    assert exact_copy(net).pretrained_cfg["input_size"] == (3, 8, 8)
    net.pool = nn.AvgPool2d(7)
    assert exact_copy(net).pretrained_cfg["input_size"] == (3, 14, 14)


def test_a_stem_of_stride_3_leaves_a_power_of_two_of_another_size():
    net = zoo.create_model("sresnet19_w16", timesteps=1, stem_stride=3)
    side = exact_copy(net).pretrained_cfg["input_size"][1]
    seen = []
    net.pool.register_forward_pre_hook(lambda _, x: seen.append(x[0][0, 0].numel()))
    net(torch.zeros(1, 3, side, side))
    assert 8 <= side < 32
    assert seen[0] & (seen[0] - 1) == 0


def test_the_body_of_a_loop_is_compared_too():
    twin = build_graph(network(timesteps=2), "loop")
    other = onnx.ModelProto.FromString(twin.SerializeToString())
    check_same_operations(twin, other)
    loop = next(node for node in other.graph.node if node.op_type == "Loop")
    next(a.g for a in loop.attribute if a.name == "body").node[-1].op_type = "Neg"
    with pytest.raises(ZooError, match="operations are not those"):
        check_same_operations(twin, other)


class Applied(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    "pool",
    [
        nn.Sequential(
            nn.AvgPool2d(3, 1, padding=1),
            Applied(lambda x: F.avg_pool2d(x, (3, 5), 1, (1, 2), count_include_pad=False)),
            nn.AvgPool2d(3, 2, ceil_mode=True),
        ),
        pytest.param(nn.AvgPool2d(3, 2, 1, count_include_pad=False), marks=pytest.mark.slow),
    ],
)
def test_average_pools_of_any_window_are_proven_exactly(pool, tmp_path):
    """On every processor: a mean over nine numbers is rounded, and not by all programs in one way."""
    net = network(timesteps=1)
    net.set_submodule("conv1", nn.Sequential(pool, net.conv1))
    exact, x = exact_copy(net), torch.zeros(2, 3, 16, 16)
    assert exact(x).shape == net(x).shape
    export.to_onnx(net, tmp_path / "pooled.onnx")
    other = onnx.load(tmp_path / "pooled.onnx")
    windows = [attribute for node in other.graph.node if node.op_type == "AveragePool" for attribute in node.attribute]
    next(attribute for attribute in windows if attribute.name == "strides").ints[:] = [3, 3]
    with pytest.raises(ZooError, match=r"operations are not those"):
        export.verify(net, other.SerializeToString())


def test_networks_that_cannot_be_exported(tmp_path):
    with pytest.raises(ZooError, match="not a spiking network"):
        export.to_onnx(nn.Linear(2, 2), tmp_path / "x.onnx")
    headless = network()
    headless.reset_classifier(0)
    with pytest.raises(ZooError, match="without a classifier"):
        export.to_onnx(headless, tmp_path / "x.onnx")
    shared = network()
    shared.lif_hidden = shared.lif1
    with pytest.raises(ZooError, match="under two names"):
        export.to_onnx(shared, tmp_path / "x.onnx")
    net = network(timesteps=1)
    net.fc = nn.Linear(net.fc.in_features, 7)
    with pytest.raises(ZooError, match="it has 10 classes, and its classifier gives 7 numbers: reset_classifier"):
        export.to_onnx(net, tmp_path / "x.onnx")
    with pytest.raises(ZooError, match="this SpikingNetwork has no name: register the class"):
        export.to_onnx(zoo.SpikingNetwork(), tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_fails_the_gate_is_not_written(tmp_path, monkeypatch):
    graph = build_graph(network(timesteps=1))
    torch.manual_seed(1)
    monkeypatch.setattr(sys.modules["export.to_onnx"], "build_graph", lambda *_: graph)
    with pytest.raises(ZooError, match="failed on the real weights"):
        export.to_onnx(network(timesteps=1), tmp_path / "x.onnx", verify="quick")
    assert list(tmp_path.iterdir()) == []


def test_verification_images_are_checked(exact):
    net, path = exact
    with pytest.raises(ZooError, match="cut short"):
        export.verify(net, b"not ONNX")
    for images in (np.zeros((2, 1, 16, 16), np.uint8), np.full((1, 3, 16, 16), np.nan, np.float32), np.zeros((1, 3))):
        with pytest.raises(ZooError, match=r"expected|NaN"):
            export.verify(net, path.read_bytes(), images)
    report = export.verify(net, path.read_bytes(), exact_images(net, 2).numpy())
    assert report["real"]["images"] == 2
    assert report["real"]["inputs"] == "given images"
    assert report["real"]["max_logit_difference"] == 0


def test_benchmark_measures_what_pytorch_does(exact):
    net, path = exact
    images = exact_images(net, 70)
    with torch.no_grad(), SpikeCounter(net) as counter:
        classes = net(images).argmax(1)
    labels = classes.clone()
    labels[:7] = (labels[:7] + 1) % 10
    result = export.benchmark(path, images, labels, batch_sizes=(1, 4), threads=(1, 2), runs=3, dataset="noise")
    assert (result["precision"], result["layout"]) == ("fp32", "flat")
    check(result, "this test")
    summary = counter.summary()
    for key in ("spikes_per_image", "spikes_per_layer", "spikes_per_step"):
        assert result[key] == pytest.approx(summary[key])
    assert result["top1"] == pytest.approx(90)
    assert [(row["batch"], row["threads"]) for row in result["latency"]] == [(1, 1), (4, 1), (1, 2), (4, 2)]
    assert all(0 < row["p50_ms"] <= row["p95_ms"] for row in result["latency"])
    assert result["provider"] == CPU
    assert (result["model"], result["tag"], result["images"]) == ("tiny", "t3_test", 70)
    assert (result["split"], result["epochs"], result["seed"], result["test_reads"]) == ("test", None, None, None)


def test_benchmark_command_knows_the_data_sets(sresnet, tmp_path, capsys):
    result = tmp_path / "result.json"
    words = ["--data", "digits", "--limit", "8", "--runs", "1", "--no-memory", "--json", str(result)]
    bench_ort.main([str(sresnet[0]), *words])
    assert "spikes per image" in capsys.readouterr().out
    measured = json.loads(result.read_text())
    check(measured, "this test")
    assert (measured["dataset"], measured["images"], measured["timesteps"]) == ("digits", 8, 2)
    net = network(timesteps=1)
    net.pretrained_cfg["label_names"][3] = "three"
    export.to_onnx(net, tmp_path / "x.onnx", verify=False)
    with pytest.raises(ZooError, match=r"x.onnx calls a class 'three' that digits calls '3'"):
        bench_ort.main([str(tmp_path / "x.onnx"), *words])


def test_benchmark_refuses_what_it_cannot_measure(exact, tmp_path):
    net, path = exact
    broken = tmp_path / "broken.onnx"
    for content in (path.read_bytes()[:-100], path.read_bytes()[:1000], b"not ONNX", b""):
        broken.write_bytes(content)
        with pytest.raises(ZooError, match=r"broken\.onnx"):
            export.benchmark(broken)
    foreign = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    onnx.helper.set_model_props(foreign, {"mean": "0.5"})  # which files of others may say, too
    onnx.save(foreign, tmp_path / "foreign.onnx")
    assert not is_ours(foreign)
    export.to_onnx(network(encoding="rate"), tmp_path / "frames.onnx", verify=False)
    with pytest.raises(ZooError, match="takes frames, of rate encoding"):
        export.benchmark(tmp_path / "frames.onnx", runs=1)
    with pytest.raises(ZooError, match="metadata"):
        export.benchmark(tmp_path / "foreign.onnx")
    with pytest.raises(ZooError, match="no such file"):
        export.benchmark(tmp_path / "absent.onnx")
    images = exact_images(net, 2)
    for bad in (images[:0], images[:, :1], images.double()):
        with pytest.raises(ZooError, match="expected"):
            export.benchmark(path, bad)
    for labels in (torch.tensor([0]), torch.tensor([0, 10]), torch.tensor(0), torch.zeros(2), np.array(["a", "b"])):
        with pytest.raises(ZooError, match="labels"):
            export.benchmark(path, images, labels)
    with pytest.raises(ZooError, match="model has 10 classes, digits has 100"):
        export.benchmark(path, images, dataset="digits", classes=[str(i) for i in range(100)])
    for wrong, words in (({"threads": ()}, "threads"), ({"optimization": "some"}, "unknown optimization")):
        with pytest.raises(ZooError, match=words):
            export.benchmark(path, **wrong)


def test_training_facts_travel_with_the_file(tmp_path):
    net = network()
    net.training_args = {"epochs": 90, "seed": 3, "lr": 0.1}
    export.to_onnx(net, tmp_path / "x.onnx", verify=False)
    result = export.benchmark(tmp_path / "x.onnx", runs=1)
    assert (result["epochs"], result["seed"], result["test_reads"]) == (90, 3, None)


def test_a_quick_gate_runs_fewer_levels_and_images(exact, tmp_path):
    images = np.random.default_rng(0).standard_normal((40, 3, 16, 16)).astype(np.float32)
    found = export.to_onnx(exact[0], tmp_path / "x.onnx", images=images, verify="quick")["verification"]
    assert found["dyadic"]["levels"] == ["disable", "all"]
    assert found["real"]["images"] == 32


def test_images_are_arrays_or_tensors_of_pixels_or_of_normalised_values(exact):
    net, file = exact
    pixels = torch.randint(256, (6, 3, 16, 16), dtype=torch.uint8)
    ready = normalise(pixels.numpy(), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    assert np.array_equal(network_inputs(net, pixels[:1].numpy()[::-1]), ready[:1])
    for images in (ready, torch.from_numpy(ready), pixels.numpy(), pixels):
        found = network_inputs(net, images)
        assert found.dtype == np.float32
        assert np.array_equal(found, ready)
    with pytest.raises(ZooError, match="NumPy has no bfloat16"):
        export.benchmark(file, torch.from_numpy(ready).bfloat16(), runs=1)
    assert export.benchmark(file, pixels, [0] * 6, runs=1)["images"] == 6


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_a_wrapped_network_is_exported_as_itself(wrap, exact, tmp_path):
    net, file = exact
    export.to_onnx(wrap(net), tmp_path / "x.onnx", tag="t3_test", verify=False)
    assert (tmp_path / "x.onnx").read_bytes() == file.read_bytes()


def test_what_benchmark_takes(exact):
    net, file = exact
    images = exact_images(net, 2)
    result = export.benchmark(file, images, [0, 1], batch_sizes=1, threads=1, runs=1)
    assert (result["images"], len(result["latency"])) == (2, 1)
    result = check(export.benchmark(file, runs=1), "this test")
    assert result["images"] is result["top1"] is result["spikes_per_image"] is result["split"] is None
    for named in ({"labels": [0]}, {"dataset": "digits"}):
        with pytest.raises(ZooError, match="say nothing without its images"):
            export.benchmark(file, runs=1, **named)
    for wrong in (object(), [images, images[0]]):
        with pytest.raises(ZooError, match="expected an array or a tensor, such as a data set's test_images, not"):
            export.benchmark(file, wrong, runs=1)


@pytest.mark.slow
@pytest.mark.data
def test_trained_weights_on_real_images(data_root, tmp_path):
    model = zoo.create_model("sresnet19_w16_gs.t2_cifar10", pretrained=True)
    cfg = model.pretrained_cfg
    images = normalise(load_images("cifar10", data_root, 1000).images, cfg["mean"], cfg["std"])
    real = export.to_onnx(model, tmp_path / "x.onnx", images=images)["verification"]["real"]
    assert real["images"] == 1000
    assert real["top1_agreement"] >= 99.5
    assert len(real["disagreements"]) == round(10 * (100 - real["top1_agreement"]))
    assert all(entry["margin"] >= 0 for entry in real["disagreements"])
    assert len(real["flip_rate_per_layer"]) == 17
    assert real["within_fixed_bounds"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
def test_a_provider_that_does_not_work_is_an_error(exact):
    with pytest.raises(ZooError, match="CUDAExecutionProvider does not work"):
        export.benchmark(exact[1], provider="CUDAExecutionProvider", runs=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_full_size_network_is_verified(tmp_path):
    report = export.to_onnx(zoo.create_model("sresnet19_gs"), tmp_path / "sresnet19.onnx", verify="quick")
    assert report["bytes"] > 50_000_000
