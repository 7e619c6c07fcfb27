"""LIF neurons and their kin IF and PLIF, the ones that fused kernels know.

One time step, with input current x, membrane potential u before and v after the reset, v = 0 before the first step:

    u[t] = decay * v[t-1] + x[t]                    or, with decay_input, decay * v[t-1] + (1 - decay) * x[t]
    s[t] = 1 if u[t] >= threshold else 0
    v[t] = u[t] * (1 - s[t])                        hard reset, to 0
    v[t] = u[t] - threshold * s[t]                  soft reset, by subtraction

(Wu et al. 2018, arXiv 1706.02609, eq. 4 to 7, for the hard reset; Rueckauer et al. 2017 for the soft one.)
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import ZooError, one_of
from ..kernels import pick_kernel
from ..kernels.lif import KERNELS, Dynamics, fused_lif
from ..specs import check_flag, check_number
from .base import SpikingNeuron, input_current
from .norm import branch, can_fuse, update_statistics

_RESETS = ["hard", "soft"]


class LIF(SpikingNeuron):
    """Leaky integrate-and-fire neurons.

    Args:
        decay: factor of the membrane potential from one step to the next, 0 <= decay <= 1.
        tau: membrane time constant in steps, the other way to say it: decay = 1 - 1 / tau.
        reset: "hard" (to 0) or "soft" (subtract the threshold).
        decay_input: scale the input current by 1 - decay.
        detach_reset: no gradient through the reset's spike.
        timesteps, threshold, surrogate, kernel: as for `SpikingNeuron`.
    """

    spec_keys: ClassVar = ["decay", "tau", "threshold", "reset", "decay_input", "detach_reset"]

    def __init__(
        self,
        timesteps: int = 4,
        *,
        decay: float | None = None,
        tau: float | None = None,
        reset: str = "hard",
        decay_input: bool = False,
        detach_reset: bool = True,
        **others: Any,
    ) -> None:
        super().__init__(timesteps, **others)
        if reset not in _RESETS:
            raise one_of("reset", reset, _RESETS)
        self.soft_reset = reset == "soft"
        self.decay_input = check_flag("decay_input", decay_input)
        self.detach_reset = check_flag("detach_reset", detach_reset)
        self._init_decay(resolve_decay(decay, tau))
        check_gain(self.gain)

    def _init_decay(self, decay: float) -> None:
        self.decay: float | Tensor = decay

    @property
    def gain(self) -> float | Tensor:  # type: ignore[override]
        return 1 - self.decay if self.decay_input else 1.0

    @property
    def of_numbers(self) -> bool:
        """Whether it is LIF with one decay and one threshold, as kernels and files have it: no subclass with another
        step, a decay for each channel or a threshold that learns."""
        several = isinstance(self.decay, Tensor) and self.decay.dim() > 0
        return type(self).step is LIF.step and not several and not isinstance(self.threshold, Tensor)

    def kernel_for(self, device: str, dtype: torch.dtype) -> str:
        if not self.of_numbers:
            return super().kernel_for(device, dtype)
        leak, shows = isinstance(self.decay, Tensor), self._shows_now
        return pick_kernel(self.kernel, device, dtype, self._numbers(), leak=leak, potential=shows)

    def _numbers(self) -> Dynamics:
        decay = 0.0 if isinstance(self.decay, Tensor) else self.decay  # a tensor goes beside the numbers
        gain = 1 - decay if self.decay_input else 1.0
        reset = self.soft_reset, self.detach_reset
        return Dynamics(self.timesteps, False, decay, gain, self.threshold, *reset, *self.surrogate)

    def _run_fused(self, x: Tensor, norm: Any, shortcut: Tensor | None, shortcut_norm: Any, repeat: bool) -> Tensor:
        shortcut_norm = None if shortcut is None else shortcut_norm
        if not (KERNELS[x.device.type].whole_current and can_fuse(norm, x) and can_fuse(shortcut_norm, x)):
            x = input_current(x, self.timesteps, norm, shortcut, shortcut_norm)
            norm = shortcut = shortcut_norm = None
        r = None
        if shortcut is not None:
            dtype = torch.promote_types(x.dtype, shortcut.dtype)
            x, r = x.to(dtype), branch(shortcut.to(dtype), shortcut_norm)
        leak = None
        if isinstance(self.decay, Tensor):
            leak = torch.stack([self.decay, 1 - self.decay if self.decay_input else torch.ones_like(self.decay)])
        neuron = self._numbers()._replace(repeat=repeat)
        out, stats = fused_lif(branch(x, norm), r, leak, neuron)
        for i, part in enumerate((norm, shortcut_norm)):
            if part is not None:
                update_statistics(part, stats[2 * i], stats[2 * i + 1], x.numel() // x.shape[1])
        return out

    def step(self, x_t: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `SpikingNeuron.step`; the state is the membrane potential after the reset, in float32 at least."""
        x = x_t.float() if x_t.dtype in (torch.float16, torch.bfloat16) else x_t
        decay = self.decay
        if self.decay_input:
            x = x * (1 - decay)
        u = x if state is None else state * decay + x
        s = self.surrogate.spike(u - self.threshold)
        r = s.detach() if self.detach_reset else s
        v = u - self.threshold * r if self.soft_reset else u * (1 - r)
        return s.to(x_t.dtype), v


class IF(LIF):
    """Integrate-and-fire neurons: LIF without leak, decay 1."""

    spec_keys: ClassVar = ["threshold", "reset", "detach_reset"]

    def __init__(self, timesteps: int = 4, **others: Any) -> None:
        super().__init__(timesteps, decay=1.0, decay_input=False, **others)


class PLIF(LIF):
    """Parametric LIF: a learnable time constant per layer, 1 - decay = sigmoid(w) (Fang et al. 2021, arXiv 2007.05785).

    `decay` or `tau` set the start; `decay_input` is on by default, as in the paper (eq. 10).
    """

    def __init__(self, timesteps: int = 4, *, decay_input: bool = True, **kwargs: Any) -> None:
        super().__init__(timesteps, decay_input=decay_input, **kwargs)

    def _init_decay(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise ZooError(f"a learnable decay must start between 0 and 1, not at {decay:g}")
        self.w = nn.Parameter(torch.tensor(math.log((1 - decay) / decay)))

    @property
    def decay(self) -> Tensor:  # type: ignore[override]
        """The decay now, a scalar tensor that carries gradient to the time constant."""
        return 1 - torch.sigmoid(self.w)


def check_gain(gain: float | Tensor) -> None:
    """Raises ZooError where the factor of the input current is 0, so that nothing ever spikes."""
    if not isinstance(gain, Tensor) and gain == 0:
        raise ZooError("neurons with decay_input and decay 1 take their currents times 0: give a decay below 1")


def resolve_decay(decay: float | None, tau: float | None) -> float:
    """The decay that either keyword says, 0.5 where neither does; ZooError for both, or a value out of range."""
    if decay is not None and tau is not None:
        raise ZooError(f"give decay or tau, not both (decay = 1 - 1 / tau): got {decay!r} and {tau!r}")
    if tau is not None:
        return 1 - 1 / check_number("tau", tau, low=1)
    return 0.5 if decay is None else check_number("decay", decay, 0, 1)
