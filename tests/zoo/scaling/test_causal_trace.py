"""The default rule with the neurons behind it: spikes, forwards in flight, half precision, what does not fit."""

from __future__ import annotations

import pytest
import torch
from brute_force import K, by_hand
from torch.nn import functional as F

from zoo.errors import ZooError
from zoo.neurons.lif import LIF
from zoo.scaling.layers import PostSpikes, SpikingConv2d
from zoo.scaling.rules import trace
from zoo.scaling.spec import Scaling


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("timesteps", [1, 3])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (1, 0)])
def test_causal_trace_equals_brute_force(alpha, timesteps, batch, kernel, padding):
    conv = SpikingConv2d(3, 3, kernel, 1, padding, timesteps=timesteps, scaling=Scaling("causal_trace", alpha)).double()
    lif = LIF(timesteps, threshold=0.3)
    x = (torch.rand(timesteps * batch, 3, 4, 4) < 0.4).double().requires_grad_()
    weight = torch.randn(timesteps * batch, 3, 4, 4, dtype=torch.float64)
    post = PostSpikes()
    y = conv(x, post)
    y.retain_grad()
    spikes = post.tie(lif(y))
    (spikes * weight).sum().backward()

    fold = lambda z: z.detach().unflatten(0, (timesteps, batch))  # noqa: E731
    kind = (3, 3, kernel, 1, padding, 1, 1)
    expected, _ = by_hand("causal_trace", fold(x), fold(spikes), fold(y.grad), alpha, kind)
    torch.testing.assert_close(conv.weight.grad, expected, rtol=1e-10, atol=1e-10)
    # The error passed down is the plain one.
    torch.testing.assert_close(x.grad, F.conv_transpose2d(y.grad, conv.weight, padding=padding), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("fill", [0.0, 1.0])
@pytest.mark.parametrize("threshold", [1e-6, 1e6])
def test_silent_and_saturated_layers(fill, threshold):
    """No spikes on either side carry no information: G = 1 and the plain gradient; all spikes: the rule itself."""
    plain, scaled = (
        SpikingConv2d(2, 2, 3, 1, 1, timesteps=2, scaling=s).double() for s in (None, Scaling("causal_trace", 0.5))
    )
    plain.weight.data.fill_(0.1)
    scaled.weight.data.fill_(0.1)
    x = torch.full((4, 2, 3, 3), fill, dtype=torch.float64)
    lif = LIF(2, threshold=threshold, surrogate={"name": "sigmoid", "width": 1e6})
    gradients, notes = [], []
    for conv in (plain, scaled):
        post = PostSpikes()
        notes.append(post.tie(lif(conv(x, post))))
        notes[-1].sum().backward()
        gradients.append(conv.weight.grad)
    silent = fill == 0 or not notes[1].any()
    assert torch.equal(gradients[0], gradients[1]) == silent
    assert torch.isfinite(gradients[1]).all()


def test_two_forwards_in_flight_do_not_mix():
    conv, lif = (
        SpikingConv2d(2, 2, 3, 1, 1, timesteps=2, scaling=Scaling("causal_trace", 0.5)).double(),
        LIF(2, threshold=0.2),
    )
    inputs = [(torch.rand(4, 2, 5, 5) < p).double() for p in (0.2, 0.7)]

    def loss(x):
        post = PostSpikes()
        return post.tie(lif(conv(x, post))).sum()

    one_by_one = []
    for x in inputs:
        conv.weight.grad = None
        loss(x).backward()
        one_by_one.append(conv.weight.grad)
    conv.weight.grad = None
    losses = [loss(x) for x in inputs]
    for value in losses:
        value.backward()
    torch.testing.assert_close(conv.weight.grad, sum(one_by_one), rtol=1e-12, atol=1e-12)


def test_bfloat16_autocast_matches_within_its_error():
    gradients = []
    for amp in (False, True):
        torch.manual_seed(1)
        conv = SpikingConv2d(8, 8, 3, 1, 1, timesteps=2, scaling=Scaling("causal_trace", 0.5))
        post = PostSpikes()
        x = (torch.rand(16, 8, 8, 8) < 0.3).float()
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            y = conv(x, post)
        spikes = post.tie((torch.rand(16, 8, 8, 8) < 0.3).float())
        (y.float() * torch.randn_like(y.float()) + 0 * spikes).sum().backward()
        gradients.append(conv.weight.grad)
    exact, half = gradients
    assert half.dtype == torch.float32
    assert ((half - exact).norm() / exact.norm()) < 0.02


def test_float16_coincidences_do_not_overflow():
    conv, post = SpikingConv2d(2, 2, 3, 1, 1, timesteps=2, scaling=Scaling("causal_trace", 0.5)), PostSpikes()
    x = torch.ones(2 * 128, 2, 32, 32)
    with torch.autocast("cpu", torch.float16):
        y = conv(x, post)
    (y.float() + 0 * post.tie(torch.ones_like(x))).mean().backward()
    assert torch.isfinite(conv.weight.grad).all()
    assert conv.weight.grad.abs().max() > 0


def test_traces():
    spikes = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    expected = [[1, 0], [K, 0], [K * K + 1, 1]]
    torch.testing.assert_close(trace(spikes), torch.tensor(expected))
    assert spikes[1].tolist() == [0, 0]  # the spikes themselves stay


def test_spikes_that_do_not_fit_or_never_came():
    conv, post = SpikingConv2d(2, 2, 3, 1, 1, timesteps=1, scaling=Scaling("causal_trace", 0.5)), PostSpikes()
    y = conv(torch.ones(1, 2, 4, 4), post)
    with pytest.raises(ZooError, match="do not match"):
        post.tie(torch.ones(1, 2, 4, 5))
    with pytest.raises(ZooError, match="no neuron"):
        y.sum().backward()


def test_inference_and_missing_post():
    conv = SpikingConv2d(2, 2, 3, 1, 1, timesteps=1, scaling=Scaling("causal_trace", 0.5))
    x = torch.ones(1, 2, 4, 4)
    with pytest.raises(ZooError, match="post"):
        conv(x)
    assert torch.equal(conv.eval()(x), F.conv2d(x, conv.weight, padding=1))
