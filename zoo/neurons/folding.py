"""Time folded into the batch: [T*B, ...], time-major, all images of the first step before those of the second."""

import torch
from torch import Tensor, nn


def repeat_steps(x: Tensor, timesteps: int) -> Tensor:
    """Direct encoding: [B, ...] to [T*B, ...], the same at every time step."""
    return torch.cat([x] * timesteps)  # unlike repeat, keeps a channels_last layout


def unfold_steps(x: Tensor, timesteps: int) -> Tensor:
    """[T*B, ...] to [T, B, ...], a view."""
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
    current = x if norm is None else norm(x)
    if repeat:
        current = repeat_steps(current, timesteps)
    if shortcut is None:
        return current
    return current + (shortcut if shortcut_norm is None else shortcut_norm(shortcut))
