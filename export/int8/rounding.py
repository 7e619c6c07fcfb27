"""Weights in eight bits: to the nearest value, or so that the convolution's output changes least.

Least is after Frantar et al. 2023 (arXiv 2210.17323), with the closed form of Hassibi and Stork 1993: weights are
rounded one after the other, and each rounding error is made up for by the weights that are not rounded yet, as the
second moments of the convolution's inputs say.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

LARGEST = 127
FARTHEST = 8
"""How far a rounded weight may be from the exact one, in units of its scale: what others' errors put on it."""
MOST_BIAS = 2.0**30
"""Largest bias in units of its channel's scale."""
_DAMPING = 0.01
"""Of the mean second moment: added to each, as few images leave some directions without any."""
_BLOCK = 128


def scales(weight: NDArray[np.float32], bias: NDArray[np.float32] | float = 0.0) -> NDArray[np.float32]:
    """The scale of each output channel: its largest weight becomes 127.

    Its bias is a whole number of them in 32 bits, so where weights are nothing beside it, the scale is larger.
    """
    largest = np.abs(weight).reshape(len(weight), -1).max(1)
    scale = np.maximum(largest / LARGEST, np.abs(bias) / MOST_BIAS).astype(np.float32)
    return np.where(scale > 0, scale, np.float32(1))


def in_units(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """The weights in units of their channel's scale."""
    return weight / scales(weight).reshape(-1, *[1] * (weight.ndim - 1))


def nearest(weight: NDArray[np.float32]) -> NDArray[np.int8]:
    """Each weight [C_out, C_in / groups, K, K] to its nearest value."""
    return np.rint(in_units(weight)).astype(np.int8)


def moments(
    x: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    *,
    groups: int,
    rows: int,
) -> Tensor:
    """Sums of the products of any two inputs that a convolution multiplies with weights of one channel.

    Args:
        x: inputs [N, C, H, W].
        pads: left of each axis, then right of each, as in ONNX.
        rows: how many positions are taken, at one step: where that is a multiple of a map's width, the left border
            alone. Positions of whole maps gave four networks no better accuracy, and give other files than the board's.

    Returns:
        [groups, C / groups * K * K, C / groups * K * K].
    """
    top, left, bottom, right = pads
    columns = F.unfold(
        F.pad(x, (left, right, top, bottom)), tuple(kernel), dilation=tuple(dilations), stride=tuple(strides)
    )
    columns = columns.transpose(1, 2).flatten(0, 1)
    columns = columns[:: max(1, len(columns) // rows)].unflatten(1, (groups, -1)).transpose(0, 1)
    return columns.transpose(1, 2) @ columns


def least_change(weight: NDArray[np.float32], moment: Tensor) -> NDArray[np.int8]:
    """Each weight [C_out, C_in / groups, K, K] to one of the values near it, for the least change of the output.

    Args:
        moment: of the convolution's inputs, from `moments`.
    """
    groups, size = moment.shape[:2]
    left = torch.from_numpy(in_units(weight)).double().reshape(groups, -1, size)
    moment = moment.to(torch.float64, copy=True)
    diagonal = moment.diagonal(dim1=1, dim2=2)
    diagonal += _DAMPING * diagonal.mean(1, keepdim=True) + (diagonal.sum(1, keepdim=True) == 0)
    order = diagonal.sum(0).argsort(descending=True, stable=True)
    left, moment = left[:, :, order], moment[:, order][:, :, order]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment))
    upper = torch.linalg.cholesky(inverse, upper=True)
    rounded = torch.zeros_like(left)
    for begin in range(0, size, _BLOCK):
        end = min(begin + _BLOCK, size)
        errors = torch.zeros_like(left[:, :, begin:end])
        for i in range(begin, end):
            rounded[:, :, i] = left[:, :, i].round().clamp(-LARGEST, LARGEST)
            error = (left[:, :, i] - rounded[:, :, i]) / upper[:, i, i, None]
            left[:, :, i:end] -= error[:, :, None] * upper[:, i, None, i:end]
            errors[:, :, i - begin] = error
        left[:, :, end:] -= errors @ upper[:, begin:end, end:]
    result = torch.empty_like(rounded)
    result[:, :, order] = rounded
    return result.reshape(weight.shape).numpy().astype(np.int8)
