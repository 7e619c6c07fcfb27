"""GLIF, the gated leaky integrate-and-fire neuron (Yao et al. 2022, NeurIPS, arXiv 2210.13768).

Three gates between 0 and 1 mix two ways to leak (alpha), to integrate (beta) and to reset (gamma). One time step, with
input current x and membrane potential u before the reset; u = s = 0 before the first step:

    u[t] = (1 - alpha * (1 - decay)) * u[t-1] * (1 - gamma * s[t-1])     exponential leak; hard reset, to 0
         - (1 - alpha) * leak                                            linear leak
         + (1 - beta * (1 - conductance[t])) * x[t]                      input, or input times a weight for each step
         - (1 - gamma) * reset * s[t-1]                                  soft reset, by subtraction
    s[t] = 1 if u[t] >= threshold else 0

All eight are the sigmoids of learnable numbers, so each stays between 0 and 1. (The paper resets at the start of the
next step, which is why u here is the potential before the reset.)
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ZooError
from ..kernels.lif import wide
from ..specs import check_flag, check_number
from .base import SpikingNeuron
from .lif import resolve_decay

# Where the authors' code starts: gates undecided, the exponential leak and the threshold of its neurons.
_GATES = {"alpha": 0.55, "beta": 0.65, "gamma": 0.55}
_DECAY, _THRESHOLD, _CONDUCTANCE = 0.25, 0.5, 0.5
_CONSTANTS = (*_GATES, "decay", "leak", "threshold", "reset", "conductance")


class GLIFState(NamedTuple):
    """What a step hands to the next."""

    u: Tensor
    """Membrane potential before the reset [B, ...], float32 at least."""
    s: Tensor
    """Spikes [B, ...]."""
    t: int
    """Number of steps so far."""


class GLIF(SpikingNeuron):
    """Gated LIF neurons whose gates and constants are learned, one of each per layer.

    The paper's own have one of each per channel. These are its layer-wise ones: seven scalars, and a conductance for
    each time step.

    Args:
        decay, tau: where the exponential leak's decay starts, between 0 and 1; 0.25 by default.
        threshold: where the threshold starts, between 0 and 1; the reset by subtraction starts there too, and the
            linear leak at threshold / (2 T). The attribute `threshold` stays at this start: `constants` has the learnt.
        detach_reset: no gradient through the spike that resets u. Off by default, as in the authors' code.
        timesteps, surrogate, kernel: as in LIF; there is no fused kernel.
    """

    spec_keys: ClassVar = ["decay", "tau", "threshold", "detach_reset"]
    learns_per_step = True

    def __init__(
        self,
        timesteps: int = 4,
        *,
        decay: float | None = None,
        tau: float | None = None,
        threshold: float = _THRESHOLD,
        detach_reset: bool = False,
        **others: Any,
    ) -> None:
        check_number("threshold of glif", threshold, 0, 1)
        start = _DECAY if decay is None and tau is None else resolve_decay(decay, tau)
        super().__init__(timesteps, threshold=threshold, **others)
        self.detach_reset = check_flag("detach_reset", detach_reset)
        self.w_decay = _learnable("decay", start)
        for gate, value in _GATES.items():
            setattr(self, f"w_{gate}", _learnable(gate, value))
        self.w_leak = _learnable("leak", self.threshold / (2 * self.timesteps))
        self.w_threshold = _learnable("threshold", self.threshold)
        self.w_reset = _learnable("reset", self.threshold)
        self.w_conductance = nn.Parameter(torch.full((self.timesteps,), _logit("conductance", _CONDUCTANCE)))

    @property
    def decay(self) -> Tensor:
        """The exponential leak's decay now, a scalar tensor that carries gradient."""
        return torch.sigmoid(self.w_decay)

    def constants(self, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """The gates and constants now, each in (0, 1): scalars, but `conductance` is [T]; they carry gradient."""
        learned = {name: getattr(self, f"w_{name}") for name in _CONSTANTS}
        return {name: torch.sigmoid(w if dtype is None else w.to(dtype)) for name, w in learned.items()}

    def _run(self, currents: Tensor, step: Callable[..., Any] | None = None) -> Tensor:
        constants = self.constants(wide(currents.dtype))  # once, not in every step
        return super()._run(currents, lambda x_t, state: self._advance(x_t, state, constants))

    def step(self, x_t: Tensor, state: GLIFState | None = None) -> tuple[Tensor, GLIFState]:
        """One time step: currents [B, ...] and the last state to spikes [B, ...] and the new state; None is zero.
        Raises ZooError for more steps than the neuron has conductances."""
        if state is not None and state.t >= self.timesteps:
            steps = f"glif has a conductance for each of {self.timesteps} time steps"
            raise ZooError(f"{steps} and none for step {state.t + 1}: start again from state None")
        return self._advance(x_t, state, self.constants(wide(x_t.dtype)))

    def _advance(self, x_t: Tensor, state: GLIFState | None, c: dict[str, Tensor]) -> tuple[Tensor, GLIFState]:
        t = 0 if state is None else state.t
        x = x_t.to(wide(x_t.dtype))
        u = x * (1 - c["beta"] * (1 - c["conductance"][t])) - (1 - c["alpha"]) * c["leak"]
        if state is not None:
            r = state.s.detach() if self.detach_reset else state.s
            kept = (1 - c["alpha"] * (1 - c["decay"])) * state.u * (1 - c["gamma"] * r)
            u = kept + u - (1 - c["gamma"]) * c["reset"] * r
        s = self.surrogate.spike(u - c["threshold"])
        return s.to(x_t.dtype), GLIFState(u, s, t + 1)


def _logit(name: str, value: float) -> float:
    if not 0 < value < 1:
        raise ZooError(f"the learnable {name} of glif must start between 0 and 1, not at {value:g}")
    return math.log(value / (1 - value))


def _learnable(name: str, value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(_logit(name, value)))
