"""What every kind of spiking neuron has: time steps, threshold, surrogate, a forward over time folded into the batch.

A kind of neuron is a subclass with a `step`, one time step in plain PyTorch: the reference for every faster kernel.
Folded time is [T*B, ...], time-major: all images of the first step come before those of the second.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import ZooError, one_of
from ..kernels import asked_kernel, list_kernels
from ..kernels.lif import wide
from ..specs import Spec, check_positive, check_timesteps
from .norm import is_per_step
from .surrogate import SeenBy, Surrogate, resolve_surrogate


def repeat_steps(x: Tensor, timesteps: int) -> Tensor:
    """Direct encoding: [B, ...] to [T*B, ...], the same at every time step."""
    return torch.cat([x] * timesteps)  # unlike repeat, keeps a channels_last layout


def unfold_steps(x: Tensor, timesteps: int) -> Tensor:
    """Takes [T*B, ...] to [T, B, ...], a view."""
    return x.unflatten(0, (timesteps, -1))


def input_current(
    x: Tensor,
    timesteps: int,
    norm: nn.Module | None = None,
    shortcut: Tensor | None = None,
    shortcut_norm: nn.Module | None = None,
    repeat: bool = False,
) -> Tensor:
    """norm(x) + shortcut_norm(shortcut) in plain PyTorch; with `repeat`, norm(x) at every time step."""
    if repeat and is_per_step(norm):
        x, repeat = repeat_steps(x, timesteps), False
    current = x if norm is None else norm(x)
    if repeat:
        current = repeat_steps(current, timesteps)
    if shortcut is None:
        return current
    return current + (shortcut if shortcut_norm is None else shortcut_norm(shortcut))


class SpikingNeuron(nn.Module):
    """Spiking neurons, one per element, without state between two forward calls.

    In training, layers behind them keep spikes for backward in one byte each: what scales spikes on their way, such
    as a forward hook, gives those layers' weights wrong gradients. A network's `dropout` does not.

    Args:
        timesteps: T, the number of time steps folded into the batch.
        threshold: membrane potential at which a neuron spikes, > 0.
        surrogate: name or {"name": ..., "width": ...}; see `zoo.neurons.surrogate`.
        kernel: which code runs, "auto", "fused" or "reference"; see `zoo.kernels`.
    """

    spec_keys: ClassVar[Sequence[str]] = ["threshold"]
    """The keywords that `create_neuron` takes beside the name."""
    learns_per_step = False
    """Whether parameters belong to single time steps, whose number is then fixed."""
    gain: float | Tensor = 1.0
    """Factor of the input current."""
    shows_potential = False
    """Whether spikes, in training, carry the attribute `potential`: the membrane potential minus the threshold, in
    their shape, as a rule of gradient scaling may read it."""

    def __init__(
        self,
        timesteps: int = 4,
        *,
        threshold: float = 1.0,
        surrogate: Spec | Surrogate = "triangle",
        kernel: str = "auto",
    ) -> None:
        super().__init__()
        if kernel not in list_kernels():
            raise one_of("kernel", kernel, list_kernels())
        self.kernel = kernel
        self.timesteps = check_timesteps(timesteps)
        self.threshold = check_positive("threshold", threshold)
        self.surrogate = resolve_surrogate(surrogate)

    def forward(
        self,
        x: Tensor,
        *,
        norm: nn.Module | None = None,
        shortcut: Tensor | None = None,
        shortcut_norm: nn.Module | None = None,
        repeat: bool = False,
    ) -> Tensor:
        """Returns the spikes [T*B, ...], time-major, of the input current norm(x) + shortcut_norm(shortcut).

        Normalisation and sum are arguments because a fused kernel computes them with the neurons in one pass over the
        data.

        Args:
            x: [T*B, ...], or [B, ...] with `repeat`. Membranes are float32 at least, whatever its dtype, spikes of it.
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
        if repeat and (is_per_step(norm) or shortcut is not None):
            x, repeat = repeat_steps(x, self.timesteps), False
        if self.kernel_for(x.device.type, x.dtype) == "reference":
            currents = input_current(x, self.timesteps, norm, shortcut, shortcut_norm, repeat)
            return self._run_and_show(currents) if self._shows_now else self._run(currents)
        return self._run_fused(x, norm, shortcut, shortcut_norm, repeat)

    def build(self, shape: tuple[int, ...]) -> None:
        """Makes the parameters that need the number of channels; by default there are none.

        A network calls it once, when it is built: before weights are loaded, and before an optimiser is made.

        Args:
            shape: of a parameter with a number for each channel, which broadcasts over currents: [C, 1, 1] for maps
                [B, C, H, W], [C] for vectors.
        """

    def no_weight_decay(self) -> set[str]:
        """Returns the names of its parameters that weight decay leaves alone: all by default, as decays and thresholds
        have no reason to be near 0. timm leaves out those of less than two dimensions whatever this says."""
        return {name for name, _ in self.named_parameters()}

    def step(self, x_t: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One time step, for streaming: currents [B, ...] and the last state to spikes [B, ...] and the new state.

        None stands for the state before the first step. Spikes are 0 or 1, and equal those of `forward` bit for bit.
        """
        raise NotImplementedError

    def kernel_for(self, device: str, dtype: torch.dtype) -> str:
        """The name of the code that runs for currents of that type on that device: "reference", "cpp" or "triton".

        Raises:
            ZooError: the kernel must be fused, and none runs there or none knows the dynamics.
        """
        if asked_kernel(self.kernel) == "fused":
            raise ZooError(f"no fused kernel has the dynamics of {type(self).__name__}: ask for 'auto' or 'reference'")
        return "reference"

    def _run(self, currents: Tensor, step: Callable[..., Any] | None = None) -> Tensor:
        """Spikes [T*B, ...] of currents [T*B, ...], in plain PyTorch, by `step` or by default that of the class."""
        state, spikes = None, []
        for x_t in unfold_steps(currents.to(wide(currents.dtype)), self.timesteps).unbind(0):
            s, state = (self.step if step is None else step)(x_t, state)
            spikes.append(s)
        return torch.cat(spikes).to(currents.dtype)

    @property
    def _shows_now(self) -> bool:
        return self.shows_potential and self.training and torch.is_grad_enabled()

    def _run_and_show(self, currents: Tensor) -> Tensor:
        usual, self.surrogate = self.surrogate, SeenBy(*self.surrogate)
        seen = self.surrogate.seen = []
        try:
            spikes = self._run(currents)
        finally:
            self.surrogate = usual
        potential = torch.cat(seen) if seen else currents.new_zeros(0)
        if potential.shape != spikes.shape:
            found = f"{len(seen)} calls of surrogate.spike in {self.timesteps} steps"
            raise ZooError(f"{type(self).__name__} shows no membrane potential of each spike: {found}")
        spikes.potential = potential  # type: ignore[attr-defined]
        return spikes

    def _run_fused(self, *current: Any) -> Tensor:
        raise NotImplementedError  # a class with fused kernels has its own

    def spec_values(self) -> dict[str, Any]:
        """Returns what it was told, beside parameters and time steps: numbers, flags and names by keyword."""
        told = {key: getattr(self, key, None) for key in ("threshold", "soft_reset", *self.spec_keys)}
        return {key: value for key, value in told.items() if isinstance(value, bool | int | float | str)}

    def extra_repr(self) -> str:
        told = {"timesteps": self.timesteps} | self.spec_values()
        surrogate = f"surrogate={self.surrogate.name}({self.surrogate.width:g})"
        return ", ".join([*(f"{key}={value}" for key, value in told.items()), surrogate, f"kernel={self.kernel}"])
