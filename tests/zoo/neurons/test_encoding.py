"""Encodings against loops over pixels and steps."""

import pytest
import torch

from zoo.errors import ZooError
from zoo.neurons.encoding import encode, resolve_encoding


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
