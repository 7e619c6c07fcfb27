"""Batch normalisation as the fused kernels see it: its numbers, and what a training step does to its statistics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .kernels import Branch
from .kernels.spec import wide


def can_fuse(norm: nn.Module | None, x: Tensor) -> bool:
    """Whether a kernel can stand in for `norm` on `x` [B, C, ...].

    It can for none, and for PyTorch's own batch normalisation that nobody watches, on data that it takes.
    """
    if norm is None:
        return True
    dims = (2, 3) if type(norm) is nn.BatchNorm1d else (4,) if type(norm) is nn.BatchNorm2d else ()
    watched = norm._forward_hooks or norm._forward_pre_hooks
    fits = x.dim() in dims and x.shape[1] == norm.num_features
    return bool(fits and not watched and (x.numel() > x.shape[1] or not norm.training))


def branch(x: Tensor, norm: nn.Module | None) -> Branch:
    """A summand of the current with the normalisation in front of it."""
    if norm is None:
        return Branch(x)

    def values(value: Any) -> Tensor | None:
        return None if value is None else value.to(wide(x.dtype))

    frozen = not norm.training and norm.running_mean is not None
    mean, var = (norm.running_mean, norm.running_var) if frozen else (None, None)
    eps: Any = norm.eps
    return Branch(x, values(norm.weight), values(norm.bias), values(mean), values(var), eps)


@contextlib.contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Running statistics stay as they are: for a forward in training mode that only repeats one."""
    norms: list[Any] = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.num_batches_tracked is not None]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)


@torch.no_grad()
def update_statistics(norm: nn.Module, mean: Tensor, var: Tensor, count: int) -> None:
    """What a forward in training mode does to the running statistics.

    Args:
        norm: the normalisation; in evaluation mode and without statistics, nothing changes.
        mean, var: of the batch [C], `var` biased.
        count: values behind each of them.
    """
    if not norm.training or norm.running_mean is None:
        return
    batches: Any = norm.num_batches_tracked
    batches.add_(1)
    factor: Any = norm.momentum if norm.momentum is not None else 1 / float(batches)
    unbiased = count / max(count - 1, 1)
    for running, value, alpha in ((norm.running_mean, mean, factor), (norm.running_var, var, factor * unbiased)):
        running.mul_(1 - factor).add_(value, alpha=alpha)  # type: ignore[operator]
