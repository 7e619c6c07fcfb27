"""What a kernel is given: the numbers of a neuron, the branches of its input current, and how they lie in memory."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.amp.autocast_mode import is_autocast_available

SURROGATES = ["triangle", "rectangle", "arctan", "sigmoid"]
"""Those that the kernels know, numbered as in lif.cpp; zoo/neurons/surrogate.py has the formulas."""


class Dynamics(NamedTuple):
    """A LIF layer in numbers: u = decay v + gain i, and what follows from u (see `zoo.neurons.lif`)."""

    steps: int
    repeat: bool
    """The current is given once, [B, ...], and the same at every step."""
    decay: float
    gain: float
    threshold: float
    soft: bool
    detach: bool
    surrogate: str
    width: float


def plain_lif(steps: int) -> Dynamics:
    """The dynamics of LIF neurons as they come by default."""
    return Dynamics(steps, False, 0.5, 1.0, 1.0, False, True, SURROGATES[0], 1.0)


class Branch(NamedTuple):
    """One summand of the current, [T*B, C, ...], with the batch normalisation in front of it."""

    data: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None
    mean: Tensor | None = None
    """Frozen statistics [C]; None to take the batch's."""
    var: Tensor | None = None
    eps: float | None = None
    """None where nothing is normalised."""


@torch.compiler.assume_constant_result
def has_autocast(device: str) -> bool:
    """Whether a type of device has autocast, and may be asked for it; PyTorch 2.11 cannot compile the question."""
    return is_autocast_available(device)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type of membranes and statistics: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def layout_of(x: Tensor) -> torch.memory_format:
    """channels_last if `x` lies so and not also contiguously, else contiguous."""
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def dense(x: Tensor, layout: torch.memory_format) -> Tensor:
    """`x` itself if it lies densely in that layout, else a copy that does."""
    return x.contiguous(memory_format=layout)


def like(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """An empty tensor of another shape in the layout of `x`."""
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout_of(x))
