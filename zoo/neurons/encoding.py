"""Encodings, by name: how a network's input becomes what its first convolution sees at each time step.

    direct    images, the same at every time step; the convolution runs once and its current is repeated
    rate      images in [0, 1] to random spikes, in each step one with the pixel's value as its probability
    latency   images in [0, 1] to at most one spike a pixel, at step round((T - 1) (1 - value)); 0 never spikes
    frames    event frames, one a time step

`direct` is that of Rathi & Roy 2021 (arXiv 2008.03658), and takes normalised images; `rate` and `latency` read a pixel
as a brightness, so the images must not be normalised: values outside [0, 1] are clamped.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import ZooError, one_of
from ..kernels.lif import wide


def list_encodings() -> list[str]:
    """Returns the names that the `encoding` keyword takes."""
    return list(_ENCODINGS)


def resolve_encoding(name: Any) -> str:
    """`name` itself, if it is one of `list_encodings`; else raises ZooError."""
    if not isinstance(name, str) or name not in _ENCODINGS:
        raise one_of("encoding", name, list_encodings())
    return name


def encode(x: Tensor, encoding: str, timesteps: int, in_chans: int) -> tuple[Tensor, bool]:
    """Returns the input of the first convolution, and whether its output is to be repeated at every time step.

    Args:
        x: images [B, C, H, W], or event frames [B, T, C, H, W] for "frames".

    Returns:
        The images themselves and True for "direct"; else [T*B, C, H, W], time-major, in the dtype of `x`, and False.
        Spikes carry no gradient back to the images.

    Raises:
        ZooError: an unknown encoding, an input of another shape, or images of integers where spikes are to be made.
    """
    return _ENCODINGS[resolve_encoding(encoding)](x, timesteps, in_chans)


def _direct(x: Tensor, timesteps: int, in_chans: int) -> tuple[Tensor, bool]:
    if x.dim() != 4 or x.shape[1] != in_chans:
        raise ZooError(f"expected images [B, {in_chans}, H, W], got {list(x.shape)}")
    return x, True


def _rate(x: Tensor, timesteps: int, in_chans: int) -> tuple[Tensor, bool]:
    """Independent Bernoulli draws from PyTorch's generator, in evaluation too; values outside [0, 1] are clamped."""
    p = _brightness(x, in_chans)
    draws = torch.rand(timesteps, *p.shape, dtype=p.dtype, device=p.device)
    return (draws < p).to(x.dtype).flatten(0, 1), False


def _latency(x: Tensor, timesteps: int, in_chans: int) -> tuple[Tensor, bool]:
    """A spike at step round((T - 1) (1 - x)), a tie to the even step; none for 0; values are clamped to [0, 1]."""
    p = _brightness(x, in_chans)
    step = torch.round((timesteps - 1) * (1 - p))
    clock = torch.arange(timesteps, dtype=p.dtype, device=p.device).view(-1, 1, 1, 1, 1)
    return ((clock == step) & (p > 0)).to(x.dtype).flatten(0, 1), False


def _frames(x: Tensor, timesteps: int, in_chans: int) -> tuple[Tensor, bool]:
    if x.dim() != 5 or x.shape[1] != timesteps or x.shape[2] != in_chans:
        raise ZooError(f"expected event frames [B, {timesteps}, {in_chans}, H, W], got {list(x.shape)}")
    return x.transpose(0, 1).flatten(0, 1), False


def _brightness(x: Tensor, in_chans: int) -> Tensor:
    """Images in [0, 1], float32 at least so that steps and draws are as fine as the values."""
    _direct(x, 1, in_chans)
    if not x.is_floating_point():
        raise ZooError(f"expected images in [0, 1], got {x.dtype}: make them floating point, divided by their maximum")
    return x.detach().to(wide(x.dtype)).clamp(0, 1)


_ENCODINGS: dict[str, Callable[[Tensor, int, int], tuple[Tensor, bool]]] = {
    "direct": _direct,
    "rate": _rate,
    "latency": _latency,
    "frames": _frames,
}
