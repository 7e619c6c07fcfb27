"""Batch normalisation behind its convolution, as a convolution of one weight for each channel.

A convolution over spikes adds up weights, and weights of eleven bits (`weights: fp16`) add up with hardly a rounding:
on both sides of an export nearly always the same current. Folded into the weights, the factor of a normalisation
gives them 24 bits, every sum is rounded, each program rounds in its own order, and where that crosses a threshold
spikes differ, and those make others. ONNX Runtime folds what is written as BatchNormalization, or as Mul and Add,
when it loads a file; a convolution it leaves where it is, in the layout of the one in front, with sum and spike fused
into it. It costs small networks some percent of their time (export/reports/forms.json).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .assembly import Assembly


def factor_and_shift(constants: Sequence[NDArray[Any]], eps: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Batch normalisation in evaluation mode as x * factor + shift, with PyTorch's rounding of both.

    Args:
        constants: weight, bias, running mean, running variance, [C] each.
        eps: is added to the variance.
    """
    weight, bias, mean, var = (np.asarray(value, np.float32) for value in constants)
    factor = weight * (np.float32(1) / np.sqrt(var + np.float32(eps)))
    shift = bias.astype(np.float64) - mean.astype(np.float64) * factor.astype(np.float64)
    return factor.astype(np.float32), shift.astype(np.float32)


def add_norm(g: Assembly, name: str, norm: Any, x: str, out: str) -> None:
    """Append a normalisation to a graph, as a convolution.

    Args:
        g: what to append to.
        name: of the normalisation, which begins the names of its constants.
        norm: a BatchNorm2d in evaluation mode.
        x: name of its input [B, C, H, W].
        out: name for its output.
    """
    channels = norm.num_features
    weight, bias = (norm.weight, norm.bias) if norm.affine else (torch.ones(channels), torch.zeros(channels))
    values = [value.detach().numpy() for value in (weight, bias, norm.running_mean, norm.running_var)]
    factor, shift = factor_and_shift(values, norm.eps)
    by = (("factor", factor.reshape(-1, 1, 1, 1)), ("shift", shift))
    constants = [g.constant(f"{name}/{what}", value, shared=False) for what, value in by]
    g.op("Conv", [x, *constants], out, kernel_shape=[1, 1], group=channels)
