"""The layers between neurons: convolutions that know their post-synaptic neurons, and time folding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .errors import ZooError
from .scaling import PostSpikes, Scaling


def repeat_steps(x: Tensor, timesteps: int) -> Tensor:
    """Direct encoding: [B, ...] to [T*B, ...], the same at every time step."""
    return torch.cat([x] * timesteps)  # unlike repeat, keeps a channels_last layout


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
        timesteps: int,
        scaling: Scaling | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.timesteps, self.scaling = timesteps, scaling

    def forward(self, x: Tensor, post: PostSpikes | None = None) -> Tensor:
        """[T*B, C, H, W] to [T*B, C', H', W'].

        Args:
            x: input spikes.
            post: where the neurons behind this layer record their spikes; needed for a scaled gradient.

        Raises:
            ZooError: the layer has a scaling rule and nobody says which neurons it drives.
        """
        scaled = self.scaling is not None and self.scaling.alpha > 0
        if not (scaled and self.training and torch.is_grad_enabled()):
            return super().forward(x)
        if post is None:
            raise ZooError("a convolution with scaling needs `post`, the spikes of the neurons behind it")
        weight = self.weight
        if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
            # A custom Function is not on autocast's list of convolutions: cast here, inside the graph.
            dtype = torch.get_autocast_dtype(x.device.type)
            x, weight = x.to(dtype), weight.to(dtype)
        return _ScaledConv2d.apply(x, weight, post, self)


class _ScaledConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, post: PostSpikes, layer: SpikingConv2d) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.post, ctx.layer = post, layer
        return torch.nn.functional.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        layer, spikes = ctx.layer, ctx.post.spikes
        if spikes is None:
            raise ZooError("no neuron recorded its spikes for a convolution with scaling")
        if spikes.shape != grad.shape:
            raise ZooError(f"post-synaptic spikes {tuple(spikes.shape)} do not match the output {tuple(grad.shape)}")

        def gradient(input: Tensor, error: Tensor, mask: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
            geometry = (layer.stride, layer.padding, layer.dilation, False, [0, 0], layer.groups)
            return torch.ops.aten.convolution_backward(error, input, weight, None, *geometry, mask)

        def operator(input: Tensor, error: Tensor) -> Tensor:
            return gradient(input, error, [False, True, False])[1]

        grad_x = gradient(x, grad, [True, False, False])[0] if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return grad_x, None, None, None
        steps = layer.timesteps
        scaled = layer.scaling.weight_gradient(
            unfold_steps(x, steps), unfold_steps(spikes, steps), unfold_steps(grad, steps), operator
        )
        return grad_x, scaled.to(weight.dtype), None, None
