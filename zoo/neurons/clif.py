"""CLIF, the complementary leaky integrate-and-fire neuron (Huang et al. 2024, ICML, arXiv 2402.04663, algorithm 1).

One time step, with input current x, membrane potential u before and v after the reset, and a complementary potential
m that remembers recent spikes; v = m = 0 before the first step:

    u[t] = decay * v[t-1] + x[t]                              decay = 1 - 1 / tau
    s[t] = 1 if u[t] >= threshold else 0
    m[t] = m[t-1] * sigmoid((1 - decay) * u[t]) + s[t]        u before the reset; the spike counts already
    v[t] = u[t] - s[t] * (threshold + sigmoid(m[t]))

So a neuron that spiked lately is set back further, by up to one unit of potential beyond the threshold. The order is
the authors' code's: m decays by the potential before the reset, and counts the spike before it sets v back.
"""

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ..kernels.lif import wide
from ..specs import check_flag
from .base import SpikingNeuron
from .lif import check_gain, resolve_decay


class CLIFState(NamedTuple):
    """What a step hands to the next, each [B, ...] and float32 at least."""

    v: Tensor
    """Membrane potential after the reset."""
    m: Tensor
    """Complementary potential."""


class CLIF(SpikingNeuron):
    """Complementary LIF neurons: no parameter more than LIF, always the soft reset above.

    Args:
        decay, tau, threshold, decay_input, surrogate, kernel: as in LIF; there is no fused kernel.
        detach_reset: no gradient through the spike that resets v; the one that m counts keeps its gradient, which is
            the neuron's second way back through time. Off by default, as in the paper.
    """

    spec_keys: ClassVar = ["decay", "tau", "threshold", "decay_input", "detach_reset"]

    def __init__(
        self,
        timesteps: int = 4,
        *,
        decay: float | None = None,
        tau: float | None = None,
        decay_input: bool = False,
        detach_reset: bool = False,
        **others: Any,
    ) -> None:
        super().__init__(timesteps, **others)
        self.decay = resolve_decay(decay, tau)
        self.decay_input = check_flag("decay_input", decay_input)
        self.gain = 1 - self.decay if decay_input else 1.0
        self.detach_reset = check_flag("detach_reset", detach_reset)
        check_gain(self.gain)

    def step(self, x_t: Tensor, state: CLIFState | None = None) -> tuple[Tensor, CLIFState]:
        x = x_t.to(wide(x_t.dtype))
        if self.decay_input:
            x = x * self.gain
        u = x if state is None else state.v * self.decay + x
        s = self.surrogate.spike(u - self.threshold)
        m = s if state is None else state.m * torch.sigmoid((1 - self.decay) * u) + s
        r = s.detach() if self.detach_reset else s
        v = u - r * (self.threshold + torch.sigmoid(m))
        return s.to(x_t.dtype), CLIFState(v, m)
