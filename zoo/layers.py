"""The layers between neurons: convolutions that know their post-synaptic neurons, and time folding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .convolution import POINT, Geometry, convolution_backward, weight_gradient
from .errors import ZooError
from .kept import KeptFactor
from .post import PostSpikes
from .rules import wide
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


class _Spiking(nn.Module):
    """What scaled layers share: the rule, and the factor that some rules keep between forward passes."""

    timesteps: int
    scaling: Scaling | None
    by_default: bool
    weight: Tensor

    def _init_spiking(self, timesteps: int, scaling: Scaling | None, by_default: bool) -> None:
        self.timesteps, self.by_default = timesteps, by_default
        self.scale_by(scaling)

    def scale_by(self, scaling: Scaling | None) -> None:
        """Set the rule, None for the plain STBP gradient."""
        self.scaling = scaling
        self.kept = None
        if scaling is not None and scaling.stateful:
            steps, side = scaling.steps(self.timesteps), self.weight.shape[2:] or (1, 1)
            # Beside the weights, not among them: a scaled network's state_dict is that of its plain twin.
            self.kept = KeptFactor(scaling, self.weight.detach().new_zeros(steps, *self.weight.shape[:2], *side))

    def _convolve(
        self, x: Tensor, weight: Tensor, geometry: Geometry, post: PostSpikes | None, kept: Tensor | None
    ) -> Tensor:
        rule = self.scaling if self.training else None
        if rule is not None and (rule.alpha == 0 or not (self.weight.requires_grad or rule.locality == "error_down")):
            rule = None
        if not torch.is_grad_enabled() or (rule is None and kept is None):
            return nn.functional.conv2d(x, weight, None, *geometry)
        if rule is not None and post is None:
            raise ZooError("a layer with scaling needs `post`, the spikes of the neurons behind it")
        if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
            # A custom Function is not on autocast's list of convolutions: cast here, inside the graph.
            dtype = torch.get_autocast_dtype(x.device.type)
            x, weight = x.to(dtype), weight.to(dtype)
        kept = x.detach() if kept is None else kept
        y, token = _Convolution.apply(x, weight, kept, geometry, rule, self.timesteps)
        if rule is not None and post is not None:
            post.token, post.output = token, y.shape
            if rule.locality == "weight":
                post.factor = self._factor(rule, kept, weight.detach(), geometry, y.shape)
        return y

    def _factor(
        self, rule: Scaling, kept: Tensor, weight: Tensor, geometry: Geometry, shape: torch.Size
    ) -> Callable[[Tensor], Tensor]:
        def factor(spikes: Tensor) -> Tensor:
            spikes = spikes.view(shape)
            pre, post = (unfold_steps(z, self.timesteps) for z in (kept, spikes))
            if self.kept is not None:
                return self.kept(pre, post, weight, geometry)
            told = rule.factor(pre, post, weight_gradient(weight, geometry), weight.dtype)
            return rule.shaped(told, [rule.steps(self.timesteps), *weight.shape])

        return factor


class SpikingConv2d(_Spiking, nn.Conv2d):
    """A 2-d convolution over spikes, time folded into the batch, whose weight gradient can be scaled while training.

    Args:
        timesteps: T, folded time-major into the batch.
        scaling: the rule, or None for the plain STBP gradient.
        by_default: whether a network scales it where nobody says which layers; it is 3 x 3 inside a block, with equal
            channels and stride 1, or maps spikes to spikes inside attention.
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
        by_default: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)
        self._init_spiking(timesteps, scaling, by_default)

    def forward(self, x: Tensor, post: PostSpikes | None = None, kept: Tensor | None = None) -> Tensor:
        """[T*B, C, H, W] to [T*B, C', H', W'].

        Args:
            x: input spikes.
            post: ties the spikes of the neurons behind this layer to it; needed for a scaled gradient.
            kept: what to keep of `x` for the backward pass, `compact(x)`; itself unless said.

        Raises:
            ZooError: the layer has a scaling rule and nobody says which neurons it drives.
        """
        return self._convolve(x, self.weight, Geometry.of(self), post, kept)


class SpikingLinear(_Spiking, nn.Linear):
    """A linear layer over spikes [T*B, C], time folded into the batch, whose weight gradient can be scaled as that of
    `SpikingConv2d` is: it computes a 1 x 1 convolution over a single position."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        timesteps: int,
        scaling: Scaling | None = None,
        by_default: bool = False,
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self._init_spiking(timesteps, scaling, by_default)

    def forward(self, x: Tensor, post: PostSpikes | None = None, kept: Tensor | None = None) -> Tensor:
        """[T*B, C] to [T*B, C']; arguments and errors as in `SpikingConv2d.forward`."""
        kept = None if kept is None else kept[..., None, None]
        y = self._convolve(x[..., None, None], self.weight[..., None, None], POINT, post, kept)[..., 0, 0]
        if post is not None:
            post.output = y.shape
        return y if self.bias is None else y + self.bias.to(y.dtype)


def compact(spikes: Tensor) -> Tensor | None:
    """What backward needs of spikes, in one byte each (int8), where a backward may come; else None."""
    return spikes.detach().to(torch.int8) if torch.is_grad_enabled() else None


class _Convolution(torch.autograd.Function):
    """A convolution, and a token whose gradient is what the neurons behind tell its backward pass (PostSpikes)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        kept: Tensor,
        geometry: Geometry,
        scaling: Scaling | None,
        timesteps: int,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(kept, weight)
        ctx.set_materialize_grads(False)  # what never came is None, not zeros
        ctx.geometry, ctx.scaling, ctx.timesteps = geometry, scaling, timesteps
        y = nn.functional.conv2d(x, weight, None, *geometry)
        shape = y.shape
        if scaling is not None and scaling.locality == "weight":
            shape = torch.Size((scaling.steps(timesteps), *weight.shape))
        return y, torch.zeros((), dtype=wide(y.new_zeros(())).dtype, device=y.device).expand(shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, told: Tensor | None) -> tuple[Tensor | None, ...]:
        kept, weight = ctx.saved_tensors
        x = kept.to(grad.dtype)
        for_x, for_weight, *_ = ctx.needs_input_grad
        if ctx.scaling is None or not (for_weight or ctx.scaling.locality == "error_down"):
            both = convolution_backward(x, grad, weight, ctx.geometry, [for_x, for_weight, False])
            return *both, None, None, None, None
        if told is None:
            raise ZooError("no neuron tied its spikes to a layer with scaling (PostSpikes.tie)")
        if ctx.scaling.locality != "weight":
            told = unfold_steps(told.to(grad.dtype), ctx.timesteps)
        pre, error = (unfold_steps(z, ctx.timesteps) for z in (x, grad))
        by_weight, down = ctx.scaling.gradients(pre, told, error, weight_gradient(weight, ctx.geometry))
        passed = grad if down is None else down.flatten(0, 1)
        grad_x = convolution_backward(x, passed, weight, ctx.geometry, [True, False, False])[0] if for_x else None
        return grad_x, by_weight.to(weight.dtype), None, None, None, None
