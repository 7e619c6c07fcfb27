"""LIF neurons that treat their membranes better, as two papers propose: for trials, in plain PyTorch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import zoo

DECAY = 0.5
MOMENTUM = 0.1


@zoo.register_neuron("mp_init")
class MPInit(zoo.SpikingNeuron):
    """LIF whose membranes start where they usually end: each channel's running mean of the potential after the last
    step (Kook et al., arXiv 2511.08708)."""

    start: Tensor

    def build(self, shape: tuple[int, ...]) -> None:
        self.register_buffer("start", torch.zeros(shape))

    def step(self, x_t: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u = DECAY * (self.start if state is None else state) + x_t
        s = self.surrogate.spike(u - self.threshold)
        self.last = u * (1 - s.detach())
        return s, self.last

    def _run(self, currents: Tensor, step: Callable[..., Any] | None = None) -> Tensor:
        spikes = super()._run(currents, step)
        if self.training:
            last = self.last.detach().transpose(0, 1).flatten(1).mean(1)
            self.start.lerp_(last.view_as(self.start).to(self.start.dtype), MOMENTUM)
        del self.last
        return spikes


@zoo.register_neuron("mpbn")
class MPBN(zoo.SpikingNeuron):
    """LIF that spikes by its batch-normalised membrane potential, which at inference is a threshold for each channel
    (Guo et al., arXiv 2308.08359); the reset is of the potential itself."""

    mean: Tensor
    variance: Tensor

    def build(self, shape: tuple[int, ...]) -> None:
        self.weight, self.bias = nn.Parameter(torch.ones(shape[0])), nn.Parameter(torch.zeros(shape[0]))
        self.register_buffer("mean", torch.zeros(shape[0]))
        self.register_buffer("variance", torch.ones(shape[0]))

    def step(self, x_t: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u = x_t if state is None else DECAY * state + x_t
        normal = F.batch_norm(u, self.mean, self.variance, self.weight, self.bias, self.training, MOMENTUM)
        s = self.surrogate.spike(normal - self.threshold)
        return s, u * (1 - s.detach())
