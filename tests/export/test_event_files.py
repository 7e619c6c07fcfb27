"""Event-driven files: kernel and functions agree bit for bit, and the gate refuses what was changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import test_export
import torch
from onnx import numpy_helper
from test_export import optimised

import export
import zoo
from export import run
from export.event import OPERATOR, whole_weights
from export.file import metadata
from export.run import OPTIMIZATIONS, Runner, read_model
from zoo.errors import ZooError
from zoo.kernels.event import INSTRUCTION_SETS, list_instruction_sets
from zoo.scaling.layers import SpikingConv2d

verify = sys.modules["export.verify"]  # the function has its name

NETWORKS = {
    "sresnet": ("sresnet19_w16", {"timesteps": 2}),
    "max_resnet": ("max_resnet18_w16", {"timesteps": 3, "neuron": {"name": "lif", "reset": "soft"}}),
    "sew_resnet": ("sew_resnet19_w16", {"timesteps": 2}),  # counts of spikes
    "plif_net": ("plif_net_w16", {"timesteps": 2, "neuron": "plif"}),  # pools of spikes, decays that learnt
    "sdt": ("sdt_2_64", {"timesteps": 2}),  # attention stays as it is
    "one_step": ("ms_resnet19_w16", {"timesteps": 1}),
    "svgg": ("svgg9_w16", {"timesteps": 2}),  # ends in a product and a sum
}


_FAST = ("sresnet", "max_resnet", "plif_net", "svgg")


def network(name):
    torch.manual_seed(0)
    model = zoo.create_model(NETWORKS[name][0], **NETWORKS[name][1]).eval()
    for module in model.modules():  # untrained networks hardly spike in deep layers
        if isinstance(module, torch.nn.BatchNorm2d):
            module.bias.data.uniform_(0, 0.8)
            module.running_mean.uniform_(-0.1, 0.1)
    return model


def small():
    """Two blocks, for images of 32 x 32 pixels."""
    torch.manual_seed(0)
    model = test_export.network(timesteps=2)
    model.pretrained_cfg["input_size"] = (3, 32, 32)
    return model


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file of a small network, which passed the gate."""
    path = tmp_path_factory.mktemp("event") / "net.onnx"
    return path, export.to_onnx(small(), path, precision="int16")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in _FAST else pytest.mark.slow) for name in NETWORKS]
)
def test_kernel_and_functions_give_the_same_bits(name, tmp_path):
    path = tmp_path / "net.onnx"
    export.to_onnx(network(name), path, precision="int16", verify=False)
    _, proto = read_model(path)
    assert sum(node.op_type == OPERATOR for node in proto.graph.node) >= 5
    values = [*metadata(proto, "spike_values").values(), "logits"]
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    for level in ("disable", "all"):
        runners = [Runner(proto, optimization=level, functions=f, spikes=True) for f in (False, True)]
        kernel, functions = (runner(images, values) for runner in runners)
        assert all(np.array_equal(a, b) for a, b in zip(kernel, functions, strict=True))
    assert np.mean([spikes.mean() for spikes in kernel[:-1]]) > 0.02


def test_onnxruntime_multiplies_no_gain_into_the_convolution_before_it(tmp_path):
    """It would round otherwise than the kernel: of 493 million spikes of a bundled network, 1,192 differed."""
    path = tmp_path / "net.onnx"
    export.to_onnx(network("plif_net"), path, precision="int16", verify=False)
    graph = optimised(path, tmp_path, "BASIC").graph
    assert sum(node.op_type == "Mul" for node in graph.node)
    assert not [value.name for value in graph.initializer if "ConvMul" in value.name]


def test_the_gate_proves_a_file_and_verify_reads_it_back(file):
    path, report = file
    assert report["verification"]["kernel"] == {"levels": list(OPTIMIZATIONS), "images": 32, "identical": True}
    assert report["verification"]["real"]["flip_rate"] < 0.05
    assert export.verify(small(), path)["kernel"]["identical"]


@pytest.mark.parametrize("name", ["sresnet", pytest.param("max_resnet", marks=pytest.mark.slow),
                                  pytest.param("sdt", marks=pytest.mark.slow)])  # fmt: skip
def test_a_stream_of_steps_equals_the_graph_of_all_steps(name, tmp_path):
    model, files = network(name), {}
    for layout in ("flat", "step"):
        files[layout] = tmp_path / f"{layout}.onnx"
        export.to_onnx(
            model, files[layout], precision="int16", layout=layout, verify=layout == "step" and name != "sresnet"
        )
    images = np.random.default_rng(2).standard_normal((3, 3, 32, 32)).astype(np.float32)
    stream = export.Stream(files["step"])
    assert np.allclose(stream.run(images), Runner(read_model(files["flat"])[1])(images, ["logits"])[0], atol=1e-6)
    _, proto = read_model(files["step"])
    layers = metadata(proto, "spike_values")
    flat, step, body = (
        Runner(read_model(files[layout])[1], functions=functions, spikes=True)(images, list(layers.values()))
        for layout, functions in (("flat", False), ("step", False), ("step", True))
    )
    assert all(np.array_equal(a, b) and np.array_equal(b, c) for a, b, c in zip(flat, step, body, strict=True))
    stream.reset()
    stream.step(images)
    assert max(np.abs(value).max() for value in stream._values.values()) > 0.1


@pytest.mark.parametrize("what", ["of something else", "not built"])
def test_without_a_library_that_works_one_line_says_so_and_the_functions_run(file, what, tmp_path, monkeypatch):
    library = tmp_path / "event_ort.so"
    library.write_bytes(Path(torch._C.__file__).read_bytes())

    def event_library():
        if what == "not built":
            raise ZooError("no C++ compiler found")
        return str(library)

    images = np.random.default_rng(3).standard_normal((1, 3, 32, 32)).astype(np.float32)
    _, proto = read_model(file[0])
    expected = Runner(proto)(images, ["logits"])[0]
    monkeypatch.setattr(run, "event_library", event_library)
    run._library.cache_clear()
    try:
        with pytest.warns(UserWarning, match="event-driven nodes run as standard operators") as warned:
            found = Runner(proto)(images, ["logits"])[0]
        assert not run.has_event_library()
    finally:
        run._library.cache_clear()
    assert len(warned) == 1
    assert "\n" not in str(warned[0].message)
    assert np.array_equal(found, expected)


RUN = """
import ctypes, sys
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.register_custom_ops_library(sys.argv[2])
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
images = np.random.default_rng(1).standard_normal((2, 3, 32, 32)).astype(np.float32)
print(ctypes.CDLL(sys.argv[2]).event_best_set(), session.run(["logits"], {"input": images})[0].tobytes().hex())
"""


@pytest.mark.parametrize("instructions", ["portable", "avx2"])
def test_less_able_processors_give_the_same_bits(file, instructions):
    if instructions not in list_instruction_sets():
        pytest.skip(f"this processor has no {instructions}")
    path, _ = file
    images = np.random.default_rng(1).standard_normal((2, 3, 32, 32)).astype(np.float32)
    expected = Runner(read_model(path)[1])(images, ["logits"])[0]
    environment = os.environ | {"SNNZOO_INSTRUCTIONS": instructions}
    command = [sys.executable, "-c", RUN, str(path), export.event_library()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(1 + INSTRUCTION_SETS.index(instructions)), expected.tobytes().hex()]


def test_functions_that_spike_otherwise_than_the_kernel_are_refused(file):
    _, proto = read_model(file[0])
    for node in (n for function in proto.functions for n in function.node if n.op_type == "GreaterOrEqual"):
        node.op_type = "Less"
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    with pytest.raises(ZooError, match="of the event-driven kernel differ from those of the functions"):
        verify._verify_kernel(proto, images, ["disable"])


@pytest.mark.parametrize("part", ["threshold", "decay", "soft_reset", "shortcut", "weight", "scale", "bias"])
def test_the_gate_refuses_a_changed_file(file, part, monkeypatch):
    _, proto = read_model(file[0])
    events = [node for node in proto.graph.node if node.op_type == OPERATOR]
    if part in ("weight", "scale", "bias"):
        name = events[3].input[["weight", "scale", "bias"].index(part) + 1]
        tensor = next(t for t in proto.graph.initializer if t.name == name)
        array = numpy_helper.to_array(tensor).copy()
        array.reshape(-1)[7] += 3
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    elif part == "shortcut":
        node = next(node for node in events if len(node.input) > 5)
        node.input[5] = node.input[0]
    else:
        attribute = next(a for node in events[3:] for a in node.attribute if a.name == part)
        attribute.f, attribute.i = attribute.f + 0.25, 1 - attribute.i
    monkeypatch.setattr(verify, "build_graph", lambda *_: read_model(file[0])[1])  # traced once
    with pytest.raises(ZooError, match="verification failed"):
        export.verify(small(), proto.SerializeToString())


HEADER = Path("/usr/include/onnxruntime/onnxruntime_c_api.h")


@pytest.mark.parametrize("language", ["python", "c"])
def test_the_programs_of_the_readme_run(file, language, tmp_path, monkeypatch):
    readme = Path(export.__file__).with_name("README.md").read_text()
    section = readme.split("## Event-driven")[1]
    program = section.split(f"```{language}\n")[1].split("```")[0]
    shutil.copy(file[0], tmp_path / "int16.onnx")
    image = np.zeros((1, 3, 32, 32), np.float32)
    expected = Runner(read_model(file[0])[1], functions=True)(image, ["logits"])[0]
    if language == "python":
        monkeypatch.chdir(tmp_path)
        names = {}
        exec(program, names)
        found = names["logits"][0]
    else:
        compiler = shutil.which("cc")
        if compiler is None or not HEADER.exists():
            pytest.skip("needs cc and libonnxruntime-dev")
        (tmp_path / "event.c").write_text(program)
        build = [compiler, "-Wall", "event.c", f"-I{HEADER.parent}", "-lonnxruntime", "-o", "event"]
        subprocess.run(build, cwd=tmp_path, check=True)
        run_it = ["./event", "int16.onnx", export.event_library()]
        done = subprocess.run(run_it, cwd=tmp_path, input=image.tobytes(), capture_output=True, check=True)
        found = np.array(done.stdout.split(), np.float64)
    # The C library is of another version, whose stem may add up in another order.
    assert np.allclose(found, expected[0], rtol=0, atol=0 if language == "python" else 1e-4)


def test_whole_weights_are_near_and_their_sums_exact():
    weight = np.random.default_rng(0).standard_normal((8, 64, 3, 3)).astype(np.float32)
    numbers, scale = whole_weights(weight, 3)
    assert 2040 < np.abs(numbers).max() < 2050
    error = numbers * scale[:, None, None, None] - weight
    assert np.abs(error).max() <= scale.max() * 1.5
    assert np.abs(error.cumsum(1).sum((2, 3))).max() <= scale.max() * (0.5 + 1e-3)  # of a channel's taps, and so far
    numbers, scale = whole_weights(weight, 3, 24)
    runs = numbers.transpose(0, 3, 2, 1).reshape(8, -1, 24).astype(int)
    assert 30_000 < max(np.maximum(sign * runs, 0).sum(2).max() for sign in (1, -1)) < 2**15
    assert np.abs(numbers * scale[:, None, None, None] - weight).max() < 2 * scale.max() < 0.002
    exact = np.round(weight * 4) / 64
    numbers, scale = whole_weights(exact, 1)
    assert np.array_equal(numbers * scale[:, None, None, None], exact)
    with pytest.raises(ZooError, match="does not hold exactly"):
        whole_weights(np.ones((1, 20_000, 1, 1), np.float32), 1)


def test_a_window_too_large_for_the_kernel_stays_a_plain_convolution(tmp_path):
    model, path = small(), tmp_path / "net.onnx"
    model.stages[0][0].conv2 = SpikingConv2d(8, 8, 9, padding=4, timesteps=2)
    export.to_onnx(model.eval(), path, precision="int16", verify="quick")
    _, proto = read_model(path)
    windows = {tuple(value.dims[2:]) for value in proto.graph.initializer if len(value.dims) == 4}
    assert (9, 9) in windows


def test_weights_that_two_layers_share_and_a_norm_of_ones_own(tmp_path):
    """Currents of the two layers differ, and so do the whole numbers that stand for the weights."""

    class Half(torch.nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x) * 0.5

    model, path = small(), tmp_path / "net.onnx"
    block = model.stages[0][0]
    block.conv2.weight = block.conv1.weight
    block.bn2 = Half(8).eval()
    block.bn2.bias.data.uniform_(0, 2)
    export.to_onnx(model.eval(), path, precision="int16", verify="quick")  # whose gate compares it with PyTorch
    names = [node.name for node in read_model(path)[1].graph.node if node.name]
    assert len(names) == len(set(names))


def test_a_summand_that_is_repeated_stays_outside_of_the_kernel(tmp_path):
    class Gated(SpikingConv2d):
        def forward(self, x, **named):
            return super().forward(x, **named) + x.amax((1, 2, 3), keepdim=True)

    model = small()
    model.stages[0][0].conv2 = Gated(8, 8, 3, padding=1, bias=False, timesteps=2)
    path = tmp_path / "net.onnx"
    export.to_onnx(model.eval(), path, precision="int16", verify="quick")  # whose gate runs kernel and functions


def test_a_map_too_large_is_one_error(file):
    _, proto = read_model(file[0])
    node = next(node for node in proto.graph.node if node.op_type == OPERATOR and len(node.input) == 4)
    del node.attribute[[a.name for a in node.attribute].index("pads")]
    node.attribute.append(onnx.helper.make_attribute("pads", [2**20] * 4))
    with pytest.raises(ZooError, match="too large"):
        Runner(proto)(np.ones((1, 3, 32, 32), np.float32), ["logits"])


def test_what_is_not_event_driven_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNZOO_INSTRUCTIONS", "AVX2")
    with pytest.raises(ZooError, match=r"unknown SNNZOO_INSTRUCTIONS 'AVX2'.*avx2"):
        export.event_library()
    monkeypatch.undo()
    with pytest.raises(ZooError, match="int16 has the layout flat or step alone, not 'loop'"):
        export.to_onnx(network("sresnet"), tmp_path / "x.onnx", precision="int16", layout="loop")
    assert list_instruction_sets()[0] == "portable"
