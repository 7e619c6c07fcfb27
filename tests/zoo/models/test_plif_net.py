"""The PLIF network for CIFAR-10."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import zoo
from zoo.errors import ZooError
from zoo.models.plif_net import PLIFNet
from zoo.neurons.lif import LIF, PLIF
from zoo.scaling.layers import SpikingConv2d


def small(**kwargs) -> PLIFNet:
    return PLIFNet(4, 24, **{"timesteps": 3, "img_size": 16, "kernel": "reference"} | kwargs)


def test_defaults_are_the_papers():
    with torch.device("meta"):
        model = zoo.create_model("plif_net", kernel="reference")
    assert sum(p.numel() for p in model.parameters()) == 36_720_492
    neurons = [m for m in model.modules() if isinstance(m, LIF)]
    assert len(neurons) == 8
    assert all(type(m) is PLIF and m.decay_input and m.detach_reset and m.threshold == 1 for m in neurons)
    assert {m.surrogate for m in neurons} == {("arctan", 1.0)}
    plain = small(neuron="lif", surrogate="triangle")
    assert not [key for key in plain.state_dict() if key.endswith(".w")]
    assert plain.model_args["neuron"] == "lif"
    assert model.model_args["neuron"] == "plif"


def test_equals_spikingjelly():
    """Weights mapped over, in float64 and evaluation mode: logits and the gradient of every parameter."""
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import functional, neuron, surrogate
    from spikingjelly.activation_based.model.parametric_lif_net import CIFAR10Net

    theirs = CIFAR10Net(
        4, neuron.ParametricLIFNode, init_tau=2.0, decay_input=True, v_reset=0.0, detach_reset=True,
        surrogate_function=surrogate.ATan(2.0),
    )  # fmt: skip
    theirs = theirs.double().eval()
    functional.set_step_mode(theirs, "m")
    ours = PLIFNet(4, 2048, timesteps=3, kernel="reference").double()
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 2, 0.2)
            nn.init.normal_(module.bias, 0.3, 0.2)
            module.momentum = 0.5
        elif isinstance(module, LIF):
            nn.init.normal_(module.w, 0, 0.3)
    ours(torch.randn(4, 3, 32, 32, dtype=torch.float64))  # for running statistics
    ours.eval()
    # Both hold their layers in the order from input to output.
    mine = ours.state_dict()
    assert len(mine) == len(theirs.state_dict())
    theirs.load_state_dict(dict(zip(theirs.state_dict(), mine.values(), strict=True)))

    x = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    y = ours(x)
    expected = theirs(x.expand(3, *x.shape)).mean(0)
    assert y.shape == (3, 10)
    assert y.std() > 0.01
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    weights = torch.randn_like(y)
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert p.grad.abs().sum() > 0, name
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_ten_neurons_vote_for_each_class(classes):
    model = small(num_classes=classes).eval()
    votes = []
    model.fc_lif.register_forward_hook(lambda m, i, o: votes.append(o))
    y = model(torch.randn(2, 3, 16, 16), per_step=True)
    assert model.get_classifier().out_features == 10 * classes
    assert y.shape == (3, 2, classes)
    for c in (0, classes - 1):
        assert torch.equal(y[..., c], votes[0].view(3, 2, -1)[..., 10 * c : 10 * c + 10].mean(-1))


def test_classifier_contract():
    model = small()
    x = torch.randn(2, 3, 16, 16)
    features = model.forward_features(x)
    assert features.shape == (6, model.num_features, 4, 4)
    assert model.forward_head(features, pre_logits=True).shape == (6, model.head_hidden_size)
    model.reset_classifier(7)
    assert model(x).shape == (2, 7)
    model.reset_classifier(0)
    assert model(x).shape == (2, model.head_hidden_size)
    # The neurons that vote learn at the classifier's rate.
    stem = model.group_matcher()["stem"]
    outside = {name.split(".")[0] for name, _ in small().named_parameters() if not re.match(stem, name)}
    assert outside == {"stages", "fc_hidden", "fc", "fc_lif"}
    with pytest.raises(ZooError, match="img_size"):
        model(torch.randn(2, 3, 32, 32))


def test_spikes_in_and_alive():
    model, rates, seen = zoo.create_model("plif_net_w16", timesteps=2, kernel="reference").train(), {}, []
    for key, module in model.named_modules():
        if isinstance(module, LIF):
            module.register_forward_hook(lambda m, i, o, key=key: rates.update({key: o.mean().item()}))
        if isinstance(module, nn.Conv2d | nn.Linear) and key not in model.real_inputs:

            def check(_, inputs, key=key):
                assert set(inputs[0].unique().tolist()) <= {0.0, 1.0}, key
                seen.append(key)

            module.register_forward_pre_hook(check)
    F.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.arange(4)).backward()
    assert len(seen) == 7
    assert all(0.001 < rate < 0.9 for rate in rates.values()), rates
    assert len(rates) == 8
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())
    rates.clear()
    model.load_state_dict(PLIFNet(16, 128, timesteps=2).state_dict())  # untrained, in evaluation mode
    model.eval()(torch.randn(4, 3, 32, 32))
    assert all(0.001 < rate < 0.9 for rate in rates.values()), rates


def test_scaled_layers():
    def gradients(scaling):
        torch.manual_seed(0)
        model = small(scaling=scaling).double().train()
        F.cross_entropy(model(torch.randn(4, 3, 16, 16).double()), torch.arange(4)).backward()
        return {key: p.grad for key, p in model.named_parameters()}

    plain, scaled, widened = (gradients(s) for s in (None, "causal_trace", {"name": "local", "layers": "all"}))
    names = {f"{key}.weight" for key, m in small().named_modules() if isinstance(m, SpikingConv2d)}
    assert len(names) == 5
    assert {key for key in plain if not torch.equal(plain[key], scaled[key])} == names
    changed = {key for key in plain if not torch.equal(plain[key], widened[key])}
    assert changed == names | {"fc_hidden.0.linear.weight"}
    with torch.device("meta"):
        twin = zoo.create_model("plif_net_w32_gs", kernel="reference")
    assert {f"{key}.weight" for key, m in twin.named_modules() if getattr(m, "scaling", None)} == names
