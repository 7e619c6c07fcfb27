"""LIF under the names that other libraries have for it: the same spikes and gradients."""

from __future__ import annotations

import pytest
import torch

from zoo.neurons import create_neuron

T = 6


@pytest.fixture
def currents():
    return torch.randn(T, 400, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5


def ours(currents, spec, surrogate):
    x = currents.clone().requires_grad_()
    spikes = create_neuron(spec, T, surrogate, "auto")(x)
    (spikes * weights(currents)).sum().backward()
    return spikes.detach(), x.grad


def weights(currents):
    return torch.linspace(-1, 2, currents.numel(), dtype=currents.dtype).view_as(currents)


@pytest.mark.parametrize(("reset", "v_reset"), [("hard", 0.0), ("soft", None)])
@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize(("surrogate", "name"), [("triangle", "PiecewiseQuadratic"), ("arctan", "ATan")])
def test_spikingjellys_lif(reset, v_reset, decay_input, surrogate, name, currents):
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    functions = pytest.importorskip("spikingjelly.activation_based.surrogate")
    width, alpha = (1.0, 1.0) if surrogate == "triangle" else (0.5, 4.0)  # ATan's alpha is 2 / width
    lif = neuron.LIFNode(
        tau=2.0, decay_input=decay_input, v_reset=v_reset, detach_reset=True, step_mode="m",
        surrogate_function=getattr(functions, name)(alpha=alpha),
    )  # fmt: skip
    x = currents.clone().requires_grad_()
    spikes = lif(x)
    (spikes * weights(currents)).sum().backward()
    spec = {"name": "lif", "tau": 2.0, "decay_input": decay_input, "reset": reset}
    own, grad = ours(currents, spec, {"name": surrogate, "width": width})
    assert 0.05 < own.mean() < 0.95
    assert torch.equal(own, spikes.detach())
    torch.testing.assert_close(grad, x.grad)


def test_snntorchs_leaky(currents):
    snntorch = pytest.importorskip("snntorch")
    leaky, spikes = snntorch.Leaky(beta=0.7, reset_mechanism="zero"), []
    state = leaky.init_leaky()
    for current in currents:
        spike, state = leaky(current, state)
        spikes.append(spike)
    own, _ = ours(currents, {"name": "lif", "decay": 0.7}, "triangle")
    assert 0.05 < own.mean() < 0.95
    assert torch.equal(own, torch.stack(spikes))
