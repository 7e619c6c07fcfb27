"""The PLIF network for CIFAR-10."""

import pytest
import torch
from test_resnets import assert_same_network
from torch import nn

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
    assert_same_network(ours, theirs, torch.randn(3, 3, 32, 32, dtype=torch.float64), 3)


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


def test_alive_in_evaluation_mode_before_training():
    model, rates = PLIFNet(16, 128, timesteps=2, kernel="reference").eval(), {}
    for key, module in model.named_modules():
        if isinstance(module, LIF):
            module.register_forward_hook(lambda m, i, o, key=key: rates.update({key: o.mean().item()}))
    model(torch.randn(4, 3, 32, 32))
    assert len(rates) == 8
    assert all(0.001 < rate < 0.9 for rate in rates.values()), rates
    # The stem expects images of unit variance.
    assert model.bn1(model.conv1(torch.randn(4, 3, 32, 32))).var().item() == pytest.approx(1, rel=0.2)
    with pytest.raises(ZooError, match="img_size"):
        small()(torch.randn(2, 3, 32, 32))


def test_scaled_layers():
    """Every convolution behind the stem; not the hidden linear layer."""
    with torch.device("meta"):
        model = zoo.create_model("plif_net_w32_gs", kernel="reference")
    scaled = {key for key, m in model.named_modules() if getattr(m, "scaling", None)}
    assert scaled == {key for key, m in model.named_modules() if isinstance(m, SpikingConv2d) and "fc" not in key}
    assert len(scaled) == 5
