"""Spiking neurons: LIF and its kin IF and PLIF, over time folded into the batch.

One time step, with input current x, membrane potential u before and v after the reset, v = 0 before the first step:

    u[t] = decay * v[t-1] + x[t]                    or, with decay_input, decay * v[t-1] + (1 - decay) * x[t]
    s[t] = 1 if u[t] >= threshold else 0
    v[t] = u[t] * (1 - s[t])                        hard reset, to 0
    v[t] = u[t] - threshold * s[t]                  soft reset, by subtraction

(Wu et al. 2018, arXiv 1706.02609, eq. 4 to 7, for the hard reset; Rueckauer et al. 2017 for the soft one.) `step` is
that in plain PyTorch, the reference for every faster kernel; `zoo.kernels` says which one runs. Neurons with other
dynamics have a file each, `clif.py`, `glif.py`, `psn.py`; `create_neuron` knows them all.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .errors import ZooError, one_of
from .kernels import Neuron, fused_lif, list_kernels, pick_kernel
from .layers import input_current, repeat_steps
from .norm import branch, can_fuse, is_per_step, update_statistics
from .specs import check_flag, check_integer, check_number, check_positive, split_spec
from .surrogate import Surrogate, resolve_surrogate

_RESETS = ["hard", "soft"]


class LIF(nn.Module):
    """Leaky integrate-and-fire neurons, one per element, without state between two forward calls.

    Args:
        timesteps: T, the number of time steps folded into the batch.
        decay: factor of the membrane potential from one step to the next, 0 <= decay <= 1.
        tau: membrane time constant in steps, the other way to say it: decay = 1 - 1 / tau.
        threshold: membrane potential at which a neuron spikes, > 0.
        reset: "hard" (to 0) or "soft" (subtract the threshold).
        decay_input: scale the input current by 1 - decay.
        detach_reset: no gradient through the reset's spike.
        surrogate: name or {"name": ..., "width": ...}; see `zoo.surrogate`.
        kernel: which code runs, "auto", "fused" or "reference"; see `zoo.kernels`.
    """

    spec_keys: ClassVar = ["decay", "tau", "threshold", "reset", "decay_input", "detach_reset"]
    """The keywords that `create_neuron` takes beside the name."""
    learns_per_step = False
    """Whether parameters belong to single time steps, whose number is then fixed."""

    def __init__(
        self,
        timesteps: int = 4,
        *,
        decay: float | None = None,
        tau: float | None = None,
        threshold: float = 1.0,
        reset: str = "hard",
        decay_input: bool = False,
        detach_reset: bool = True,
        surrogate: str | Mapping[str, Any] | Surrogate = "triangle",
        kernel: str = "auto",
    ) -> None:
        super().__init__()
        if reset not in _RESETS:
            raise one_of("reset", reset, _RESETS)
        if kernel not in list_kernels():
            raise one_of("kernel", kernel, list_kernels())
        self.kernel = kernel
        self.timesteps = check_integer("timesteps", timesteps, 1)
        self.threshold = check_positive("threshold", threshold)
        self.soft_reset = reset == "soft"
        self.decay_input = check_flag("decay_input", decay_input)
        self.detach_reset = check_flag("detach_reset", detach_reset)
        self.surrogate = resolve_surrogate(surrogate)
        self._init_decay(resolve_decay(decay, tau))

    def _init_decay(self, decay: float) -> None:
        self.decay: float | Tensor = decay

    def forward(
        self,
        x: Tensor,
        *,
        norm: nn.Module | None = None,
        shortcut: Tensor | None = None,
        shortcut_norm: nn.Module | None = None,
        repeat: bool = False,
    ) -> Tensor:
        """Spikes [T*B, ...], time-major, of the input current norm(x) + shortcut_norm(shortcut).

        Normalisation and sum are arguments because a fused kernel computes them with the neurons in one pass over the
        data.

        Args:
            x: [T*B, ...], or [B, ...] with `repeat`; membranes are float32 at least, whatever its dtype.
            norm: normalisation of `x`, None for none.
            shortcut: a second summand [T*B, ...], in the shape of the spikes.
            shortcut_norm: its normalisation, None for none.
            repeat: the current is given once and the same at every time step (direct encoding).

        Raises:
            ZooError: the first axis is not a multiple of the time steps, or the shortcut has another shape.
        """
        if not repeat and x.shape[0] % self.timesteps:
            raise ZooError(f"first axis {x.shape[0]} is not a multiple of {self.timesteps} time steps")
        rows = x.shape[0] * (self.timesteps if repeat else 1)
        if shortcut is not None and shortcut.shape != (rows, *x.shape[1:]):
            raise ZooError(f"shortcut {list(shortcut.shape)} is not in the shape of the spikes {[rows, *x.shape[1:]]}")
        if repeat and is_per_step(norm):
            x, repeat = repeat_steps(x, self.timesteps), False
        kernel = self.kernel_for(x.device.type, x.dtype)
        if kernel == "reference":
            return self._run(input_current(x, self.timesteps, norm, shortcut, shortcut_norm, repeat))
        return self._fused(kernel, x, norm, shortcut, shortcut_norm, repeat)

    def _run(self, currents: Tensor) -> Tensor:
        """Spikes [T*B, ...] of currents [T*B, ...], in plain PyTorch."""
        state, spikes = None, []
        for x_t in currents.unflatten(0, (self.timesteps, -1)).unbind(0):
            s, state = self.step(x_t, state)
            spikes.append(s)
        return torch.cat(spikes)

    def kernel_for(self, device: str, dtype: torch.dtype) -> str:
        """The name of the code that runs for currents of that type on that device: "reference", "cpp" or "triton".

        Raises:
            ZooError: the kernel must be fused, and none runs there or none knows the dynamics.
        """
        if type(self).step is not LIF.step:
            if self.kernel == "fused":
                raise ZooError(
                    f"no fused kernel has the dynamics of {type(self).__name__}: ask for 'auto' or 'reference'"
                )
            return "reference"
        return pick_kernel(self.kernel, device, dtype, self._numbers())

    def _numbers(self) -> Neuron:
        decay = 0.0 if isinstance(self.decay, Tensor) else self.decay  # a tensor goes beside the numbers
        gain = 1 - decay if self.decay_input else 1.0
        reset = self.soft_reset, self.detach_reset
        return Neuron(self.timesteps, False, decay, gain, self.threshold, *reset, *self.surrogate)

    def _fused(
        self,
        kernel: str,
        x: Tensor,
        norm: nn.Module | None,
        shortcut: Tensor | None,
        shortcut_norm: nn.Module | None,
        repeat: bool,
    ) -> Tensor:
        together = repeat and shortcut is not None  # no kernel for that: nobody adds to a repeated current
        if kernel != "cpp" or together or not (can_fuse(norm, x) and can_fuse(shortcut_norm, x)):
            x = input_current(x, self.timesteps, norm, shortcut, shortcut_norm, together)
            norm = shortcut = shortcut_norm = None
            repeat = repeat and not together
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
        """One time step, for streaming: currents [B, ...] and the last state to spikes [B, ...] and the new state.

        The state is the membrane potential after the reset, in float32 at least; None starts at zero. The spikes equal
        those of `forward` bit for bit.
        """
        x = x_t.float() if x_t.dtype in (torch.float16, torch.bfloat16) else x_t
        decay = self.decay
        if self.decay_input:
            x = x * (1 - decay)
        u = x if state is None else state * decay + x
        s = self.surrogate.spike(u - self.threshold)
        r = s.detach() if self.detach_reset else s
        v = u - self.threshold * r if self.soft_reset else u * (1 - r)
        return s.to(x_t.dtype), v

    def extra_repr(self) -> str:
        decay, reset = torch.as_tensor(self.decay).item(), "soft" if self.soft_reset else "hard"
        return (
            f"timesteps={self.timesteps}, decay={decay:g}, threshold={self.threshold:g}, reset={reset}, "
            f"decay_input={self.decay_input}, detach_reset={self.detach_reset}, "
            f"surrogate={self.surrogate.name}({self.surrogate.width:g}), kernel={self.kernel}"
        )


class IF(LIF):
    """Integrate-and-fire neurons: LIF without leak, decay 1."""

    def __init__(self, timesteps: int = 4, **kwargs: Any) -> None:
        for key in ("decay", "tau", "decay_input"):
            if key in kwargs:
                raise ZooError(f"if neurons have no leak: leave out {key!r}, or use lif")
        super().__init__(timesteps, decay=1.0, **kwargs)


class PLIF(LIF):
    """Parametric LIF: one learnable time constant a layer, 1 - decay = sigmoid(w) (Fang et al. 2021, arXiv 2007.05785).

    `decay` or `tau` set the start; `decay_input` is on unless said otherwise, as in the paper (eq. 10).
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


@functools.cache
def _neurons() -> dict[str, type[LIF]]:
    # Not at the top of the file: these build on LIF.
    from .clif import CLIF
    from .glif import GLIF
    from .psn import PSN

    return {"lif": LIF, "if": IF, "plif": PLIF, "clif": CLIF, "glif": GLIF, "psn": PSN}


def list_neurons() -> list[str]:
    """The names that the `neuron` keyword takes."""
    return list(_neurons())


def create_neuron(
    spec: str | Mapping[str, Any],
    timesteps: int,
    surrogate: str | Mapping[str, Any] | Surrogate = "triangle",
    kernel: str = "auto",
) -> LIF:
    """A neuron layer from a name or `{"name": "lif", "decay": 0.5, ...}` (the keywords of the class).

    Raises:
        ZooError: unknown name, keyword or value.
    """
    asked = spec.get("name") if isinstance(spec, Mapping) else spec
    keys = next((neuron.spec_keys for name, neuron in _neurons().items() if name == asked), [])
    name, given = split_spec("neuron", spec, list_neurons(), keys)
    return _neurons()[name](timesteps, surrogate=surrogate, kernel=kernel, **given)


def resolve_decay(decay: float | None, tau: float | None) -> float:
    """The decay that either keyword says, 0.5 where neither does.

    Raises:
        ZooError: both are given, or a value that is out of range.
    """
    if decay is not None and tau is not None:
        raise ZooError(f"give decay or tau, not both (decay = 1 - 1 / tau): got {decay!r} and {tau!r}")
    if tau is not None:
        return 1 - 1 / check_number("tau", tau, low=1)
    return 0.5 if decay is None else check_number("decay", decay, 0, 1)
