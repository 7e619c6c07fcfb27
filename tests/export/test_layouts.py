"""Every layout computes what the network does, for every neuron, norm and encoding; streams take steps one by one."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from test_export import Adaptive, Refractory, graph_layers, network, of_neurons
from torch import nn

import export
import export.__main__ as command
import zoo
from export import early_exit
from export.bench import read_file
from export.commands import LAYOUTS
from export.early_exit import exits
from export.exact_copy import exact_copy, exact_images
from export.file import add_description, add_step_logits
from export.images import Loaded
from export.network import build_graph
from export.neurons import steep
from export.run import Runner, Stream
from zoo import ZooError
from zoo.neurons import LIF, PLIF

pytestmark = pytest.mark.usefixtures("one_thread")


# Spread over neurons, norms and encodings; the gate of each layout runs at every optimisation level.
CASES = {
    "clif, latency": ({"neuron": "clif", "encoding": "latency"}, ["flat", "loop"]),
    "glif, tebn": ({"neuron": "glif", "norm": "tebn"}, ["flat", "function"]),
    "psn": ({"neuron": "psn"}, ["flat", "function"]),
    "plif, rate": ({"neuron": "plif", "encoding": "rate"}, ["flat", "step"]),
    "soft, frames": (
        {"neuron": {"name": "lif", "reset": "soft", "decay": 0.7, "threshold": 0.8}, "encoding": "frames"},
        ["flat", "loop"],
    ),
    "if, tdbn": ({"neuron": {"name": "if", "reset": "soft"}, "norm": "tdbn"}, ["function", "step"]),
    "decay_input": ({"neuron": {"name": "lif", "tau": 1.6, "decay_input": True}}, ["flat"]),
    "one step": ({"timesteps": 1}, ["flat"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_gate_passes(case, tmp_path):
    keywords, layouts = CASES[case]
    net = network(**keywords)
    for layout in layouts:
        report = export.to_onnx(net, tmp_path / "x.onnx", layout=layout)
        assert report["verification"]["real"]["flip_rate"] < 1e-3
        assert report["metadata"]["layout"] == layout


@pytest.fixture(scope="module")
def exact():
    torch.manual_seed(0)
    net = exact_copy(network(timesteps=4))
    return net, {layout: add_description(build_graph(net, layout), net) for layout in LAYOUTS}


def test_all_layouts_are_one_function_and_take_any_batch(exact):
    net, graphs = exact
    for batch in (1, 2, 5):
        images = exact_images(net, batch).numpy()
        with torch.no_grad():
            expected = net(torch.from_numpy(images)).numpy()
        for layout, graph in graphs.items():
            assert np.array_equal(Runner(graph)(images, ["logits"])[0], expected), layout


@pytest.mark.slow
def test_a_loop_takes_any_number_of_steps(exact):
    net, graphs = exact
    images = exact_images(net, 2)
    for steps in (1, 2, 4, 8):
        net.set_timesteps(steps)
        flat = Runner(add_description(build_graph(net), net))(images.numpy(), ["logits"])[0]
        assert np.array_equal(Runner(graphs["loop"], steps)(images.numpy(), ["logits"])[0], flat)
        assert np.array_equal(Runner(graphs["step"], steps)(images.numpy(), ["logits"])[0], flat)
    net.set_timesteps(4)


def test_a_stream_takes_frame_after_frame(exact):
    net, graphs = exact
    stream, images = Stream(graphs["step"].SerializeToString()), exact_images(net, 2).numpy()
    with torch.no_grad():
        steps = net(torch.from_numpy(images), per_step=True).numpy()
    for t in range(4):
        logits = stream.step(images)
        assert np.array_equal(logits, steps[t])
        logits[:] = 0  # which are the caller's
    assert np.array_equal(stream.mean, steps.mean(0))
    assert np.array_equal(stream.run(images), stream.run(torch.from_numpy(images), 4))
    mirrored = images[..., ::-1]
    assert np.array_equal(stream.run(mirrored), stream.run(mirrored.copy()))
    stream.reset()
    assert np.array_equal(stream.step(torch.from_numpy(images)), steps[0])
    for frame, words in (
        (images[:1], "a stream of 2 images got a frame of 1"),
        (images[:, :1], r"expected a float32 frame \['B', 3, 16, 16\], got float32 \[2, 1, 16, 16\]"),
        (images.astype(np.float64), "got float64"),
        ([1.0], r"got float64 \[1\]"),
        (object(), "expected an array or a tensor, .* not object"),
    ):
        with pytest.raises(ZooError, match=words):
            stream.step(frame)
    for given, words in (((images, 0), "timesteps must be an integer from 1"), ((images[0],), "float32 images"),
                         ((images.tolist(),), "got float64")):  # fmt: skip
        with pytest.raises(ZooError, match=words):
            stream.run(*given)
    stream.reset()
    with pytest.raises(ZooError, match="no time step yet"):
        _ = stream.mean
    with pytest.raises(ZooError, match="expected a graph of one time step, got flat"):
        Stream(graphs["flat"].SerializeToString())
    with pytest.raises(ZooError, match="cut short"):
        Stream(b"not ONNX")


@pytest.mark.parametrize(
    "change",
    [
        lambda graph: graph.output.remove(next(value for value in graph.output if value.name == "logits")),
        lambda graph: graph.output.remove(next(value for value in graph.output if value.name == "new_state_0")),
        lambda graph: graph.input.remove(graph.input[0]),
        lambda graph: graph.input[0].type.tensor_type.shape.dim.pop(),
        lambda graph: setattr(graph.input[1].type.tensor_type.shape.dim[1], "dim_value", 2**40),
    ],
)
def test_a_stream_refuses_other_inputs_and_outputs(change, exact):
    changed = onnx.ModelProto.FromString(exact[1]["step"].SerializeToString())
    change(changed.graph)
    with pytest.raises(ZooError, match="other inputs and outputs than ours"):
        Stream(changed.SerializeToString())


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["flat", "step", "loop"])
def test_states_of_whole_numbers_and_of_a_whole_layer(layout):
    net = network()
    net.set_submodule("lif1", Refractory(3))
    graph = add_description(build_graph(net, layout), net)
    onnx.checker.check_model(graph, full_check=True)
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = net(images)
    if layout == "step":
        got = Stream(graph.SerializeToString()).run(images.numpy())
    else:
        got = Runner(graph)(images.numpy(), ["logits"])[0]
    assert np.allclose(got, expected, atol=1e-5)


def test_functions_are_one_per_kind_of_neuron(exact):
    net, graphs = exact
    proto = graphs["function"]
    assert [f.name for f in proto.functions] == ["LIF"]
    neurons = [node for node in proto.graph.node if node.domain]
    assert {node.name for node in neurons} == {name for name, _ in net.named_modules() if "lif" in name}
    mixed = network(timesteps=2)
    mixed.lif1 = PLIF(2)
    mixed.lif_hidden.threshold = 0.5
    assert {f.name for f in build_graph(mixed, "function").functions} == {"LIF", "PLIF", "LIF_2"}


class Learned_LIF(PLIF):  # noqa: N801 (such a name)
    """A neuron of a user's own, whose layers differ."""


class PLIF_2(PLIF):  # noqa: N801
    """One that is called as a second function of PLIF."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plif", Learned_LIF, PLIF_2])
def test_layers_with_numbers_of_their_own_pass_the_gate_as_functions(kind, tmp_path):
    net = network("plif", timesteps=2) if kind == "plif" else of_neurons(kind, every=1)
    with torch.no_grad():
        for i, layer in enumerate(layer for layer in net.modules() if isinstance(layer, PLIF)):
            layer.w += 0.1 * i
    if kind is PLIF_2:
        net.lif1 = PLIF(net.timesteps)
        net.lif1.w.data += 1
    export.to_onnx(net, tmp_path / "x.onnx", layout="function")
    names = [f.name for f in onnx.load(tmp_path / "x.onnx").functions]
    assert len(set(names)) == len(names) == sum(isinstance(layer, PLIF) for layer in net.modules())


class Channels(PLIF):
    """A time constant for each channel."""

    def __init__(self, timesteps, **others):
        super().__init__(timesteps, **others)
        self.w = nn.Parameter(torch.linspace(-1, 1, 8).view(8, 1, 1))


class Threshold(PLIF):
    """One that learns its threshold, too."""

    def __init__(self, timesteps, **others):
        super().__init__(timesteps, **others)
        del self.threshold
        self.threshold = nn.Parameter(torch.tensor(0.75))


class Fixed(LIF):
    """Its decay is what somebody computed."""

    decay = property(lambda self: 0.75, lambda self, value: None if value == 0.5 else 1 / 0)


@pytest.mark.parametrize("kind", [Channels, *(pytest.param(k, marks=pytest.mark.slow) for k in (Threshold, Fixed))])
def test_neurons_whose_numbers_are_a_users_own_pass_the_gate(kind, tmp_path):
    net = network(timesteps=2)
    net.lif1 = kind(2)
    export.to_onnx(net, tmp_path / "x.onnx", verify="quick")


def test_a_network_whose_thresholds_are_0_has_an_exact_copy():
    net = of_neurons(Threshold, every=1, timesteps=1)
    for name in graph_layers(net):
        nn.init.zeros_(net.get_submodule(name).threshold)
    assert exact_copy(net)(torch.zeros(2, 3, 16, 16)).isfinite().all()


def test_parallel_neurons_of_one_step_pass_the_gate_as_functions(tmp_path):
    export.to_onnx(network("psn", timesteps=1), tmp_path / "x.onnx", layout="function", verify="quick")


@pytest.mark.parametrize("layout", ["flat", "step"])
def test_a_step_of_latency_encoding_takes_spikes(layout):
    net = network(timesteps=2, encoding="latency")
    said = add_description(build_graph(net, layout), net)
    pixels = {entry.key: entry.value for entry in said.metadata_props}["pixels"]
    assert pixels in said.doc_string
    assert pixels.startswith("the spikes 0 or 1 of a time step" if layout == "step" else "RGB pixels in 0 .. 255")


def test_the_last_reset_is_not_computed_and_the_stem_runs_once():
    proto = build_graph(network(timesteps=3))
    assert sum(node.op_type == "HardSigmoid" for node in proto.graph.node) == 6 * 3 + 6 * 2  # spikes, resets
    images = [node for node in proto.graph.node if "input" in node.input]
    assert [node.op_type for node in images] == ["Conv"]
    used = {name for node in proto.graph.node for name in node.input} | {"logits"}
    assert all(used & set(node.output) for node in proto.graph.node)


@pytest.mark.parametrize("threshold", [1.0, 0.5, 0.25, 0.7, 0.3333, 3.0, 1e-3, -0.6, -1.0, 100.0])
def test_a_steep_line_is_a_step(threshold):
    threshold = np.float32(threshold)
    alpha, beta = map(np.float32, steep(threshold))
    below = above = threshold
    for _ in range(3):
        below, above = np.nextafter(below, np.float32(-1e9)), np.nextafter(above, np.float32(1e9))
        u = np.float32([below, threshold, above])
        assert np.clip(alpha * u + beta, 0, 1).tolist() == [0, 1, 1]
        assert np.clip(-alpha * u + (1 - beta), 0, 1).tolist() == [1, 0, 0]


def test_what_has_no_meaning_is_refused():
    net = network(timesteps=1)
    net.spikes, net.lif1 = net.lif1, nn.Identity()
    with pytest.raises(ZooError, match="a neuron layer called 'spikes', as graphs call what it sends"):
        build_graph(net)
    net = network(timesteps=1)
    net.bn1 = nn.BatchNorm2d(net.bn1.num_features, track_running_stats=False)
    with pytest.raises(ZooError, match="cannot export bn1: without running statistics"):
        build_graph(net)
    for layout in ("step", "loop"):
        with pytest.raises(ZooError, match=f"no layout '{layout}' for psn neurons, which take all steps at once"):
            build_graph(network("psn"), layout)
    with pytest.raises(ZooError, match="GLIF, know one step alone"):
        build_graph(network("glif", timesteps=1), "step")
    with pytest.raises(ZooError, match="GLIF, do not start from zeros, or do something else in every step"):
        build_graph(network("glif", timesteps=2), "loop")
    with pytest.raises(ZooError, match="normalisation 'bn1' does something else in every step"):
        build_graph(network(norm="tebn", timesteps=2), "step")

    class Eager(Adaptive):
        def step(self, x_t, state=None):
            return super().step(x_t, (x_t + 1, x_t) if state is None else state)

    with pytest.raises(ZooError, match=r"'stages.0.0.lif1', Eager, do not start from zeros"):
        build_graph(of_neurons(Eager), "step")


@pytest.mark.slow
def test_instruments(exact, tmp_path):
    net, graphs = exact
    images = exact_images(net, 2)
    spikes = {}
    handle = net.lif1.register_forward_hook(lambda *args: spikes.update(lif1=args[2].unflatten(0, (4, -1))))
    with torch.no_grad():
        steps = net(images, per_step=True).transpose(0, 1).numpy()
    handle.remove()
    for layout in ("flat", "function", "loop"):
        graph = add_step_logits(graphs[layout])
        onnx.checker.check_model(graph, full_check=True)
        (logits,) = Runner(graph)(images.numpy(), ["step_logits"])
        assert np.array_equal(logits, steps), layout
    with pytest.raises(ZooError, match="one time step already"):
        add_step_logits(graphs["step"])
    for layout in LAYOUTS:
        asked = {"spike_counts": True, "step_logits": layout != "step"}
        export.to_onnx(net, tmp_path / "x.onnx", layout=layout, verify=False, **asked)
        counts = Runner(onnx.load(tmp_path / "x.onnx"))(images.numpy(), ["spikes/lif1"])[0]
        expected = spikes["lif1"].flatten(2).sum(2).numpy()
        assert np.array_equal(counts if layout == "step" else counts.T.reshape(-1, 1), expected.reshape(-1, 1))
    export.verify(net, (tmp_path / "x.onnx").read_bytes())


def test_early_exit_trades_steps_for_accuracy(tmp_path):
    logits = np.float32([[[4, 0], [0, 0]], [[0, 1], [9, 0]]])  # sure at once; unsure, then of another mind
    assert exits(logits, np.array([0, 0]), 0.9) == {"threshold": 0.9, "top1": 100, "mean_steps": 1.5}
    assert exits(logits, np.array([0, 0]), 0.0) == {"threshold": 0.0, "top1": 50, "mean_steps": 1}
    whole = exits(np.float32([[[4, 0], [0, 1]]]), np.array([0]), 1.0)  # of which the last step alone says class 1
    assert whole == {"threshold": 1.0, "top1": 100, "mean_steps": 2}
    net = network(timesteps=2)
    export.to_onnx(net, tmp_path / "x.onnx", verify=False)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=pixels, labels=np.arange(6))
    early_exit.main([str(tmp_path / "x.onnx"), "--data", str(tmp_path / "x.npz"), "--json", str(tmp_path / "x.json")])
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert [row["threshold"] for row in rows] == list(early_exit.THRESHOLDS)
    assert [row["mean_steps"] for row in rows] == sorted(row["mean_steps"] for row in rows)
    assert rows[-1]["mean_steps"] == 2
    file = read_file(tmp_path / "x.onnx")
    with pytest.raises(ZooError, match=r"lies in 0..1, not 2"):
        early_exit.early_exit(file, Loaded(pixels, np.arange(6), None, None), [2])
    with pytest.raises(ZooError, match="images with labels"):
        early_exit.early_exit(file, Loaded(pixels, None, None, None))
    with pytest.raises(ZooError, match="is a directory"):
        early_exit.main([str(tmp_path / "x.onnx"), "--data", str(tmp_path / "x.npz"), "--json", str(tmp_path)])


def test_early_exit_brings_a_data_set_to_the_network_and_knows_another_ones(tmp_path):
    for classes in (10, 3):
        export.to_onnx(network(timesteps=1, num_classes=classes), tmp_path / f"{classes}.onnx", verify=False)
    early_exit.main([str(tmp_path / "10.onnx"), "--data", "digits", "--limit", "8"])  # of 32 pixels, the network of 16
    with pytest.raises(ZooError, match="model has 3 classes, digits has 10"):
        early_exit.main([str(tmp_path / "3.onnx"), "--data", "digits", "--limit", "8"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--layout", "step", "--step-logits"], "one time step already"),
        (["--to", "nir", "--layout", "step"], "--layout is for ONNX"),
        (["--to", "nir", "--precision", "int8"], "--precision is for ONNX"),
        (["--calibration", "digits"], "--calibration digits is for --precision int8"),
        (["--calibration-images", "3"], "--calibration-images 3 is for --precision int8"),
        (["--limit", "5"], "--limit 5 is for --data"),
        (["--data-dir", "x"], "--data-dir x is for --data or --precision int8"),
        (["--to", "nir", "--limit", "5"], "--limit is for ONNX"),
        (["--json", "{out}"], "this command has .*x.onnx in another part"),
    ],
)
def test_the_command_refuses(options, words, tmp_path):
    out = str(tmp_path / "x.onnx")
    with pytest.raises(ZooError, match=words):
        command.main(["svgg11_w8", "--timesteps", "1", "-o", out, *[o.format(out=out) for o in options]])
    assert list(tmp_path.iterdir()) == []


def test_the_checkpoint_that_is_read_is_not_written_over(tmp_path):
    zoo.save_checkpoint(tmp_path, zoo.create_model("svgg11_w8", timesteps=1), tag="t1", data_cfg={})
    before = (file := tmp_path / "model.safetensors").read_bytes()
    for options in (["-o", str(file)], ["-o", str(tmp_path / "x.onnx"), "--json", str(file)]):
        with pytest.raises(ZooError, match=r"this command has .*model.safetensors in another part"):
            command.main([str(file), *options])
    assert file.read_bytes() == before


def test_many_steps_are_announced(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "to_onnx", lambda *_, **__: pytest.fail("not told first") if not told() else 1 / 0)
    told = lambda: "64 time steps" in capsys.readouterr().err  # noqa: E731
    with pytest.raises(ZeroDivisionError):
        command.main(["svgg11_w8", "--timesteps", "64", "-o", str(tmp_path / "x.onnx")])
