"""The layers between neurons: convolutions that know their post-synaptic neurons, and time folding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .errors import ZooError
from .post import PostSpikes
from .scaling import Scaling


def repeat_steps(x: Tensor, timesteps: int) -> Tensor:
    """Direct encoding: [B, ...] to [T*B, ...], the same at every time step."""
    return torch.cat([x] * timesteps)  # unlike repeat, keeps a channels_last layout


def stem_conv(in_chans: int, channels: int, stride: int = 1) -> nn.Conv2d:
    """The first convolution, over images: 3 x 3, or wide enough that neighbours overlap at a larger stride."""
    width = max(3, 2 * stride - 1)
    return nn.Conv2d(in_chans, channels, width, stride, width // 2, bias=False)


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


def unfold_steps(x: Tensor, timesteps: int) -> Tensor:
    """[T*B, ...] to [T, B, ...], a view."""
    return x.unflatten(0, (timesteps, -1))


class SpikingConv2d(nn.Conv2d):
    """A 2-d convolution over spikes, time folded into the batch, whose weight gradient can be scaled while training.

    Args:
        timesteps: T, folded time-major into the batch.
        scaling: the rule, or None for the plain STBP gradient.
        Others as in `torch.nn.Conv2d`; there is no bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        *,
        dilation: int = 1,
        groups: int = 1,
        timesteps: int,
        scaling: Scaling | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)
        self.timesteps, self.scaling = timesteps, scaling

    def forward(self, x: Tensor, post: PostSpikes | None = None, kept: Tensor | None = None) -> Tensor:
        """[T*B, C, H, W] to [T*B, C', H', W'].

        Args:
            x: input spikes.
            post: ties the spikes of the neurons behind this layer to it; needed for a scaled gradient.
            kept: what to keep of `x` for the backward pass, `compact(x)`; itself unless said.

        Raises:
            ZooError: the layer has a scaling rule and nobody says which neurons it drives.
        """
        scaled = self.training and self.scaling is not None and self.scaling.alpha > 0
        if not torch.is_grad_enabled() or not (scaled or kept is not None):
            return super().forward(x)
        if scaled and post is None:
            raise ZooError("a convolution with scaling needs `post`, the spikes of the neurons behind it")
        weight = self.weight
        if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
            # A custom Function is not on autocast's list of convolutions: cast here, inside the graph.
            dtype = torch.get_autocast_dtype(x.device.type)
            x, weight = x.to(dtype), weight.to(dtype)
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        rule = self.scaling if scaled else None
        y, token = _SpikingConv2d.apply(x, weight, x.detach() if kept is None else kept, geometry, rule, self.timesteps)
        if scaled and post is not None:
            post.token = token
        return y


def compact(spikes: Tensor) -> Tensor | None:
    """What backward needs of spikes, in one byte each (int8), where a backward may come; else None."""
    return spikes.detach().to(torch.int8) if torch.is_grad_enabled() else None


class _SpikingConv2d(torch.autograd.Function):
    """A convolution, and a token in the shape of its output whose gradient is the post-synaptic spikes (PostSpikes)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        kept: Tensor,
        geometry: tuple[Any, ...],
        scaling: Scaling | None,
        timesteps: int,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(kept, weight)
        ctx.set_materialize_grads(False)  # spikes that never came are None, not zeros
        ctx.geometry, ctx.scaling, ctx.timesteps = geometry, scaling, timesteps
        y = torch.nn.functional.conv2d(x, weight, None, *geometry)
        return y, y.new_zeros(()).expand(y.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, spikes: Tensor | None) -> tuple[Tensor | None, ...]:
        kept, weight = ctx.saved_tensors
        x = kept.to(grad.dtype)
        stride, padding, dilation, groups = ctx.geometry

        def gradient(input: Tensor, error: Tensor, mask: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
            geometry = (stride, padding, dilation, False, [0, 0], groups)
            return torch.ops.aten.convolution_backward(error, input, weight, None, *geometry, mask)

        def operator(input: Tensor, error: Tensor) -> Tensor:
            return gradient(input, error, [False, True, False])[1]

        for_x, for_weight, *_ = ctx.needs_input_grad
        if ctx.scaling is None or not for_weight:
            return *gradient(x, grad, [for_x, for_weight, False])[:2], None, None, None, None
        if spikes is None:
            raise ZooError("no neuron tied its spikes to a convolution with scaling (PostSpikes.tie)")
        pre, post, error = (unfold_steps(z, ctx.timesteps) for z in (x, spikes, grad))
        by_weight, down = ctx.scaling.gradients(pre, post, error, operator)
        passed = grad if down is None else down.flatten(0, 1)
        grad_x = gradient(x, passed, [True, False, False])[0] if for_x else None
        return grad_x, by_weight.to(weight.dtype), None, None, None, None
