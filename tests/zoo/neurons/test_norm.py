"""Normalisations by name against their formulas, and with neurons and kernels around them; encodings against loops."""

import copy
import math

import pytest
import torch
from torch import nn

from zoo.errors import ZooError
from zoo.neurons.encoding import encode, resolve_encoding
from zoo.neurons.lif import LIF
from zoo.neurons.norm import TEBN, can_fuse, create_norm, list_norms

T, B, C = 3, 4, 5


def currents(dtype=torch.float32):
    """Currents [T*B, C, H, W] whose mean and spread differ between channels and time steps."""
    scale = torch.arange(1.0, T + 1).repeat_interleave(B).view(-1, 1, 1, 1)
    return (torch.randn(T * B, C, 6, 6) * scale + torch.arange(C).view(1, -1, 1, 1)).to(dtype)


@pytest.mark.parametrize(("alpha", "threshold"), [(None, 1.0), (None, 0.5), (1 / math.sqrt(2), 0.8)])
def test_tdbn_normalises_over_time_to_alpha_times_the_threshold(alpha, threshold):
    spec = "tdbn" if alpha is None else {"name": "tdbn", "alpha": alpha}
    norm, x = create_norm(spec, C, T, threshold).double(), currents(torch.float64)
    scale = (alpha or 1.0) * threshold
    steps = x.unflatten(0, (T, B))  # eq. 5 to 7: one mean and variance a channel, over steps, images and positions
    mean = steps.mean((0, 1, 3, 4)).view(1, -1, 1, 1)
    var = (x - mean).square().mean((0, 2, 3)).view(1, -1, 1, 1)
    y = norm(x)
    torch.testing.assert_close(y, scale * (x - mean) / (var + norm.eps).sqrt(), rtol=1e-6, atol=1e-6)
    assert y.std().item() == pytest.approx(scale, rel=1e-3)
    assert type(norm) is nn.BatchNorm2d
    assert can_fuse(norm, x)


def test_tebn_is_batch_normalisation_times_a_factor_for_each_step():
    norm, x = create_norm("tebn", C, T, 1.0).double(), currents(torch.float64)
    plain = nn.BatchNorm2d(C).double()
    assert torch.equal(norm(x), plain(x))
    with torch.no_grad():
        norm.p.copy_(torch.tensor([0.5, -1.0, 2.0]))
    for mode in (True, False):
        y, reference = norm.train(mode)(x), plain.train(mode)(x).unflatten(0, (T, B))
        for t, factor in enumerate([0.5, -1.0, 2.0]):
            assert torch.equal(y.unflatten(0, (T, B))[t], reference[t] * factor)
    norm(x).sum().backward()
    torch.testing.assert_close(norm.p.grad, reference.sum((1, 2, 3, 4)))
    assert norm.weight is norm.bn.weight
    assert norm.bias is norm.bn.bias


@pytest.mark.parametrize("name", list_norms())
@pytest.mark.parametrize("kernel", ["reference", "auto"])
@pytest.mark.parametrize("training", [True, False])
def test_neurons_take_every_norm_and_shortcut_norm(name, kernel, training):
    """Whatever code runs: the fused kernel takes bn and tdbn, and gets what tebn made."""
    norms = [create_norm(name, C, T, 0.7).train(training) for _ in range(2)]
    with torch.no_grad():
        for parameter in (p for norm in norms for p in norm.parameters()):
            parameter.copy_(torch.rand_like(parameter) + 0.5)
    lif, before = LIF(T, threshold=0.7, kernel=kernel), copy.deepcopy(norms)
    x, r = currents(), currents().flip(0)
    expected = LIF(T, threshold=0.7, kernel="reference")(before[0](x) + before[1](r))
    out = lif(x, norm=norms[0], shortcut=r, shortcut_norm=norms[1])
    assert (out != expected).float().mean() < 1e-3  # sums in another order
    for ours, theirs in zip(norms, before, strict=True):
        for key, value in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [T, 2])
@pytest.mark.parametrize("kernel", ["reference", "auto"])
def test_tebn_on_a_repeated_current_scales_steps_not_images(batch, kernel):
    norm = create_norm("tebn", C, T, 1.0)
    with torch.no_grad():
        norm.p.copy_(torch.tensor([0.5, 1.0, 3.0]))
    x, lif = torch.randn(batch, C, 6, 6), LIF(T, kernel=kernel)
    expected = lif(copy.deepcopy(norm)(torch.cat([x] * T)))
    assert torch.equal(lif(x, norm=norm, repeat=True), expected)


def test_spikingjelly_has_the_same_norms():
    layer = pytest.importorskip("spikingjelly.activation_based.layer", reason="needs the extra 'peers'")
    x = currents().unflatten(0, (T, B))
    theirs = layer.ThresholdDependentBatchNorm2d(0.7, 0.5, C)
    torch.testing.assert_close(
        create_norm({"name": "tdbn", "alpha": 0.7}, C, T, 0.5)(x.flatten(0, 1)), theirs(x).flatten(0, 1)
    )
    theirs, ours = layer.TemporalEffectiveBatchNorm2d(T, C), create_norm("tebn", C, T, 1.0)
    with torch.no_grad():
        theirs.scale.copy_(torch.rand(T))
        ours.p.copy_(theirs.scale)
    torch.testing.assert_close(ours(x.flatten(0, 1)), theirs(x).flatten(0, 1))


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ("tbn", "tdbn"),
        (5, "norm takes"),
        ({"name": "tdbn", "alhpa": 1}, "alpha"),
        ({"name": "tdbn", "alpha": 0}, "alpha of tdbn must be a number in"),
        ({"name": "tebn", "alpha": 1.0}, "key of norm tebn 'alpha'"),
    ],
)
def test_bad_norms_are_named(spec, word):
    with pytest.raises(ZooError, match=word):
        create_norm(spec, C, T, 1.0)
    with pytest.raises(ZooError, match="7 is not a multiple of 3"):
        TEBN(C, T)(torch.zeros(7, C, 2, 2))


def test_a_norm_that_somebody_watches_is_called():
    norm, x = nn.BatchNorm2d(C), currents()
    for watch in (norm.register_full_backward_hook, nn.modules.module.register_module_forward_hook):
        handle = watch(lambda *_: None)
        assert not can_fuse(norm, x)
        handle.remove()
        assert can_fuse(norm, x)
    norm.forward = norm.forward
    assert not can_fuse(norm, x)


@pytest.mark.parametrize("kernel", ["reference", "auto"])
def test_a_norm_of_ones_own_that_tells_steps_apart_gets_all_of_them(kernel):
    class Steps(nn.Module):
        learns_per_step = True

        def forward(self, x):
            return (x.unflatten(0, (T, -1)) * torch.arange(1.0, T + 1).view(T, 1, 1, 1, 1)).flatten(0, 1)

    x, lif = torch.randn(T, C, 6, 6), LIF(T, kernel=kernel)
    assert torch.equal(lif(x, norm=Steps(), repeat=True), lif(Steps()(torch.cat([x] * T))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("timesteps", [1, 2, 4])
@pytest.mark.parametrize("name", ["rate", "latency"])
def test_spikes_are_0_or_1_and_time_comes_first(name, dtype, timesteps):
    x = torch.rand(2, 3, 4, 5, dtype=dtype).requires_grad_()
    out, repeat = encode(x, name, timesteps, 3)
    assert not repeat
    assert out.shape == (timesteps * 2, 3, 4, 5)
    assert out.dtype == dtype
    assert set(out.unique().tolist()) <= {0.0, 1.0}
    assert not out.requires_grad


def test_rate_spikes_with_the_probability_of_the_pixel():
    n = 4000
    x = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0, -0.5, 1.5]).view(1, 1, 1, -1)
    out, _ = encode(x, "rate", n, 1)
    rates = out.mean((0, 1, 2))
    p = x.flatten().clamp(0, 1)
    assert ((rates - p).abs() <= 5 * (p * (1 - p) / n).sqrt()).all()  # 0 and 1 exactly
    steps = out[:, 0, 0, 2] - 0.5
    assert (steps[1:] * steps[:-1]).mean().abs() < 0.25 * 5 / n**0.5  # one step tells nothing of the next


@pytest.mark.parametrize("timesteps", [1, 2, 4, 5])
def test_latency_puts_one_spike_where_the_rule_says(timesteps):
    x = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    x[0, 0, 0] = torch.tensor([0.0, 1.0, 1e-9, -1.0, 2.0])
    out, _ = encode(x, "latency", timesteps, 3)
    out = out.unflatten(0, (timesteps, 2))
    for i, value in enumerate(x.flatten().tolist()):
        value = min(max(value, 0.0), 1.0)
        expected = [0.0] * timesteps
        if value > 0:
            expected[round((timesteps - 1) * (1 - value))] = 1.0
        assert out.flatten(1)[:, i].tolist() == expected


def test_frames_are_folded_time_major():
    x = torch.randn(2, 4, 3, 5, 6, requires_grad=True)
    out, repeat = encode(x, "frames", 4, 3)
    assert not repeat
    for t in range(4):
        for b in range(2):
            assert torch.equal(out[t * 2 + b], x[b, t])
    out.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.parametrize("name", ["direct", "rate", "latency", "frames"])
def test_compiles_without_a_break(name):
    x = torch.rand((2, 4, 3, 5, 6) if name == "frames" else (2, 3, 5, 6))
    torch._dynamo.reset()
    compiled = torch.compile(encode, fullgraph=True, backend="eager")
    torch.manual_seed(1)
    expected = encode(x, name, 4, 3)
    torch.manual_seed(1)
    out = compiled(x, name, 4, 3)
    assert torch.equal(out[0], expected[0])
    assert out[1] is expected[1]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *((name, shape) for name in ("direct", "rate") for shape in ((3, 32, 32), (2, 1, 32, 32), (2, 4, 3, 32, 32))),
        *(("frames", shape) for shape in ((2, 3, 32, 32), (2, 5, 3, 32, 32), (2, 4, 2, 32, 32))),
    ],
)
def test_what_does_not_fit_is_named(name, shape):
    what = "event frames [B, 4, 3, H, W]" if name == "frames" else "images [B, 3, H, W]"
    with pytest.raises(ZooError) as error:
        encode(torch.zeros(shape), name, 4, 3)
    assert str(error.value) == f"expected {what}, got {list(shape)}"
    for unknown in ("dircet", 5, ["rate"]):
        with pytest.raises(ZooError, match=r"unknown encoding.*latency"):
            resolve_encoding(unknown)
