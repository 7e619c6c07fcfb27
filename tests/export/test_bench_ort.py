"""Side by side: turns, memory, profile; baselines are what they claim; anybody's files; what is refused, at once."""

from __future__ import annotations

import contextlib
import copy
import json
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from conftest import awake
from onnx import TensorProto, helper, numpy_helper
from test_export import network
from torch import nn

import export
import export.bench
import zoo
from export import bench_ort
from export.baselines import baseline
from export.commands import settings
from export.exact_copy import exact_copy
from export.file import About, describe
from export.network import build_graph
from export.run import CPU, bind, check_session, create_session
from export.source import network_of
from export.timing import (
    WARM_UP,
    Input,
    Settings,
    TimedGraph,
    TimedNetwork,
    graph_of,
    operators,
    peak_bytes,
    row,
    time_all,
)
from zoo import ZooError
from zoo.kernels.event import EventConv
from zoo.neurons import SpikingNeuron
from zoo.neurons.base import input_current
from zoo.result import check

OPSETS = [helper.make_opsetid("", 20)]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return exact_copy(network())  # exact, so that a twin in PyTorch gives the same bits


@pytest.fixture(scope="module")
def file(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "model.onnx"
    export.to_onnx(net, path, tag="t3_test", verify=False)
    return path


@pytest.fixture(scope="module")
def graph(file):
    return TimedGraph("model", file.read_bytes(), [Input("input", "float32", (0, 3, 16, 16))], ["logits"])


# -- turns


class Noted:
    def __init__(self, name, events):
        self.name, self.events = name, events

    @contextlib.contextmanager
    def ready(self, batch, threads):
        self.events.append(f"open {self.name} {batch}")
        yield lambda: self.events.append(f"run {self.name}")
        self.events.append(f"close {self.name}")


def test_subjects_take_turns_and_one_is_alive_at_a_time():
    events: list[str] = []
    found = time_all([Noted("a", events), Noted("b", events)], settings(batch_sizes=[1, 8], runs=7, rounds=3))
    assert [[(r["batch"], r["runs"], len(r["ms"])) for r in rows] for rows in found] == [[(1, 7, 7), (8, 7, 7)]] * 2
    turns = [f"open {name} {batch}" for batch in (1, 8) for name in "ab"]
    assert [event for event in events if event.startswith("open")] == 3 * turns
    alive = 0
    for event in events:
        alive += event.startswith("open") - event.startswith("close")
        assert alive <= 1
    assert events.count("run a") == 2 * (7 + 3 * WARM_UP)


class Settling:
    """Takes a second the first time that a block runs it, then a millisecond, on a clock of its own."""

    name, device, now = "settling", "cpu", 0.0

    @contextlib.contextmanager
    def ready(self, batch, threads):
        seconds = iter([1.0])

        def run():
            self.now += next(seconds, 0.001)

        yield run


def test_the_first_run_of_a_block_is_not_timed(monkeypatch):
    subject = Settling()
    monkeypatch.setattr("export.timing.time.perf_counter", lambda: subject.now)
    ((found,),) = time_all([subject], settings(runs=4, rounds=2))
    assert found["ms"] == [1] * 4


def test_threads_are_those_that_were_asked_for(net, file):
    assert create_session(file.read_bytes(), threads=2).get_session_options().intra_op_num_threads == 2
    with TimedNetwork("eager", net, (3, 16, 16)).ready(1, 2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1


def test_a_batch_has_all_the_images_in_turn():
    images = np.arange(3, dtype=np.float32).reshape(3, 1, 1, 1)
    fed = TimedGraph("x", b"", [Input("x", "float32", (0, 1, 1, 1))], [], images=images).feeds(5)
    assert fed["x"].ravel().tolist() == [0, 1, 2, 0, 1]


def test_percentiles_and_images_a_second():
    found = row(8, 2, list(range(1, 102)))
    assert (found["p50_ms"], found["p90_ms"], found["p95_ms"], found["p99_ms"]) == (51, 91, 96, 100)
    assert found["images_per_second"] == pytest.approx(8 * 1000 / 51)
    assert found["ms"] == list(range(1, 102))


def test_bound_runs_give_what_plain_runs_give(file):
    session = create_session(file.read_bytes())
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    (bound,) = bind(session, ["logits"], {"input": x})()
    assert np.array_equal(bound.numpy(), session.run(["logits"], {"input": x})[0])


@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", "TensorrtExecutionProvider"])
def test_int8_convolutions_do_not_become_others_in_silence(provider):
    """These providers would run them in float32, or on the CPU."""
    with pytest.raises(ZooError, match=f"{provider} does not run convolutions over bytes"):
        create_session(b"... QuantizeLinear", provider=provider)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a PyTorch without CUDA")
@pytest.mark.parametrize("name", ["eager", "compiled"])
def test_pytorch_s_baselines_need_the_provider_s_device(name, net):
    with pytest.raises(ZooError, match=f"{name} would run where CUDAExecutionProvider does.*leave it out of --against"):
        baseline(name, net, "CUDAExecutionProvider", "all")


@pytest.mark.parametrize("name", ["event", "relu-int8"])
def test_what_a_cpu_alone_runs_is_refused_at_once_beside_a_gpu_s_files(name, net):
    with pytest.raises(ZooError, match=f"{name} runs on a CPU alone, and this is CUDAExecutionProvider"):
        baseline(name, net, "CUDAExecutionProvider", "all")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_inputs_and_outputs_stay_there(file):
    try:
        check_session("CUDAExecutionProvider", "all")
    except ZooError as error:
        pytest.skip(str(error))
    session = create_session(file.read_bytes(), provider="CUDAExecutionProvider")
    (bound,) = bind(session, ["logits"], {"input": np.zeros((2, 3, 16, 16), np.float32)})()
    assert bound.device_name() == "cuda"
    result = export.benchmark(file, runs=2, provider="CUDAExecutionProvider", memory=True)
    assert check(result, "this test")["provider"] == "CUDAExecutionProvider"


# -- memory and profile


def with_weights(size):
    """A foreign graph: a product with a square matrix."""
    weight = numpy_helper.from_array(np.ones((size, size), np.float32), "weight")
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"])]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])] for name in "xy"]
    return helper.make_model(helper.make_graph(nodes, "g", *ends, [weight]), ir_version=10, opset_imports=OPSETS)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
@pytest.mark.slow
def test_peak_memory_is_that_of_the_subject(capsys):
    """And of no library: the pages of ONNX Runtime's and PyTorch's code that a run touches are tens of MB."""
    small, large = (
        TimedGraph(str(n), with_weights(n).SerializeToString(), [Input("x", "float32", (0, n))], ["y"])
        for n in (8, 3000)
    )
    broken = small._replace(data=b"none")
    found = peak_bytes([small, large, TimedNetwork("eager", network(), (3, 16, 16)), broken], [(1, 1)])
    (few,), (many,), (eager,), (none,) = found
    assert 36e6 <= many <= 200e6
    assert 0 < few < 10e6
    assert 0 < eager < 10e6
    assert none is None
    assert "peak memory of 8 was not measured: its process failed" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
def test_what_a_plugin_prints_is_no_measurement(graph, tmp_path, monkeypatch):
    (tmp_path / "noisy.py").write_text("print('[[1]]')")
    monkeypatch.setattr("export.timing.plugin_files", lambda: [str(tmp_path / "noisy.py")])
    ((found,),) = peak_bytes([graph], [(1, 1)])
    assert found > 10_000


def test_memory_that_cannot_be_measured_is_said(graph, tmp_path, monkeypatch, capsys):
    (tmp_path / "broken.py").write_text("raise ValueError('not here')")
    monkeypatch.setattr("export.timing.plugin_files", lambda: [str(tmp_path / "broken.py")])
    assert peak_bytes([graph], [(1, 1)]) == [[None]]
    error = capsys.readouterr().err
    assert "peak memory was not measured" in error
    assert "not here" in error


def test_memory_of_a_gpu_is_not_that_of_its_host():
    subject = TimedNetwork("eager", network(), (3, 16, 16), "cuda")
    assert peak_bytes([subject], [(1, 1), (2, 1)]) == [[None, None]]


def test_a_profile_adds_up(graph):
    rows = operators(graph, Settings(runs=3))
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert [row["ms"] for row in rows] == sorted((row["ms"] for row in rows), reverse=True)
    assert "Conv" in {row["operator"] for row in rows}


def test_a_profile_is_of_the_mean_run_after_the_warm_up(tmp_path, monkeypatch):
    runs = {0: 90, 10: 90, 20: 90, 30: 2, 40: 4}  # milliseconds of the convolution in each run, by its start
    events = [{"name": "model_run", "ts": start} for start in runs]
    for at, ms in runs.items():
        node = {"cat": "Node", "name": "c_kernel_time", "args": {"op_name": "Conv"}}
        events.append(node | {"ts": at + 1, "dur": 1000 * ms})
    (tmp_path / "profile").write_text(json.dumps(events))
    session = SimpleNamespace(end_profiling=lambda: tmp_path / "profile")
    monkeypatch.setattr("export.timing.create_session", lambda *_, **__: session)
    monkeypatch.setattr("export.timing.bind", lambda *_: lambda: None)
    graph = TimedGraph("model", b"", [Input("input", "float32", (0, 3))], ["logits"])
    assert operators(graph, Settings(runs=2)) == [{"operator": "Conv", "nodes": 1, "ms": 3, "share": 1}]


# -- baselines


class Other(nn.Module):
    """Takes the place of neurons in PyTorch: a function of the currents [T, B, ...]."""

    def __init__(self, timesteps, function):
        super().__init__()
        self.timesteps, self.function = timesteps, function

    def forward(self, x, **current):
        x = input_current(x, self.timesteps, **current)
        return self.function(x.unflatten(0, (self.timesteps, -1))).flatten(0, 1)


def twin(net, functions):
    """A copy of a network with these functions for neurons, the last one for all that follow."""
    copied = export.network.inference_copy(net)
    for i, name in enumerate([n for n, module in copied.named_modules() if isinstance(module, SpikingNeuron)]):
        copied.set_submodule(name, Other(net.timesteps, functions[min(i, len(functions) - 1)]))
    return copied


def logits_of(graph, x):
    return create_session(graph.data).run(["logits"], {"input": x})[0]


def test_baselines_of_a_network_for_event_frames_take_its_frames():
    net = network(encoding="frames", timesteps=2).eval()
    for name in ("eager", "event", "floor"):
        with baseline(name, net, CPU, "all").ready(2, 1) as run:
            run()
    with pytest.raises(ZooError, match="no relu-int8 baseline of a network for event frames"):
        baseline("relu-int8", net, CPU, "all")


def test_the_relu_baseline_is_the_network_with_relu(net):
    graph = baseline("relu", net, CPU, "all")
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    with torch.no_grad():
        expected = twin(net, [torch.relu])(torch.from_numpy(x)).numpy()  # the same at every step
    assert np.allclose(logits_of(graph, x), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_the_relu_baseline_in_eight_bits_is_that_network_in_bytes(net):
    floats, graph = baseline("relu", net, CPU, "all"), baseline("relu-int8", net, CPU, "all")
    x = graph.feeds(8)["input"]
    expected = logits_of(floats, x)
    assert np.abs(logits_of(graph, x) - expected).mean() < 0.1 * np.abs(expected).mean()
    kinds = {row["operator"]: row["nodes"] for row in operators(graph, Settings(runs=1))}
    assert kinds["QLinearConv"] == sum(isinstance(module, nn.Conv2d) for module in net.modules())
    assert not {"Conv", "Relu", "Add", "Gemm", "MatMul"} & kinds.keys()
    assert (graph.precision, floats.precision) == ("int8", "fp32")


def test_the_relu_baseline_of_attention_without_softmax_is_refused_where_it_overflows():
    model = zoo.load("sdt_2_128.t4_cifar10")
    with pytest.raises(ZooError, match=r"no relu-int8 of this network: .* grow beyond float32"):
        baseline("relu-int8", model, CPU, "all")


def test_the_floor_runs_every_convolution_of_every_step(net):
    """And is the network with identity neurons, of which the first differ from step to step."""
    graph = baseline("floor", net, CPU, "all")
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    factors = (1 + torch.arange(3) / 64).view(3, 1, 1, 1, 1)
    with torch.no_grad():
        expected = twin(net, [lambda x: factors * x, lambda x: x])(torch.from_numpy(x)).numpy()
    assert np.allclose(logits_of(graph, x), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    convolutions = sum(isinstance(module, nn.Conv2d) for module in net.modules())
    (row,) = [row for row in operators(graph, Settings(runs=1)) if row["operator"] == "Conv"]
    # The stem sees the same image in every step; ONNX Runtime makes the three factors convolutions of a channel each.
    assert row["nodes"] - (1 + 3 * (convolutions - 1)) in (0, 3)


def test_spikingjelly_s_network_gives_what_ours_gives(tmp_path):
    pytest.importorskip("spikingjelly")
    torch.manual_seed(0)
    net = network(timesteps=2, surrogate={"name": "triangle", "width": 2.0})  # which SpikingJelly has not, nor needs
    ours, theirs = graph_of(build_graph(net), "ours"), baseline("spikingjelly", net, CPU, "all")
    x = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    first = logits_of(theirs, x)
    assert np.allclose(first, logits_of(ours, x), atol=1e-4)
    session = create_session(theirs.data)  # whose second run starts from rest again
    assert all(np.array_equal(session.run(["logits"], {"input": x})[0], first) for _ in range(2))


def test_what_has_no_counterpart_in_spikingjelly_is_refused(net, monkeypatch):
    with pytest.raises(ZooError, match="only of the sresnet family"):
        baseline("spikingjelly", zoo.create_model("ms_resnet18_w16"), CPU, "all")
    monkeypatch.setitem(sys.modules, "spikingjelly.activation_based", None)
    with pytest.raises(ZooError, match="SpikingJelly is not installed"):
        baseline("spikingjelly", net, CPU, "all")


def metadata_of(model, **changes):
    about = describe(model) | changes
    proto = onnx.ModelProto()
    helper.set_model_props(proto, about)
    known = {key: about[key] for key in ("architecture", "tag", "weights_sha256")}
    return proto, About.model_construct(**known, timesteps=json.loads(about["timesteps"]), num_classes=10)


def test_a_file_s_network_is_found_by_its_metadata(tmp_path, capsys):
    """With its own weights where they are published; the checkpoint, where the metadata do not lead to it."""
    published = zoo.load("sresnet19_w16_gs.t2_cifar10")
    found = network_of(tmp_path, *metadata_of(published))
    assert torch.equal(found.fc.weight, published.fc.weight)
    assert capsys.readouterr().err == ""
    other = network_of(tmp_path, *metadata_of(published, tag="t2_mine", weights_sha256="0" * 64))
    assert not torch.equal(other.fc.weight, published.fc.weight)
    assert "those of seed 0" in capsys.readouterr().err
    mine = zoo.create_model("sresnet19_w16", neuron={"name": "lif", "decay": 0.25}, timesteps=2)
    zoo.save_checkpoint(tmp_path / "mine", mine, tag="t2_mine", data_cfg={"label_names": ["a"] * 10})
    with pytest.raises(ZooError, match=r"says neuron .* name the checkpoint .* with --network"):
        network_of(tmp_path, *metadata_of(mine))
    assert torch.equal(network_of(tmp_path, *metadata_of(mine), str(tmp_path / "mine")).fc.weight, mine.fc.weight)


def test_what_skips_zeros_is_timed_on_the_file_s_own_weights(net, file, monkeypatch):
    monkeypatch.setattr(export.bench, "network_of", lambda *_: awake(copy.deepcopy(net)))
    with pytest.raises(ZooError, match="name those of the first file with --network"):
        bench_ort.main([str(file), "--against", "event"])


# -- the command


def test_command_measures_files_and_baselines_side_by_side(net, file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export.bench, "network_of", lambda *_: net)
    onnx.save(with_weights(8), tmp_path / "elsewhere.onnx")
    words = [str(file), str(tmp_path / "elsewhere.onnx"), "--against", "floor", "eager", "--batch", "1", "4"]
    bench_ort.main([*words, "--runs", "4", "--rounds", "2", "--profile", "--no-memory", "--json", str(tmp_path / "j")])
    result = json.loads((tmp_path / "j").read_text())
    subjects = {subject["name"]: subject for subject in result["subjects"]}
    assert list(subjects) == ["model.onnx", "elsewhere.onnx", "floor", "eager"]
    assert all([len(row["ms"]) for row in subject["latency"]] == [4, 4] for subject in subjects.values())
    assert [subject["profile"] is None for subject in subjects.values()] == [False, False, False, True]
    assert (result["kind"], result["rounds"], subjects["model.onnx"]["model"]) == ("side_by_side", 2, "tiny")
    assert subjects["elsewhere.onnx"]["model"] is subjects["elsewhere.onnx"]["precision"] is None
    out = capsys.readouterr().out
    assert "batch 4, threads 1" in out
    assert "MatMul" in out


def test_one_file_is_one_record(file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export.bench, "peak_bytes", lambda *_: [[123]])
    bench_ort.main([str(file), "--runs", "3", "--profile", "--json", str(tmp_path / "r.json")])
    result = check(json.loads((tmp_path / "r.json").read_text()), "this test")
    (row,) = result["latency"]
    assert (len(row["ms"]), result["precision"], result["layout"]) == (3, "fp32", "flat")
    assert row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
    assert row["peak_bytes"] == 123
    assert result["profile"]
    assert "p90 ms" in capsys.readouterr().out


def foreign(path, *inputs):
    """A file of one operation, from inputs of (type, shape)."""
    values = [helper.make_tensor_value_info(f"x{i}", *value) for i, value in enumerate(inputs)]
    nodes = [helper.make_node("Identity", [value.name], [f"y{i}"]) for i, value in enumerate(values)]
    results = [helper.make_tensor_value_info(f"y{i}", kind, None) for i, (kind, _) in enumerate(inputs)]
    graph = helper.make_graph(nodes, "g", values, results)
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=OPSETS), path)
    return str(path)


FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([(FLOAT, ["batch", 3, 8, 8])], []),
        ([(FLOAT, [None, "c", "h", 8])], []),
        ([(FLOAT, [None, "c", "h", 8])], ["--input-shape", "3", "8", "8"]),
        ([(FLOAT, None)], ["--input-shape", "5"]),
        ([(INT64, []), (TensorProto.FLOAT16, ["n", 4]), (FLOAT, [2, "n"])], []),
        ([(FLOAT, [4, 2])], ["--batch", "4"]),
    ],
)
def test_files_from_elsewhere_are_timed(inputs, words, tmp_path, capsys):
    path = foreign(tmp_path / "x.onnx", *inputs)
    bench_ort.main([path, "--runs", "2", "--no-memory", *words])
    assert "x.onnx" in capsys.readouterr().out


def test_a_file_from_elsewhere_is_fed_the_shape_that_is_asked_for(tmp_path):
    path = foreign(tmp_path / "x.onnx", (INT64, []), (FLOAT, ["n", "c", 8]), (FLOAT, [2, "n"]))
    inputs = export.bench.find_inputs(export.bench.read_file(path), [1, 4], [3, 8])
    assert inputs == [Input("x1", "float32", (0, 3, 8)), Input("x2", "float32", (2, 1)), Input("x0", "int64", ())]
    fed = TimedGraph("x", b"", inputs, []).feeds(4)
    assert [(value.shape, bool(value.any())) for value in fed.values()] == [
        ((4, 3, 8), True), ((2, 1), False), ((), False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("inputs", "words", "error"),
    [
        ([(INT64, [1, 2])], [], "no input of floating-point numbers"),
        ([(FLOAT, None)], [], "give --input-shape"),
        ([(FLOAT, ["n", 3, 8])], ["--input-shape", "3", "9"], r"takes \[3, 8\] for each image, not \[3, 9\]"),
        ([(FLOAT, ["n", 3, 8])], ["--input-shape", "3"], "takes"),
        ([(FLOAT, ["n", "c"])], ["--input-shape", "0"], "takes"),
        ([(FLOAT, [1, 3])], ["--batch", "1", "8"], "takes 1 images at once"),
        ([(FLOAT, ["n", 2**40])], [], "too large"),
        ([(FLOAT, [1] * 70)], [], "too large"),
        ([(FLOAT, ["n"]), (TensorProto.STRING, ["n"])], [], "no tensor of plain numbers"),
        ([(FLOAT, ["n", 3])], ["--data", "digits"], "accuracy cannot be measured"),
        ([(FLOAT, ["n", 3])], ["--against", "floor"], "its network is not known"),
    ],
)
def test_files_from_elsewhere_that_are_refused(inputs, words, error, tmp_path):
    path = foreign(tmp_path / "x.onnx", *inputs)
    with pytest.raises(ZooError, match=error):
        bench_ort.main([path, "--runs", "2", *words])


def test_what_is_wrong_is_said_before_anything_is_measured(file, tmp_path, monkeypatch):
    monkeypatch.setattr(bench_ort, "read_file", lambda path: pytest.fail("it was read"))
    for words, error in (
        (["--batch", "0"], "batch_sizes.0: input should be greater than or equal to 1, not 0"),
        (["--runs", "0"], "runs: input should be greater than"),
        (["--rounds", "0"], "rounds: input should be greater than"),
        (["--threads", "100000"], "threads.0: input should be less than"),
        (["--provider", "X"], "unknown provider"),
        (["--json", str(tmp_path)], "it is a directory"),
        (["--json", str(file / "x.json")], "cannot write"),
        (["--network", "sresnet19"], "name baselines"),
        (["--against", "flor"], "flor"),
    ):
        with pytest.raises(ZooError, match=error):
            bench_ort.main([str(file), *words])


def test_one_file_twice_is_refused_and_names_tell_two_apart(file, tmp_path):
    with pytest.raises(ZooError, match="named twice"):
        bench_ort.main([str(file), str(file), "--runs", "1"])
    (tmp_path / "model.onnx").write_bytes(file.read_bytes())
    names = export.bench._names([bench_ort.read_file(path) for path in (file, tmp_path / "model.onnx")])
    assert names == [str(file), str(tmp_path / "model.onnx")]


def test_files_that_prepare_images_otherwise_are_not_measured_on_the_same(file, tmp_path):
    model = network()
    model.pretrained_cfg |= {"crop_pct": 0.5}
    export.to_onnx(model, tmp_path / "x.onnx", verify=False)
    with pytest.raises(ZooError, match="prepared otherwise"):
        bench_ort.main([str(file), str(tmp_path / "x.onnx"), "--data", "digits", "--runs", "1"])
    onnx.save(with_weights(8), tmp_path / "any.onnx")
    with pytest.raises(ZooError, match="its accuracy cannot be measured"):
        bench_ort.main([str(tmp_path / "any.onnx"), str(file), "--data", "digits", "--runs", "1"])


def test_the_network_that_skips_zeros_is_timed_on_images():
    model, seen, call = zoo.load("sresnet19_w32_gs.t4_cifar10"), [], EventConv.__call__
    images = np.random.default_rng(1).standard_normal((1, 3, 32, 32), dtype=np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EventConv, "__call__", lambda self, x, **how: seen.append(x) or call(self, x, **how))
        subject = baseline("event", model, CPU, "all")._replace(images=images)
        with subject.ready(2, 1) as run:
            run()
    assert len(seen) > 10
    assert all(torch.equal(*x.unflatten(0, (4, 2)).unbind(1)) for x in seen)  # both images are the same
    assert not any("forward" in vars(module) for module in model.modules())
