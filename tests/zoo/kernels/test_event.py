"""The event-driven convolution: equal to dense convolutions of whole numbers and to the neurons' equations, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.kernels.build import find_compiler
from zoo.kernels.event import EventConv, list_instruction_sets

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
RATES = [0.0, 0.02, 0.2, 0.6, 1.0]


def reference(spikes, weight, scale, bias, shortcut, state, *, stride, padding, timesteps, neurons, count):
    """Spikes or None, currents, last membranes, from float64 sums and the float32 operations that event.cpp names."""
    sums = F.conv2d(spikes.permute(0, 3, 1, 2).double(), weight.double(), None, stride, padding).permute(0, 2, 3, 1)
    current = sums.float() * scale + bias
    if shortcut is not None and not count:
        current = current + shortcut
    if neurons is None:
        return None, current, None
    v, fired = state if state is not None else torch.zeros_like(current[: len(current) // timesteps]), []
    for x in current.chunk(timesteps):
        u = v * neurons["decay"] + x * neurons["gain"]
        s = (u >= neurons["threshold"]).float()
        v = u - neurons["threshold"] * s if neurons["soft_reset"] else u * (1 - s)
        fired.append(s)
    spikes = torch.cat(fired).to(torch.uint8)
    return spikes + shortcut if count and shortcut is not None else spikes, current, v


def float32(value: float) -> float:
    return float(torch.tensor(value))


def draw(generator: torch.Generator, *choices):
    """One of the choices, or a number from the first to the second."""
    if len(choices) == 2 and all(type(c) is int for c in choices):
        return int(torch.randint(choices[0], choices[1] + 1, (), generator=generator))
    return choices[int(torch.randint(len(choices), (), generator=generator))]


def check_random_layer(seed: int, forms: list[str]) -> None:
    g = torch.Generator().manual_seed(seed)
    kernel, most, timesteps = draw(g, 1, 3, 3), draw(g, 1, 1, 1, 2, 4, 15), draw(g, 1, 9)
    channels, out_channels = draw(g, 1, 70), draw(g, *range(1, 71), 96, 130, 200)
    stride = draw(g, 1, 2), draw(g, 1, 2)
    padding = draw(g, 0, kernel // 2), draw(g, 0, kernel // 2)
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
    settings["count"] = neurons is not None and draw(g, 0, 3) == 0
    sums = F.conv2d(torch.zeros(1, channels, height, width), weight.float(), None, stride, padding)
    shape = timesteps * batch, *sums.shape[2:], out_channels
    shortcut = draw(g, None, torch.randn(shape, generator=g), torch.randint(0, 3, shape, generator=g, dtype=torch.uint8))
    if settings["count"]:
        shortcut = torch.randint(0, 3, shape, generator=g, dtype=torch.uint8)
    state = torch.randn(batch, *shape[1:], generator=g) if neurons is not None and draw(g, 0, 1) else None
    expected = reference(spikes, weight, scale, bias, shortcut, state, **settings)
    for form in forms:
        instruction_set, *numbers = form.split()
        group, block, tasks = map(int, numbers)
        layer = EventConv(
            weight, scale, bias, most=most, instruction_set=instruction_set, group=group, block=block, **settings
        )
        currents = bool(draw(g, 0, 1)) or neurons is None
        got = layer(spikes, shortcut, state, currents=currents, tasks=tasks)
        assert_equal(got[0], expected[0])
        assert_equal(got[1], expected[1] if currents else None)
        assert_equal(got[2], expected[2] if state is not None else None)


def assert_equal(got: Tensor | None, expected: Tensor | None) -> None:
    assert (got is None) == (expected is None)
    if got is not None and expected is not None:
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)


def all_forms() -> list[str]:
    groups = [(0, 0, 1), (1, 32, 4), (2, 64, 7), (4, 128, 3), (4, 32, 1)]
    return [f"{name} {g} {b} {tasks}" for name in list_instruction_sets() for g, b, tasks in groups]


@pytest.mark.parametrize("start", range(0, 120, 20))
def test_random_layers_equal_the_reference(start):
    forms = all_forms()
    for seed in range(start, start + 20):
        check_random_layer(seed, forms)
