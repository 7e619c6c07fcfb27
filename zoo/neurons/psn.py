"""PSN, the parallel spiking neuron (Fang et al. 2023, NeurIPS, arXiv 2304.12760).

A neuron without reset is linear in its inputs up to the spike. PSN learns that linear map over time instead of a decay:

    H = W X            W [T, T], X the input currents [T, N]
    S = Theta(H - B)   B [T], a threshold for each time step; Theta(0) = 1

W is not triangular: a spike may depend on later inputs, so all time steps are needed at once.
"""

import contextlib
import math
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ..errors import ZooError
from ..kernels.lif import has_autocast, layout_of, wide
from .base import SpikingNeuron


class PSN(SpikingNeuron):
    """Parallel spiking neurons: learnable `weight` W [T, T] and `bias` -B [T, 1], one of each per layer.

    As in the authors' code (SpikingJelly's PSN), W starts uniform in +-1 / sqrt(T) (Kaiming's rule with a = sqrt(5))
    and every threshold at 1.

    Args:
        threshold: where the thresholds start, > 0; the attribute stays there while `bias` learns.
        timesteps, surrogate, kernel: as in LIF; there is no fused kernel.
    """

    learns_per_step = True

    def __init__(self, timesteps: int = 4, **others: Any) -> None:
        super().__init__(timesteps, **others)
        self.weight = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(timesteps, timesteps), a=math.sqrt(5)))
        self.bias = nn.Parameter(torch.full((timesteps, 1), -self.threshold))

    def _run(self, currents: Tensor, step: Any = None) -> Tensor:
        x = currents.to(wide(currents.dtype))
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        last = layout_of(x) is torch.channels_last
        if last:
            x = x.movedim(1, -1)  # dense in this order: no copy, and the spikes keep the layout
        with _full_precision(x.device.type):
            h = torch.addmm(bias, weight, x.reshape(self.timesteps, -1)).view(x.shape)
        return self.surrogate.spike(h.movedim(-1, 1) if last else h).to(currents.dtype)

    def no_weight_decay(self) -> set[str]:
        """Returns the name of its thresholds: its weights decay as in the authors' code."""
        return {"bias"}

    def step(self, x_t: Tensor, state: Tensor | None = None) -> NoReturn:
        raise ZooError("psn neurons take no single steps, as spikes depend on later inputs: stream with another neuron")


def _full_precision(device: str) -> contextlib.AbstractContextManager[Any]:
    """Autocast would take the product, and with it the membrane, to bfloat16."""
    return torch.autocast(device, enabled=False) if has_autocast(device) else contextlib.nullcontext()
