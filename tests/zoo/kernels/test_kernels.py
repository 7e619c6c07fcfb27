"""The fused CPU kernel against the plain reference: spikes bit for bit, gradients to rounding; who chooses it, and what
happens where a compiler does not do what it should.
"""

import atexit
import copy
import math
import os
import shutil

import pytest
import torch
from conftest import run_code, tiny
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

import zoo
from zoo import kernels
from zoo.errors import ZooError
from zoo.kernels import build, can_weigh_steps, cpu
from zoo.kernels.build import find_compiler
from zoo.kernels.lif import plain_lif, weighted_steps
from zoo.neurons import CLIF, create_neuron
from zoo.neurons.base import input_current
from zoo.neurons.lif import LIF, PLIF
from zoo.scaling.layers import SpikingConv2d
from zoo.scaling.rules import PRESETS
from zoo.scaling.spec import Scaling

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
KINDS = [  # every surrogate, both resets, with and without gradient through the reset, learnable leak
    ({"name": "lif"}, "triangle", 4),
    ({"name": "lif", "reset": "soft", "decay_input": True}, "rectangle", 2),
    ({"name": "lif", "detach_reset": False}, "arctan", 1),
    ({"name": "if", "reset": "soft", "detach_reset": False}, {"name": "sigmoid", "width": 0.5}, 4),
    ({"name": "plif"}, "arctan", 2),
]
# Each is a kernel to build, which takes seconds: every kind, and the other types with the two that differ most.
CASES = [(kind, torch.float32) for kind in KINDS]
CASES += [(kind, dtype) for kind in (KINDS[0], KINDS[4]) for dtype in (torch.float64, torch.bfloat16)]


def pair(neuron, surrogate, timesteps):
    return [create_neuron(neuron, timesteps, surrogate, kernel) for kernel in ("reference", "fused")]


def run(lif, x, weight, **current):
    """Spikes, and the gradients of everything that has one."""
    leaves = [x, *[p for part in (lif, *current.values()) if isinstance(part, nn.Module) for p in part.parameters()]]
    if isinstance(current.get("shortcut"), torch.Tensor):
        leaves.append(current["shortcut"])
    spikes = lif(x, **current)
    return spikes.detach(), torch.autograd.grad((spikes * weight).sum(), leaves)


def close(got, expected, tolerance):
    """Equal to `tolerance` of the largest finite value, and NaN at the same places."""
    scale = max(1.0, float(expected.nan_to_num(0, 0, 0).abs().max()) if expected.numel() else 1.0)
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


SPECIAL = [0.0, -0.0, 1.0, 1.0 - 2**-24, 1.0 + 2**-23, 0.5, 2.0, -1.0]
SPECIAL += [1e30, -1e30, 1e-40, math.inf, -math.inf, math.nan]


@given(
    case=st.sampled_from(CASES),
    shape=st.sampled_from([(1,), (3, 1), (2, 7), (1, 5, 3, 3), (2, 16, 4, 4), (1, 300, 1, 2), (2, 3, 17, 17)]),
    channels_last=st.booleans(),
    repeat=st.booleans(),
    threshold=st.sampled_from([1.0, 0.3, 7.5]),
    special=st.lists(st.sampled_from(SPECIAL), max_size=12),
    seed=st.integers(0, 10**6),
)
def test_neurons_equal_the_reference(case, shape, channels_last, repeat, threshold, special, seed):
    (spec, surrogate, timesteps), dtype = case
    generator = torch.Generator().manual_seed(seed)
    rows = shape[0] * (1 if repeat else timesteps)
    x = (1.5 * threshold * torch.randn(rows, *shape[1:], generator=generator)).to(dtype)
    places = torch.randint(x.numel(), (len(special),), generator=generator)
    x.view(-1)[places] = torch.tensor(special, dtype=dtype) * threshold  # ties, infinities, NaN
    if channels_last and x.dim() == 4:
        x = x.to(memory_format=torch.channels_last)
    weight = torch.randn(shape[0] * timesteps, *shape[1:], generator=generator).to(dtype)
    outcomes = [
        run(lif, x.clone().requires_grad_(), weight, repeat=repeat)
        for lif in pair(spec | {"threshold": threshold}, surrogate, timesteps)
    ]
    (expected, expected_grads), (spikes, grads) = outcomes
    assert torch.equal(spikes, expected)
    assert spikes.dtype == dtype
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-12, torch.bfloat16: 2**-8}[dtype]
    close(grads[0], expected_grads[0], tolerance * (1 if dtype is torch.float64 or not repeat else timesteps))
    if len(grads) > 1 and torch.isfinite(x).all():  # PLIF's leak: one sum over everything
        close(grads[1], expected_grads[1], max(tolerance, 1e-5))


def norm_for(channels, dtype, training, seed):
    torch.manual_seed(seed)
    norm = nn.BatchNorm2d(channels).to(dtype).train(training)
    norm.weight.data.uniform_(0.5, 2), norm.bias.data.uniform_(-0.2, 0.6)
    norm.running_mean.normal_(0, 0.3), norm.running_var.uniform_(0.3, 2)
    return norm


@given(
    case=st.sampled_from([CASES[0], CASES[1], CASES[3], (KINDS[0], torch.float64)]),
    shape=st.sampled_from([(2, 1, 3, 3), (3, 16, 4, 4), (2, 48, 5, 3), (1, 300, 2, 2), (2, 3, 20, 20)]),
    channels_last=st.booleans(),
    shortcut=st.sampled_from(["none", "plain", "normed", "only"]),
    training=st.booleans(),
    repeat=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_normalised_sums_equal_the_reference(case, shape, channels_last, shortcut, training, repeat, seed):
    (spec, surrogate, timesteps), dtype = case
    repeat = repeat and shortcut == "none"
    torch.manual_seed(seed)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    rows = shape[0] * (1 if repeat else timesteps)
    x, r = (2 * torch.randn(rows, *shape[1:], dtype=dtype).to(memory_format=layout) for _ in range(2))
    weight = torch.randn(shape[0] * timesteps, *shape[1:], dtype=dtype)
    outcomes = []
    for lif in pair(spec, surrogate, timesteps):
        norm, r_norm = (norm_for(shape[1], dtype, training, seed + i) for i in range(2))
        current = {"norm": None if shortcut == "only" else norm, "repeat": repeat}
        if shortcut != "none":
            current |= {
                "shortcut": r.clone().requires_grad_(),
                "shortcut_norm": None if shortcut == "plain" else r_norm,
            }
        spikes, grads = run(lif, x.clone().requires_grad_(), weight, **current)
        outcomes.append((spikes, grads, [*norm.buffers(), *r_norm.buffers()]))
    (expected, expected_grads, expected_buffers), (spikes, grads, buffers) = outcomes
    assert spikes.is_contiguous(memory_format=layout)
    tight = 1e-11 if dtype is torch.float64 else 2e-6 if training else 1e-6
    for a, b in zip(buffers, expected_buffers, strict=True):
        close(a, b, tight)
    differ = (spikes != expected).double().mean()
    if training and dtype is torch.float32:
        # Statistics are sums in another order: a current within rounding of the threshold may fall on its other side.
        assert differ <= 1e-3
    else:
        assert differ == 0
    if differ == 0:
        for a, b in zip(grads, expected_grads, strict=True):
            close(a, b, 1e-9 if dtype is torch.float64 else 1e-5)


@pytest.mark.parametrize("shortcut", [False, True])
def test_bfloat16_is_as_near_the_exact_network_as_the_reference_is(shortcut):
    torch.manual_seed(0)
    exact_x, exact_r = (torch.randn(4 * 8, 16, 8, 8).bfloat16().double() for _ in range(2))
    weight, errors = torch.randn(4 * 8, 16, 8, 8), []
    results = []
    for kernel, dtype in (("reference", torch.float64), ("reference", torch.bfloat16), ("fused", torch.bfloat16)):
        norm = norm_for(16, torch.float32, True, 1)
        if dtype is torch.float64:
            norm.double()
        x, r = (v.to(dtype).requires_grad_() for v in (exact_x, exact_r))
        current = {"norm": norm, "shortcut": r} if shortcut else {"norm": norm}
        results.append(run(LIF(4, kernel=kernel), x, weight.to(dtype), **current))
    for spikes, grads in results[1:]:
        wrong = (spikes.double() != results[0][0]).double().mean()
        gradient = (grads[0].double() - results[0][1][0]).norm() / results[0][1][0].norm()
        errors.append((float(wrong), float(gradient)))
    assert errors[0][0] > 0  # or the comparison says nothing
    assert errors[1][0] <= errors[0][0]
    assert errors[1][1] <= errors[0][1] * 1.02


def test_every_layout_of_the_input_is_taken():
    lif, plain = LIF(2, kernel="fused"), LIF(2, kernel="reference")
    x = torch.randn(4, 6, 5, 7)
    for view in (x.transpose(2, 3), x[:, ::2], x.expand(4, 6, 5, 7)[:, :, 1:], x.flip(1), x[:0], x[:, :0]):
        assert torch.equal(lif(view), plain(view))
    spikes = lif(x.to(memory_format=torch.channels_last).requires_grad_())
    assert spikes.is_contiguous(memory_format=torch.channels_last)
    spikes.mean().backward()  # an expanded gradient


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_weighted_sum_of_steps(dtype, layout, monkeypatch):
    """Of spikes or their counts in one byte each or in the layer's precision, wherever in memory the steps lie."""
    counts = torch.randint(0, 3, (4 * 3, 5, 7, 6)).to(torch.int8).contiguous(memory_format=layout)
    weights = [0.05, 0.14, 0.37, 1.0]
    behind, apart = counts.unflatten(0, (4, -1)), counts.unflatten(0, (-1, 4)).transpose(0, 1)[:, :2]
    single = behind.to(dtype)
    for x in (behind, apart, behind[:, :2], behind[..., 1:], single, single[:, :2], apart.to(dtype)):
        assert can_weigh_steps(x, dtype)
        got, expected = weighted_steps(x, weights, dtype), sum(w * s.double() for w, s in zip(weights, x, strict=True))
        tolerance = {torch.float32: 1e-6, torch.float64: 1e-12, torch.bfloat16: 4e-3}[dtype]
        torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance)
        assert got.dtype == dtype
        operator = torch.ops.snnzoo.weighted_steps.default  # what a compiler is told of it
        torch.library.opcheck(operator, (x, weights, dtype), test_utils="test_faketensor")
    assert got.shape == x.shape[1:]
    assert weighted_steps(behind, weights, dtype).is_contiguous(memory_format=layout)
    assert not can_weigh_steps(behind.half(), dtype)
    monkeypatch.setenv("SNNZOO_KERNEL", "reference")
    assert not can_weigh_steps(behind, dtype)


def loss_and_gradients(model, x, amp=False):
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        logits = model(x)
    F.cross_entropy(logits.float(), torch.arange(len(x)) % 10).backward()
    return logits.detach(), [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("scaling", ["none", "causal_trace"])
@pytest.mark.parametrize("neuron", ["lif", "plif"])
def test_whole_networks_agree_in_float64(scaling, neuron):
    models = [tiny(scaling=scaling, neuron=neuron, kernel=k).double() for k in ("reference", "fused")]
    models[1].load_state_dict(models[0].state_dict())
    x = torch.randn(3, 3, 12, 12, dtype=torch.float64)
    for mode in (True, False):
        (a, da), (b, db) = (loss_and_gradients(model.train(mode), x) for model in models)
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        for p, q in zip(da, db, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-9)
    for a, b in zip(models[0].buffers(), models[1].buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("preset", "compiled"),
    [(name, False) for name in PRESETS]
    + [("causal_trace", True)]
    + [pytest.param(name, True, marks=pytest.mark.slow) for name in ("window", "local_error")],
)
def test_scaled_gradients_follow_the_rule_in_the_recipes_own_configuration(preset, compiled):
    """bf16, fused kernel, channels_last, with and without torch.compile: each scaled layer against the rule."""
    rule = Scaling(preset, 0.9)
    model = tiny(scaling={"name": preset, "alpha": 0.9}, timesteps=2, kernel="fused")
    model.to(memory_format=torch.channels_last)
    seen = {}
    layers = {n: m for n, m in model.named_modules() if isinstance(m, SpikingConv2d) and m.scaling}
    assert layers
    x = torch.randn(8, 3, 16, 16).contiguous(memory_format=torch.channels_last)

    def watch(name, layer):  # an eager forward and backward tells what the layers saw
        def hook(_, inputs, output):
            seen[name] = [inputs[0].detach()]
            output.register_hook(lambda grad: seen[name].append(grad))

        return layer.register_forward_hook(hook)

    handles = [watch(name, layer) for name, layer in layers.items()]
    posts = {}
    for name in layers:
        block, which = name.rsplit(".conv", 1)
        neuron = model.get_submodule(f"{block}.lif{which}")
        handles.append(neuron.register_forward_hook(lambda _, __, s, name=name: posts.__setitem__(name, s.detach())))
    loss_and_gradients(model, x, amp=True)
    for handle in handles:
        handle.remove()
    network = torch.compile(model, fullgraph=True, backend="aot_eager") if compiled else model
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(x)
    F.cross_entropy(logits.float(), torch.arange(8)).backward()
    for name, layer in layers.items():

        def operator(a, b, layer=layer):
            return torch.nn.grad.conv2d_weight(a.double(), layer.weight.shape, b.double(), padding=layer.padding)

        pre, error = seen[name]
        fold = lambda z: z.unflatten(0, (2, -1))  # noqa: E731
        pre, post, error = fold(pre.double()), fold(posts[name].double()), fold(error.double())
        sent = rule.factor(pre, post, operator, pre.dtype) if rule.preset.locality == "weight" else post
        expected, _ = rule.gradients(pre, sent, error, operator)
        plain = operator(pre.flatten(0, 1), error.flatten(0, 1))
        got = layer.weight.grad.double()
        assert (got - expected).norm() < 0.02 * expected.norm(), name
        assert (got - plain).norm() > 0.1 * plain.norm(), name


def test_channels_last_is_kept_through_network_and_compiler():
    model = tiny(kernel="fused").to(memory_format=torch.channels_last)
    x = torch.randn(4, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    for layer in (m for m in model.modules() if isinstance(m, LIF) and m is not model.lif_hidden):
        layer.register_forward_hook(lambda _, __, s: layouts.append(s.is_contiguous(memory_format=torch.channels_last)))
    layouts = []
    model(x)
    assert layouts == [True] * 7
    compiled = torch.compile(model.forward_features, fullgraph=True, backend="aot_eager")
    assert compiled(x).is_contiguous(memory_format=torch.channels_last)


def test_what_is_kept_for_backward():
    """Convolution outputs, block spikes, and one byte for each spike inside a block; never a membrane."""
    from recipes.bench import saved_bytes

    model = zoo.create_model("sresnet19_w16", timesteps=4, kernel="fused")
    x = torch.randn(2, 3, 32, 32)
    outputs = {}
    for name, module in model.named_modules():
        if isinstance(module, (LIF, nn.Conv2d)):
            module.register_forward_hook(lambda _, __, y, name=name: outputs.__setitem__(name, y.numel()))
    kept = saved_bytes(lambda: model(x), list(model.parameters()))
    inside = sum(n for name, n in outputs.items() if ".lif1" in name)
    rest = sum(outputs.values()) - inside
    assert kept <= 1.02 * (4 * rest + inside)


def test_who_chooses(monkeypatch):
    currents = torch.ones(4, 3)
    assert LIF(2).kernel_for("cpu", torch.float32) == "cpp"
    assert LIF(2, kernel="reference").kernel_for("cpu", torch.float32) == "reference"
    monkeypatch.setenv("SNNZOO_KERNEL", "reference")
    assert LIF(2).kernel_for("cpu", torch.float32) == "reference"
    assert LIF(2, kernel="fused").kernel_for("cpu", torch.float32) == "cpp"  # a keyword is nearer than a variable
    assert zoo.model_info("sresnet19_w16")["kernel"]["cpu"] == "reference"
    monkeypatch.setenv("SNNZOO_KERNEL", "fused")
    with pytest.raises(ZooError, match="no fused kernel has the dynamics of CLIF"):
        CLIF(2)(currents)
    monkeypatch.setenv("SNNZOO_KERNEL", "fast")
    with pytest.raises(ZooError, match=r"SNNZOO_KERNEL.*fast"):
        LIF(2)(currents)
    monkeypatch.delenv("SNNZOO_KERNEL")
    with pytest.raises(ZooError, match="fast"):
        LIF(2, kernel="fast")
    with pytest.raises(ZooError, match="float16"):
        LIF(2, kernel="fused")(currents.half())
    with pytest.raises(ZooError, match="17"):
        LIF(17, kernel="fused")(torch.ones(17, 1))
    assert zoo.model_info("sresnet19_w16")["kernel"]["cpu"] == "cpp"
    assert "kernel" not in zoo.create_model("sresnet19_w16", kernel="reference").model_args


WITHOUT_COMPILER = """
import torch, warnings
from zoo.neurons import LIF
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    x = torch.randn(4, 3)
    assert torch.equal(LIF(2)(x), LIF(2, kernel="reference")(x))
    LIF(2)(x)
print(len(caught), LIF(2).kernel_for("cpu", torch.float32), caught[0].message)
LIF(2, kernel="fused")(x)
"""


def test_without_a_compiler_the_reference_runs(tmp_path):
    done = run_code(WITHOUT_COMPILER, tmp_path, PATH=str(tmp_path), SNNZOO_CACHE=str(tmp_path), CXX="")
    assert done.stdout.startswith("1 reference"), done.stdout + done.stderr
    assert "no C++ compiler" in done.stdout
    assert done.returncode != 0
    assert "no C++ compiler" in done.stderr  # "fused" asked for what there is not


def test_the_built_kernel_is_kept(tmp_path):
    code = "import torch; from zoo.neurons import LIF; print(LIF(2)(torch.ones(2, 1)).tolist())"
    seen = []
    for _ in range(2):
        assert "1.0" in run_code(code, tmp_path, SNNZOO_CACHE=str(tmp_path / "cache")).stdout
        seen += [(file, file.stat().st_mtime_ns) for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert seen == seen[:1] * 2


def test_parameters_need_not_be_contiguous():
    """As those of an ensemble that are stacked in one tensor."""
    x, norm, shortcut = torch.randn(4, 3, 5, 5), nn.BatchNorm2d(3).eval(), nn.BatchNorm2d(3)
    for name in ("weight", "bias", "running_mean", "running_var"):
        value = getattr(norm, name).detach() + torch.rand(3)
        strided = torch.stack([value, torch.randn(3)], -1)[..., 0]
        setattr(norm, name, nn.Parameter(strided) if name in ("weight", "bias") else strided)
    with torch.no_grad():
        a, b = (
            LIF(2, kernel=kernel)(x, norm=norm, shortcut=x, shortcut_norm=copy.deepcopy(shortcut))
            for kernel in ("fused", "reference")
        )
    assert not norm.weight.is_contiguous()
    assert 0 < a.mean() < 1
    assert torch.equal(a, b)


@pytest.mark.parametrize("change", [{"track_running_stats": False}, {"num_batches_tracked": None}, {"momentum": None}])
def test_running_statistics_are_kept_as_pytorch_keeps_them(change):
    x, norms = torch.randn(4, 3, 5, 5), [nn.BatchNorm2d(3) for _ in range(2)]
    for norm, kernel in zip(norms, ("fused", "reference"), strict=True):
        for name, value in change.items():
            setattr(norm, name, value)
        LIF(2, kernel=kernel)(x, norm=norm)
    for a, b in zip(norms[0].buffers(), norms[1].buffers(), strict=True):
        torch.testing.assert_close(a, b)
    assert bool(norms[0].running_mean.any()) == ("track_running_stats" not in change)


def test_what_traces_sees_operators():
    """Though the kernel was not examined before, and though make_fx traces with tensors that hold data."""
    lif, (a, b) = LIF(2, kernel="fused"), torch.randn(2, 4, 3)
    kernels._obstacle.cache_clear()
    with FakeTensorMode():
        assert lif(torch.randn(4, 3)).shape == (4, 3)
    graph, traced = make_fx(lif)(a), torch.jit.trace(lif, a, check_trace=False)
    for program in (graph, traced, torch.export.export(lif, (a,)).module()):
        assert torch.equal(program(b), lif(b))


def test_a_learnable_decay_takes_one_build_of_the_kernel(monkeypatch):
    """That which is examined before neurons run is that which runs."""
    built, load = [], cpu.load_library
    monkeypatch.setattr(cpu, "load_library", lambda *constants: built.append(constants) or load(*constants))
    kernels._obstacle.cache_clear()
    PLIF(2, surrogate="arctan", kernel="fused")(torch.randn(4, 3, requires_grad=True)).sum().backward()
    assert len(built) == 3
    assert "-DLEAK=1" in built[0]
    assert built == built[:1] * 3


def test_norms_that_a_kernel_cannot_stand_in_for_are_called():
    class Doubled(nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    x, calls = torch.randn(4, 3, 5, 5), []
    watched = nn.BatchNorm2d(3)
    watched.register_forward_hook(lambda *_: calls.append(1))
    for norm in (Doubled(3), nn.GroupNorm(1, 3), watched, nn.BatchNorm2d(3, affine=False, momentum=None)):
        a = LIF(2, kernel="fused")(x, norm=norm, shortcut=x)
        b = LIF(2, kernel="reference")(input_current(x, 2, norm, x))
        assert torch.equal(a, b), norm
    assert len(calls) == 2


@pytest.mark.parametrize("scaling", [None, {"name": "window", "alpha": 0.5}])
def test_a_second_derivative_is_an_error_and_no_wrong_number(scaling):
    model, x = tiny(kernel="fused", scaling=scaling), torch.randn(2, 3, 16, 16, requires_grad=True)
    (grad,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.square().sum().backward()


LAST = 'for word; do out="$word"; done\n'
COMPILERS = {
    "fails and prints bytes": ("printf '\\377\\033[31m error \\376' >&2; exit 1", "cannot build"),
    "writes an empty file": (f"{LAST}: > $out", "writes nothing"),
    "writes no library": (f"{LAST}head -c 5000 /dev/urandom > $out", "cannot load"),
    "sleeps": ("sleep 30 & exec sleep 30", "does not end within"),
}


@pytest.mark.parametrize("kind", COMPILERS)
def test_a_compiler_that_misbehaves(kind, tmp_path, monkeypatch):
    text, words = COMPILERS[kind]
    compiler = tmp_path / "compiler"
    compiler.write_text(f"#!/bin/sh\n{text}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("SNNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "_SECONDS", 0.5 if kind == "sleeps" else 60)
    build.cache_folder.cache_clear()
    try:
        obstacle = kernels._obstacle.__wrapped__("cpu", torch.float32, plain_lif(13), False)
    finally:
        build.cache_folder.cache_clear()
    assert words in obstacle
    assert obstacle.isprintable()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_cache_that_is_a_file_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("mine")
    monkeypatch.setenv("SNNZOO_CACHE", str(tmp_path / "cache"))
    removed = []
    monkeypatch.setattr(atexit, "register", lambda *call, **_: removed.append(call))
    folder = build.cache_folder.__wrapped__("kernels")
    assert removed == [(shutil.rmtree, folder)]
    shutil.rmtree(folder)
    assert (tmp_path / "cache").read_text() == "mine"


def test_a_library_that_was_cut_short_is_built_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNZOO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "one.cpp").write_text('extern "C" int one() { return 1; }')
    build.cache_folder.cache_clear()
    try:
        mask = os.umask(0o077)
        library = build.build_library(tmp_path / "one.cpp")
        os.umask(mask)
        size, mode = library.stat().st_size, library.stat().st_mode
        assert mode & 0o777 == 0o755  # others may share the cache, whatever the compiler's umask
        for left in (0, 40, size // 2, size - 1):
            os.truncate(library, left)
            assert build.build_library(tmp_path / "one.cpp").stat().st_size == size
    finally:
        build.cache_folder.cache_clear()
