"""The gradients of a 2-d convolution as functions, and a scaling factor that is kept between forward passes.

The factor is computed by an operator, snnzoo::kept_factor, that torch.compile leaves whole.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ZooError
from .rules import WeightGradient
from .spec import Scaling


class Geometry(NamedTuple):
    """Of a 2-d convolution, in the order of `torch.nn.functional.conv2d`."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Geometry:
        """That of a layer."""
        return cls(list(conv.stride), [int(side) for side in conv.padding], list(conv.dilation), conv.groups)


POINT = Geometry([1, 1], [0, 0], [1, 1], 1)
"""Of a 1 x 1 convolution."""


def convolution_backward(
    input: Tensor, error: Tensor, weight: Tensor, geometry: Geometry, mask: list[bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of input and weight; `mask` says which of (input, weight, bias) are wanted."""
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
    """The factor of one layer, computed in every `every`-th call and averaged over them; no part of state_dict."""

    factor: Tensor

    def __init__(self, rule: Scaling, factor: Tensor) -> None:
        super().__init__()
        self.rule = json.dumps(rule)  # an operator takes no objects
        # Steps and output channels share an axis: `Module.to(memory_format=...)` takes four axes at most.
        self.register_buffer("factor", factor.flatten(0, 1), persistent=False)
        self.steps = len(factor)
        # On the host whatever the device: asking for its value must not wait for a GPU.
        self.calls = torch.zeros((), dtype=torch.int64, device="cpu")
        self.notes: dict[KeptFactor, Tensor] | None = None
        """Where a forward pass that will be repeated (gradient checkpointing) writes down the factor that it used, and
        the repetition finds it."""

    def forward(self, pre: Tensor, post: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        """The factor for spikes [T, B, ...]; see `Scaling.factor`.

        Raises:
            ZooError: inside DataParallel, whose copies of a network forget what they keep.
        """
        if getattr(self, "_is_replica", False):
            raise ZooError("scaling that keeps factors (every, average) does not run in DataParallel: use torchrun")
        if self.notes is not None and self in self.notes:
            return self.notes[self]
        factor = kept_factor(pre, post, weight, self.factor, self.calls, self.rule, *geometry)
        factor = factor.unflatten(0, (self.steps, -1))
        if self.notes is not None:
            self.notes[self] = factor
        return factor


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
        factor.copy_(new if count == 0 else factor.lerp(new, 1 - scaling.average))
    calls.add_(1)
    return factor.clone()


@kept_factor.register_fake
def _(pre: Tensor, post: Tensor, weight: Tensor, factor: Tensor, *others: Any) -> Tensor:
    return torch.empty_like(factor)
