"""The event-driven convolution: bit for bit dense ones of whole numbers and the neurons' equations; who gets it."""

import copy
import os
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import zoo
from recipes.predict import predict
from zoo import kernels
from zoo.errors import ZooError
from zoo.kernels import event
from zoo.kernels.build import find_compiler
from zoo.kernels.event import EventConv, build_event_library, list_instruction_sets, whole_bytes
from zoo.metrics import evaluate
from zoo.neurons import LIF
from zoo.scaling.layers import SpikingConv2d, SpikingLinear

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
RATES = [0.0, 0.02, 0.2, 0.6, 1.0]


def reference(spikes, weight, scale, bias, shortcut, state, *, stride, padding, timesteps, neurons):
    """Spikes or None, currents, last membranes, from float64 sums and the float32 operations that event.cpp names."""
    sums = F.conv2d(spikes.permute(0, 3, 1, 2).double(), weight.double(), None, stride, padding).permute(0, 2, 3, 1)
    current = sums.float() * scale + bias
    if shortcut is not None:
        current = current + shortcut
    if neurons is None:
        return None, current, None
    v, fired = state if state is not None else torch.zeros_like(current[: len(current) // timesteps]), []
    for x in current.chunk(timesteps):
        u = v * neurons["decay"] + x * neurons["gain"]
        s = (u >= neurons["threshold"]).float()
        v = u - neurons["threshold"] * s if neurons["soft_reset"] else u * (1 - s)
        fired.append(s)
    return torch.cat(fired).to(torch.uint8), current, v


def float32(value: float) -> float:
    return float(torch.tensor(value))


def draw(generator: torch.Generator, *choices):
    """One of the choices, or a number from the first to the second."""
    if len(choices) == 2 and all(type(c) is int for c in choices):
        return int(torch.randint(choices[0], choices[1] + 1, (), generator=generator))
    return choices[int(torch.randint(len(choices), (), generator=generator))]


def check_random_layer(seed: int, forms: list[tuple[int, ...]]) -> None:
    g = torch.Generator().manual_seed(seed)
    kernel, most, timesteps = draw(g, 1, 3, 3), draw(g, 1, 1, 1, 2, 4, 15), draw(g, 1, 9)
    channels, out_channels = draw(g, 1, 70), draw(g, *range(1, 71), 96, 130, 200)
    stride = draw(g, 1, 2), draw(g, 1, 2)
    padding = draw(g, 0, kernel // 2, kernel + 1), draw(g, 0, kernel // 2, kernel // 2, kernel + 1)
    batch, height, width = draw(g, 1, 3), draw(g, kernel, 9), draw(g, kernel, 9)
    if draw(g, 0, 9) == 0:
        width = draw(g, 33, 70)
    # Weights of so few bits that sums fit, of ten, or the largest there are.
    largest, scale = draw(g, 3, 511, 32767), torch.rand(out_channels, generator=g) * 0.1
    weight = torch.randint(-largest, largest + 1, (out_channels, channels, kernel, kernel), generator=g)
    if draw(g, 0, 1):
        weight = weight.abs()  # sums of one sign are the largest
    bias = torch.randn(out_channels, generator=g)
    numbers = {"decay": draw(g, 0.0, 0.5, 0.75, 1.0, float32(0.3)), "threshold": draw(g, 1.0, 0.5, float32(0.7))}
    numbers |= {"gain": draw(g, 1.0, float32(0.7)), "soft_reset": draw(g, False, True)}
    neurons = draw(g, None, numbers, numbers)
    rates = torch.tensor([draw(g, *RATES) for _ in range(channels)])
    shape = timesteps * batch, height, width, channels
    spikes = (torch.rand(shape, generator=g) < rates).to(torch.uint8)
    spikes = spikes * torch.randint(1, most + 1, shape, generator=g, dtype=torch.uint8)
    if draw(g, 0, 1):  # the steps are alike
        spikes = spikes.unflatten(0, (timesteps, batch))[:1].expand(timesteps, -1, -1, -1, -1).flatten(0, 1)
    settings = {"stride": stride, "padding": padding, "timesteps": timesteps, "neurons": neurons}
    sums = F.conv2d(torch.zeros(1, channels, height, width), weight.float(), None, stride, padding)
    shape = timesteps * batch, *sums.shape[2:], out_channels
    shortcut = draw(
        g, None, torch.randn(shape, generator=g), torch.randint(0, 3, shape, generator=g, dtype=torch.uint8)
    )
    state = torch.randn(batch, *shape[1:], generator=g) if neurons is not None and draw(g, 0, 1) else None
    expected = reference(spikes, weight, scale, bias, shortcut, state, **settings)
    shape = {"stride": stride, "padding": padding, "timesteps": timesteps, "most": most}
    given = {"shortcut" if shortcut is None or shortcut.is_floating_point() else "shortcut_counts": shortcut}
    for isa, group, block, tasks in forms:
        layer = EventConv(weight, scale, bias, isa=isa, group=group, block=block, **shape, **(neurons or {}))
        # Without a place for the currents, other code runs.
        wanted = [neurons is not None, neurons is None or draw(g, 0, 1), state is not None]
        out = [torch.empty_like(x) if want else None for x, want in zip(expected, wanted, strict=True)]
        named = dict(zip(("out_spikes", "out_currents", "out_state"), out, strict=True))
        layer(spikes, tasks=tasks, threads=2, state=state, **given, **named)
        for x, y in zip(out, expected, strict=True):
            assert x is None or torch.equal(x, y)


@pytest.mark.parametrize(("group", "block"), [(1, 32), (2, 64), (4, 64), (0, 0)])
def test_weights_in_float32_are_equal_up_to_rounding(group, block):
    g = torch.Generator().manual_seed(1)
    settings = {"stride": (2, 1), "padding": (1, 1), "timesteps": 4}
    weight, scale, bias = (torch.randn(shape, generator=g) for shape in ((70, 50, 3, 3), 70, 70))
    spikes = torch.randint(0, 4, (8, 7, 9, 50), generator=g, dtype=torch.uint8)
    _, expected, _ = reference(spikes, weight, scale, bias, None, None, **settings, neurons=None)
    fired, neurons = torch.empty(expected.shape, dtype=torch.uint8), {"decay": 0.5, "gain": 1.0, "threshold": 1.0}
    for isa in range(1, 1 + len(list_instruction_sets())):
        layer = EventConv(weight, scale, bias, most=3, isa=isa, group=group, block=block, **settings, **neurons)
        currents = layer(spikes, out_spikes=fired)
        torch.testing.assert_close(currents, expected, rtol=0, atol=2e-4)
        assert torch.equal(fired, LIF(4, kernel="reference")(currents).to(torch.uint8))


def all_forms() -> list[tuple[int, ...]]:
    """Instruction set, planes of a group and channels of a block as `EventShape` numbers them, and tasks."""
    groups = [(0, 0, 1), (1, 32, 4), (2, 64, 7), (4, 128, 3), (4, 32, 1), (8, 32, 3), (8, 64, 1)]
    return [(isa, *form) for isa in range(1, 1 + len(list_instruction_sets())) for form in groups]


@pytest.mark.parametrize("stride", [1, 2])
def test_maps_smaller_than_the_kernel_are_refused(stride):
    layer = EventConv(torch.ones(4, 4, 3, 3), torch.ones(4), torch.ones(4), stride=(stride, stride), timesteps=1)
    with pytest.raises(ZooError, match="smaller than the kernel"):
        layer(torch.ones(1, 2, 2, 4, dtype=torch.uint8))


@pytest.mark.parametrize("seeds", [range(40), pytest.param(range(40, 2040), marks=pytest.mark.slow)], ids=str)
def test_random_layers_equal_the_reference(seeds):
    forms = all_forms()
    for seed in seeds:
        check_random_layer(seed, forms if seed < 40 else [forms[seed % len(forms)], forms[seed // 7 % len(forms)]])


SANITIZED = """
from zoo.kernels import build, event
build._SECONDS = 600
event._FLAGS += ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
import test_event
forms = test_event.all_forms()
for seed in range(2000, 4000):
    test_event.check_random_layer(seed, [forms[seed % len(forms)], forms[seed // 7 % len(forms)]])
print("all of them")
"""


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["aarch64-linux-gnu-g++", "clang++"])
def test_other_compilers_take_it(compiler, tmp_path):
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    command = [compiler, "-std=c++17", "-O1", "-Wall", "-Werror", "-fPIC", "-shared", str(event._SOURCE)]
    subprocess.run([*command, "-o", str(tmp_path / "event.so")], check=True)


@pytest.mark.slow
def test_random_layers_under_sanitizers():
    libraries = [subprocess.check_output([find_compiler(), f"-print-file-name={name}"], text=True).strip()
                 for name in ("libasan.so", "libubsan.so")]  # fmt: skip
    if not all(map(os.path.isabs, libraries)):
        pytest.skip("needs the sanitizers' libraries")
    environment = os.environ | {"LD_PRELOAD": ":".join(libraries), "ASAN_OPTIONS": "detect_leaks=0"}
    environment["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", SANITIZED], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "all of them", done.stderr[-5000:]


TYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}


def run_node(kind, inputs, constants, names, **attributes):
    """What a node of the library gives; that it equals its function of standard operators is tested with the export."""
    graph = helper.make_graph(
        [helper.make_node(kind, names, ["out"], domain="snnzoo", **attributes)], "g",
        [helper.make_tensor_value_info(name, TYPES[str(x.dtype)], [None] * x.ndim) for name, x in inputs.items()],
        [helper.make_tensor_value_info("out", TensorProto.UINT8, [None] * 4)],
        [numpy_helper.from_array(x, name) for name, x in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("snnzoo", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.register_custom_ops_library(str(build_event_library()))
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize(("soft", "threshold"), [(False, 0.75), (True, 0.75), (True, 2)])  # 2: an attribute of type INT
def test_neurons_alone_equal_the_layers_of_the_library(repeat, soft, threshold):
    steps, batch = 3, 2
    x = np.random.default_rng(5).normal(0.4, 1, (batch if repeat else steps * batch, 3, 70, 41)).astype(np.float32)
    numbers = {"timesteps": steps, "repeat": int(repeat), "soft_reset": int(soft), "decay": 0.5, "threshold": threshold}
    found = run_node("EventNeurons", {"x": x}, {}, ["x"], **numbers)
    neurons = LIF(steps, decay=0.5, threshold=threshold, reset="soft" if soft else "hard", kernel="reference")
    np.testing.assert_array_equal(found, neurons(torch.from_numpy(x), repeat=repeat).numpy())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"weight": np.full((5, 4, 3, 3), -32768, np.int16)}, "does not take"),
        ({"weight": np.zeros((5, 4, 9), np.int16)}, "must be \\[Co, C, kh, kw\\]"),
        ({"bias": np.zeros(4, np.float32)}, "must be"),
        ({"x": np.zeros((4, 6, 6, 3), np.uint8)}, "with the channels"),
        ({"x": np.zeros((5, 6, 6, 4), np.uint8)}, "T\\*B"),
        ({"x": np.zeros((4, 2, 6, 4), np.uint8)}, "smaller than the kernel"),
        ({"shortcut": np.zeros((4, 4, 4, 4), np.float32)}, "another shape"),
        ({"timesteps": 0}, "does not take"),
        ({"timesteps": 4 - 2**40}, "does not take"),
        ({"strides": [0, 1]}, "does not take"),
        ({"strides": [1]}, "two numbers"),
        ({"pads": [1, 1]}, "pads four"),
        ({"pads": [0, -1, 0, 0]}, "out of range"),
        ({"pads": [2**40, 0, 0, 0]}, "out of range"),
        ({"most": 16}, "does not take"),
    ],
)
def test_the_operator_refuses_what_it_cannot_take(wrong, words):
    constants = {"weight": np.ones((5, 4, 3, 3), np.int16)} | {key: np.ones(5, np.float32) for key in ("scale", "bias")}
    inputs = {"x": np.zeros((4, 6, 6, 4), np.uint8), "shortcut": np.zeros((4, 4, 4, 5), np.float32)}
    attributes = {"timesteps": 4} | {key: x for key, x in wrong.items() if type(x) in (int, list)}
    for given in (constants, inputs):
        given |= {key: wrong[key] for key in given.keys() & wrong.keys()}
    with pytest.raises(Exception, match=words):
        run_node("EventConv", inputs, constants, ["x", "weight", "scale", "bias", "shortcut"], **attributes)


STEPS = 3


@pytest.fixture
def runs(monkeypatch):
    """Shapes of the spikes that went through the kernel."""
    seen, call = [], EventConv.__call__

    def noting(self, spikes, *others, **named):
        seen.append(tuple(spikes.shape))
        return call(self, spikes, *others, **named)

    monkeypatch.setattr(EventConv, "__call__", noting)
    return seen


def beside_neurons(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, LIF(STEPS))


def spikes_of(*shape: int, rate: float = 0.2, most: int = 1) -> torch.Tensor:
    g = torch.Generator().manual_seed(sum(shape))
    return (torch.rand(shape, generator=g) < rate) * torch.randint(1, most + 1, shape, generator=g).float()


@torch.no_grad()
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("most", [1, 5])
@pytest.mark.parametrize(
    "layer",
    [
        lambda: SpikingConv2d(40, 50, 3, 1, 1, timesteps=STEPS),
        lambda: nn.Conv2d(40, 50, (3, 4), (2, 1), (0, 2)),
        lambda: nn.Conv2d(130, 33, 1, 2),
        lambda: SpikingLinear(130, 33, timesteps=STEPS),
    ],
    ids=["spiking", "stride", "point", "linear"],
)
def test_currents_are_equal_up_to_rounding(layer, most, channels_last, threads, runs):
    torch.manual_seed(0)
    network = beside_neurons(layer())
    linear = isinstance(network[0], nn.Linear)
    x = spikes_of(2 * STEPS, network[0].weight.shape[1], *(() if linear else (13, 9)), most=most)
    if channels_last and not linear:
        x = x.to(memory_format=torch.channels_last)
    expected, before = network[0](x), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with zoo.event_driven(network):
            found = network[0](x)
    finally:
        torch.set_num_threads(before)
    assert len(runs) == 1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * most)
    assert torch.equal(network[0](x), expected)
    assert len(runs) == 1


def test_bytes_are_those_of_whole_numbers_alone():
    x = spikes_of(3, 50, 50, rate=0.3, most=15)
    bytes, most, rate = whole_bytes(x, 15)
    assert torch.equal(bytes.float(), x)
    assert most == 15
    assert rate == x.count_nonzero() / x.numel()
    for value in (0.5, -1, 16, float("nan"), float("inf"), 1e30):
        x[2, 7, 11] = value
        assert whole_bytes(x, 15) is None
    assert whole_bytes(torch.zeros(0, 4), 15)[1:] == (0, 0)


@torch.no_grad()
@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Conv2d(40, 50, 3), torch.rand(STEPS, 40, 5, 5)),  # no spikes
        (nn.Conv2d(40, 50, 3), spikes_of(STEPS, 40, 5, 5, rate=0.9)),  # too many
        (nn.Conv2d(40, 50, 3), spikes_of(STEPS + 1, 40, 5, 5)),  # not of all steps
        (nn.Conv2d(40, 50, 3).double(), spikes_of(STEPS, 40, 5, 5).double()),
        (nn.Conv2d(3, 50, 3), spikes_of(STEPS, 3, 5, 5)),  # short lists
        (nn.Conv2d(64, 64, 3, groups=2), spikes_of(STEPS, 64, 5, 5)),
        (nn.Conv2d(40, 50, 3, padding=1, padding_mode="reflect"), spikes_of(STEPS, 40, 5, 5)),
        (nn.Conv2d(40, 50, 3, padding="same"), spikes_of(STEPS, 40, 5, 5)),
        (nn.Conv2d(40, 50, 3, dilation=2), spikes_of(STEPS, 40, 5, 5)),
        (nn.Conv2d(40, 50, 9), spikes_of(STEPS, 40, 9, 9)),
        (nn.Linear(2**16, 32), spikes_of(STEPS, 2**16)),
    ],
)
def test_what_does_not_fit_stays_as_it_is(layer, x, runs):
    expected = layer(x)
    with zoo.event_driven(beside_neurons(layer)):
        assert torch.equal(layer(x), expected)
    assert not runs


def test_a_forward_of_ones_own_gradients_and_autocast_stay_as_they_are(runs):
    class Own(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) + 1

    class Standardised(nn.Conv2d):
        def _conv_forward(self, x, weight, bias):
            return super()._conv_forward(x, weight - weight.mean((1, 2, 3), keepdim=True), bias)

    x, own, plain = spikes_of(STEPS, 40, 5, 5), Own(40, 50, 3), nn.Conv2d(40, 50, 3)
    standardised = Standardised(40, 50, 3)
    with torch.no_grad():
        expected = standardised(x)
        with zoo.event_driven(beside_neurons(standardised)):
            assert torch.equal(standardised(x), expected)
    with zoo.event_driven(beside_neurons(own)), torch.no_grad():
        assert torch.equal(own(x), nn.functional.conv2d(x, own.weight, own.bias) + 1)
    with zoo.event_driven(beside_neurons(plain)):
        plain(x).sum().backward()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert plain(x).dtype is torch.bfloat16
    assert plain.weight.grad.abs().sum() > 0
    with zoo.event_driven(network := beside_neurons(plain)), torch.no_grad():
        traced = torch.jit.trace(network, x, check_trace=False)
        with FlopCounterMode(display=False) as flops:
            plain(x)
    assert flops.get_total_flops() == 2 * STEPS * 50 * 9 * 40 * 9
    assert torch.equal(traced(x.flip(0)), network(x.flip(0)))
    assert not runs


def test_a_copy_is_dense_and_stays_so(runs):
    plain, x = nn.Conv2d(40, 50, 3), spikes_of(STEPS, 40, 5, 5)
    network = beside_neurons(plain)
    with zoo.event_driven(network), torch.no_grad():
        plain(x)
        before, copied = len(runs), copy.deepcopy(network)
        for layer in copied.modules():
            if isinstance(layer, nn.Conv2d):
                assert torch.equal(layer(x), nn.functional.conv2d(x, plain.weight, plain.bias))
    assert len(runs) == before == 1


@pytest.mark.parametrize("name", ["sresnet19_w32_gs", "max_resnet18_w32_gs", "sew_resnet19_w32"])
def test_networks_give_the_same_up_to_rounding(name, runs, monkeypatch, tmp_path):
    model, data = zoo.load(f"{name}.t4_cifar10"), (torch.randint(256, (4, 3, 32, 32)).byte(), torch.zeros(4).byte())
    event, through = evaluate(model, *data), len(runs)
    Image.new("RGB", (32, 32), (90, 120, 30)).save(tmp_path / "a.png")
    assert predict(model, tmp_path / "a.png")
    assert 10 < through < len(runs)
    runs.clear()
    monkeypatch.setenv(kernels.VARIABLE, kernels.REFERENCE)
    dense = evaluate(model, *data)
    assert not runs
    assert event["spikes_per_image"] == pytest.approx(dense["spikes_per_image"], rel=1e-3)
    assert event["loss"] == pytest.approx(dense["loss"], rel=1e-2)


@torch.no_grad()
def test_the_keyword_kernel_and_a_failed_build_leave_convolutions_dense(monkeypatch, runs):
    x = spikes_of(STEPS, 40, 5, 5)
    network = nn.Sequential(nn.Conv2d(40, 50, 3), LIF(STEPS, kernel="reference"))
    with zoo.event_driven(network):
        network[0](x)
    network[1].kernel = "auto"

    def fail():
        raise ZooError("no C++ compiler found")

    for cached in (kernels._event_obstacle, kernels._announce):
        monkeypatch.setattr(kernels, cached.__name__, copy.copy(cached.__wrapped__))
    monkeypatch.setattr(kernels.event, "prepare", fail)
    why = "convolutions multiply zeros, too, slower: no C.. compiler found.*hides this"
    with pytest.warns(UserWarning, match=why), zoo.event_driven(network):
        network[0](x)
    assert not runs
