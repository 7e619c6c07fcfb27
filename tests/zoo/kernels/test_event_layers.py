"""Convolutions that skip zeros inside `zoo.event_driven`: the same currents up to rounding, and who gets them."""

import copy

import pytest
import torch
from PIL import Image
from torch import nn

import zoo
from recipes.predict import predict
from zoo import kernels
from zoo.errors import ZooError
from zoo.kernels.build import find_compiler
from zoo.kernels.event import EventConv, whole_bytes
from zoo.metrics import evaluate
from zoo.neurons import LIF
from zoo.scaling.layers import SpikingConv2d, SpikingLinear

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
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

    x, own, plain = spikes_of(STEPS, 40, 5, 5), Own(40, 50, 3), nn.Conv2d(40, 50, 3)
    with zoo.event_driven(beside_neurons(own)), torch.no_grad():
        assert torch.equal(own(x), nn.functional.conv2d(x, own.weight, own.bias) + 1)
    with zoo.event_driven(beside_neurons(plain)):
        plain(x).sum().backward()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert plain(x).dtype is torch.bfloat16
    assert plain.weight.grad.abs().sum() > 0
    assert not runs


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
