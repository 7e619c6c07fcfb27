"""Layers whose weight gradient is scaled in training, and how they learn of the spikes of the neurons behind them."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..errors import ZooError
from ..kernels.lif import has_autocast
from ..neurons.base import unfold_steps
from .rules import WeightGradient, widened
from .spec import Scaling


class Geometry(NamedTuple):
    """How a 2-d convolution lies over its input, in the order of `torch.nn.functional.conv2d`."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Self:
        return cls(list(conv.stride), [int(side) for side in conv.padding], list(conv.dilation), conv.groups)


POINT = Geometry([1, 1], [0, 0], [1, 1], 1)
"""The geometry of a 1 x 1 convolution."""


def convolution_backward(
    input: Tensor, error: Tensor, weight: Tensor, geometry: Geometry, mask: list[bool]
) -> tuple[Tensor, Tensor]:
    """Returns the gradients of input and weight; `mask` says which of (input, weight, bias) are wanted."""
    stride, padding, dilation, groups = geometry
    arguments = (stride, padding, dilation, False, [0, 0], groups, mask)
    by_input, by_weight, _ = torch.ops.aten.convolution_backward(error, input, weight, None, *arguments)
    return by_input, by_weight


def weight_gradient(weight: Tensor, geometry: Geometry) -> WeightGradient:
    """The weight-gradient operator K of a convolution, in the precision of its operands; `weight` gives the shape.

    Spikes in one byte each are taken to the weight's precision.
    """

    def operator(input: Tensor, error: Tensor) -> Tensor:
        input, error = (z if z.is_floating_point() else z.to(weight.dtype) for z in (input, error))
        return convolution_backward(input, error, weight.to(input.dtype), geometry, [False, True, False])[1]

    return operator


class KeptFactor(nn.Module):
    """The factor of one layer, computed in every `every`-th call and kept between; no part of state_dict."""

    factor: Tensor

    def __init__(self, rule: Scaling, factor: Tensor) -> None:
        super().__init__()
        self.rule = json.dumps(rule)  # an operator takes no objects
        # Steps and output channels share an axis: `Module.to(memory_format=...)` takes four axes at most.
        self.register_buffer("factor", factor.flatten(0, 1), persistent=False)
        self.steps = len(factor)
        # On the host whatever the device: asking for its value must not wait for a GPU.
        self.calls = torch.zeros((), dtype=torch.int64, device="cpu")

    def forward(self, pre: Tensor, post: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        factor = kept_factor(pre, post, weight, self.factor, self.calls, self.rule, *geometry)
        return factor.unflatten(0, (self.steps, -1))


@torch.library.custom_op("snnzoo::kept_factor", mutates_args=("factor", "calls"))
def kept_factor(
    pre: Tensor,
    post: Tensor,
    weight: Tensor,
    factor: Tensor,
    calls: Tensor,
    rule: str,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    scaling, count = Scaling(*json.loads(rule)), int(calls)
    geometry = Geometry(stride, padding, dilation, groups)
    if count % scaling.every == 0:
        new = scaling.factor(pre, post, weight_gradient(weight, geometry), weight.dtype)
        new = scaling.shaped(new, [scaling.steps(len(pre)), *weight.shape]).flatten(0, 1).to(factor.dtype)
        factor.copy_(new)
    calls.add_(1)
    return factor.clone()


@kept_factor.register_fake
def _(pre: Tensor, post: Tensor, weight: Tensor, factor: Tensor, *others: Any) -> Tensor:
    return torch.empty_like(factor)


class PostSpikes:
    """How a layer's backward learns of the spikes of the neurons that it drives, which its forward does not know yet.

    A block creates one, hands it to the layer, and ties the neurons' spikes to it. The layer leaves a token, a second
    output; `tie` passes the spikes on, and in the backward pass sends what the layer wants to know of them (the factor
    of its weight gradient, or the spikes themselves) as "the gradient of the token". So it travels along autograd's
    graph like everything else, which holds for torch.compile, checkpointing and several forwards in flight alike.
    """

    __slots__ = ("factor", "output", "token")

    def __init__(self) -> None:
        self.token: Tensor | None = None
        self.output: torch.Size | None = None
        """Shape of the layer's output, and so of the spikes."""
        self.factor: Callable[[Tensor, Tensor | None], Tensor] | None = None
        """What to send of the spikes and their membrane potentials; None for the spikes themselves."""

    def tie(self, spikes: Tensor, saved: Tensor | None = None) -> Tensor:
        """`spikes` [T*B, ...] themselves, tied to the layer if it left a token; backward keeps `saved`,
        `compact(spikes)`, instead of them where that is given."""
        if self.token is None:
            return spikes
        if spikes.shape != self.output:
            shapes = f"{tuple(spikes.shape)} do not match the output {tuple(self.output or ())}"
            raise ZooError(f"post-synaptic spikes {shapes} of a layer with scaling")
        message, potential = spikes.detach() if saved is None else saved, getattr(spikes, "potential", None)
        if self.factor is None:
            message = message.view(self.token.shape)
        else:
            with torch.no_grad():
                message = self.factor(message, potential).to(self.token.dtype)
        tied: Tensor = _Tie.apply(spikes, self.token, message)
        if potential is not None:  # which the next layer that they are tied to may need
            tied.potential = potential  # type: ignore[attr-defined]
        return tied


class _Tie(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, spikes: Tensor, token: Tensor, message: Tensor) -> Tensor:
        ctx.save_for_backward(message)
        ctx.dtype = token.dtype
        return spikes.view_as(spikes)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return grad, ctx.saved_tensors[0].to(ctx.dtype), None


def compact(spikes: Tensor) -> Tensor | None:
    """Returns what backward needs of spikes, in one byte each (int8), where a backward may come; else None."""
    return spikes.detach().to(torch.int8) if torch.is_grad_enabled() else None


class ScaledLayer(nn.Module):
    """What scaled layers share: the scaling, and the factor that some rules keep between forward passes."""

    timesteps: int
    scaling: Scaling | None
    by_default: bool
    one_shape: bool
    """Whether its output has the shape of its input."""
    weight: Tensor

    def _init_scaling(self, timesteps: int, scaling: Scaling | None = None, by_default: bool = False) -> None:
        self.timesteps, self.by_default = timesteps, by_default
        self.scale_by(scaling)

    def scale_by(self, scaling: Scaling | None) -> None:
        """Sets the scaling, None for the plain STBP gradient; raises ZooError where the rule compares the input with
        itself, and the output has another shape."""
        if scaling is not None and scaling.preset.one_shape and not self.one_shape:
            raise ZooError(f"scaling {scaling.name} takes layers whose input and output have one shape, not {self}")
        self.scaling = scaling
        self.kept = None
        if scaling is not None and scaling.stateful:
            steps, side = scaling.steps(self.timesteps), self.weight.shape[2:] or (1, 1)
            # Beside the weights, not among them: a scaled network's state_dict is that of its plain twin.
            self.kept = KeptFactor(scaling, self.weight.detach().new_zeros(steps, *self.weight.shape[:2], *side))

    def _convolve(
        self, x: Tensor, weight: Tensor, geometry: Geometry, post: PostSpikes | None, saved: Tensor | None
    ) -> Tensor:
        scaling = self.scaling if self.training else None
        if scaling and (
            scaling.alpha == 0 or not (self.weight.requires_grad or scaling.preset.locality == "error_down")
        ):
            scaling = None
        if not torch.is_grad_enabled() or (scaling is None and saved is None):
            return nn.functional.conv2d(x, weight, None, *geometry)
        if scaling is not None and post is None:
            raise ZooError("a layer with scaling needs `post`, the spikes of the neurons behind it")
        device = x.device.type
        if has_autocast(device) and torch.is_autocast_enabled(device) and x.dtype != torch.float64:
            # A custom Function is not on autocast's list of convolutions: cast here, inside the graph.
            dtype = torch.get_autocast_dtype(device)
            x, weight = x.to(dtype), weight.to(dtype)
        saved = x.detach() if saved is None else saved
        y, token = _Convolution.apply(x, weight, saved, geometry, scaling, self.timesteps)
        if scaling is not None and post is not None:
            post.token, post.output = token, y.shape
            if scaling.preset.locality == "weight":
                post.factor = self._factor(scaling, saved, weight.detach(), geometry, y.shape)
        return y

    def _factor(
        self, scaling: Scaling, saved: Tensor, weight: Tensor, geometry: Geometry, shape: torch.Size
    ) -> Callable[[Tensor, Tensor | None], Tensor]:
        def factor(spikes: Tensor, potential: Tensor | None) -> Tensor:
            pre, post = (unfold_steps(z, self.timesteps) for z in (saved, spikes.view(shape)))
            if scaling.preset.potential:
                if potential is None:
                    raise ZooError(
                        f"scaling {scaling.name} reads membrane potentials, which are not known behind {self}"
                    )
                potential = unfold_steps(potential.view(shape), self.timesteps)
            if self.kept is not None:
                return self.kept(pre, post, weight, geometry)
            new = scaling.factor(pre, post, weight_gradient(weight, geometry), weight.dtype, potential)
            return scaling.shaped(new, [scaling.steps(self.timesteps), *weight.shape])

        return factor


class SpikingConv2d(ScaledLayer, nn.Conv2d):
    """A 2-d convolution over spikes, time folded into the batch, whose weight gradient can be scaled while training.

    Args:
        timesteps: T, folded time-major into the batch.
        scaling: what scales it, or None for the plain STBP gradient.
        by_default: whether a network scales it where nobody says which layers; it is 3 x 3 inside a block, with equal
            channels and stride 1, or maps spikes to spikes inside attention.
        shape, others: as for `torch.nn.Conv2d`; there is no bias.
    """

    def __init__(
        self, *shape: Any, timesteps: int, scaling: Scaling | None = None, by_default: bool = False, **others: Any
    ) -> None:
        super().__init__(*shape, **{"bias": False} | others)
        if self.bias is not None or self.padding_mode != "zeros" or isinstance(self.padding, str):
            needs = "a convolution over spikes has no bias and is padded with zeros, as many as a number says"
            raise ZooError(f"{needs}, not {others}")
        stride, padding, dilation, _ = Geometry.of(self)
        same_side = [2 * p for p in padding] == [d * (k - 1) for d, k in zip(dilation, self.kernel_size, strict=True)]
        self.one_shape = same_side and stride == [1, 1] and self.in_channels == self.out_channels
        self._init_scaling(timesteps, scaling, by_default)

    def forward(self, x: Tensor, post: PostSpikes | None = None, saved: Tensor | None = None) -> Tensor:
        """Takes spikes [T*B, C, H, W] to currents [T*B, C', H', W'].

        Args:
            post: ties the spikes of the neurons behind this layer to it; needed for a scaled gradient.
            saved: what to save of `x` for the backward pass, `compact(x)`; itself by default.
        """
        y = self._convolve(x, self.weight, Geometry.of(self), post, saved)
        return y if self.bias is None else y + self.bias[:, None, None].to(y.dtype)  # of a folded normalisation


class SpikingLinear(ScaledLayer, nn.Linear):
    """A linear layer over spikes [T*B, C], time folded into the batch, whose weight gradient can be scaled as that of
    `SpikingConv2d` is: it computes a 1 x 1 convolution over a single position."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, **scaling: Any) -> None:
        super().__init__(in_features, out_features, bias)
        self.one_shape = in_features == out_features
        self._init_scaling(**scaling)

    def forward(self, x: Tensor, post: PostSpikes | None = None, saved: Tensor | None = None) -> Tensor:
        """Takes [T*B, C] to [T*B, C']; arguments and errors as in `SpikingConv2d.forward`."""
        saved = None if saved is None else saved[..., None, None]
        y = self._convolve(x[..., None, None], self.weight[..., None, None], POINT, post, saved)[..., 0, 0]
        if post is not None:
            post.output = y.shape
        return y if self.bias is None else y + self.bias.to(y.dtype)


class _Convolution(torch.autograd.Function):
    """A convolution, and a token whose gradient is what the neurons behind send to its backward pass (PostSpikes)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, saved: Tensor, geometry: Geometry, scaling: Scaling | None, timesteps: int
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(saved, weight)
        ctx.set_materialize_grads(False)  # what never came is None, not zeros
        ctx.geometry, ctx.scaling, ctx.timesteps = geometry, scaling, timesteps
        y = nn.functional.conv2d(x, weight, None, *geometry)
        shape = y.shape
        if scaling is not None and scaling.preset.locality == "weight":
            shape = torch.Size((scaling.steps(timesteps), *weight.shape))
        return y, torch.zeros((), dtype=widened(y.new_zeros(())).dtype, device=y.device).expand(shape)

    @staticmethod
    @once_differentiable  # with respect to its input, of which only the values are saved, it has no second derivative
    def backward(ctx: Any, grad: Tensor, message: Tensor | None) -> tuple[Tensor | None, ...]:
        saved, weight = ctx.saved_tensors
        x = saved.to(grad.dtype)
        for_x, for_weight, *_ = ctx.needs_input_grad
        if ctx.scaling is None or not (for_weight or ctx.scaling.preset.locality == "error_down"):
            both = convolution_backward(x, grad, weight, ctx.geometry, [for_x, for_weight, False])
            return *both, None, None, None, None
        if message is None:
            raise ZooError("no neuron tied its spikes to a layer with scaling (PostSpikes.tie)")
        if ctx.scaling.preset.locality != "weight":
            message = unfold_steps(message.to(grad.dtype), ctx.timesteps)
        pre, error = (unfold_steps(z, ctx.timesteps) for z in (x, grad))
        by_weight, down = ctx.scaling.gradients(pre, message, error, weight_gradient(weight, ctx.geometry))
        passed = grad if down is None else down.flatten(0, 1)
        grad_x = convolution_backward(x, passed, weight, ctx.geometry, [True, False, False])[0] if for_x else None
        return grad_x, by_weight.to(weight.dtype), None, None, None, None
