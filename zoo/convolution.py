"""The gradients of a 2-d convolution as functions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .rules import WeightGradient


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
