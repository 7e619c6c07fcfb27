"""The CPU kernel: PyTorch tensors to the C++ of lif.cpp and back."""

import ctypes
import math
from pathlib import Path

import torch
from torch import Tensor

from .build import load_library
from .lif import SURROGATES, Branch, Dynamics, layout_of, like, plain_lif, wide

_SOURCE = Path(__file__).with_name("lif.cpp")
_SCALARS = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "BF16"}
_PARALLEL = 1 << 15  # elements from which a second thread pays
_Pointer = ctypes.c_void_p


class _Branch(ctypes.Structure):
    _fields_ = [
        *((name, _Pointer) for name in ("x", "weight", "bias", "mean", "var", "grad", "grad_weight", "grad_bias")),
        ("eps", ctypes.c_double),
        ("batch_stats", ctypes.c_int32),
    ]


class _Args(ctypes.Structure):
    _fields_ = [
        *(("x", _Branch), ("r", _Branch)),
        *((name, _Pointer) for name in ("spikes", "grad", "current", "leak")),
        *((name, ctypes.c_int64) for name in ("step", "channels", "inner")),
        *((name, ctypes.c_int32) for name in ("repeat", "threads")),
        *((name, ctypes.c_double) for name in ("decay", "gain", "threshold", "width")),
    ]


def prepare(dtype: torch.dtype, dynamics: Dynamics, leak: bool) -> ctypes.CDLL:
    """The library for this type of data and these neurons, built now if it is not in the cache; see `load_library`."""
    constants = {
        "SCALAR": _SCALARS[dtype],
        "STEPS": dynamics.steps,
        "SURROGATE": SURROGATES.index(dynamics.surrogate),
        "SOFT": int(dynamics.soft),
        "DETACH": int(dynamics.detach),
        "GAIN": int(leak or dynamics.gain != 1),
        "LEAK": int(leak),
    }
    return load_library(_SOURCE, *(f"-D{name}={value}" for name, value in constants.items()))


def forward(x: Branch, r: Branch | None, leak: Tensor | None, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Returns the spikes [T*B, ...], and the statistics used, [4, C]: mean and biased variance of x, then of r."""
    shape = (len(x.data) * dynamics.steps if dynamics.repeat else len(x.data), *x.data.shape[1:])
    spikes = like(x.data, shape)
    stats = _stats(x, r)
    args = _arguments(x, r, stats, leak, dynamics)
    args.spikes = spikes.data_ptr()
    _call("lif_forward", args, x, leak, dynamics)
    return spikes, stats


def backward(
    grad: Tensor, x: Branch, r: Branch | None, leak: Tensor | None, stats: Tensor, dynamics: Dynamics
) -> list[Tensor]:
    """Gradients of x, its weight and bias, r, its weight and bias, leak; empty where there is no such input."""
    args = _arguments(x, r, stats, leak, dynamics)
    none = x.data.new_empty(0)
    current = torch.empty_like(x.data)
    normalised = [b is not None and b.eps is not None for b in (x, r)]
    # The current's gradient is that of every branch without normalisation; x's may overwrite it in its last use.
    grad_x = torch.empty_like(current) if normalised[0] and r is not None and not normalised[1] else current
    grad_r = none if r is None else torch.empty_like(current) if normalised[1] else current
    affine = torch.zeros_like(stats)  # of no image, when nothing is run, zeros are right
    sums = none if leak is None else torch.zeros(2, dtype=torch.float64, device=x.data.device)
    args.grad, args.current = grad.data_ptr(), current.data_ptr()
    args.leak = sums.data_ptr()
    for i, (branch, out) in enumerate(((args.x, grad_x), (args.r, grad_r))):
        branch.grad = out.data_ptr()
        branch.grad_weight, branch.grad_bias = _rows(affine)[2 * i : 2 * i + 2]
    _call("lif_backward", args, x, leak, dynamics)
    if grad_r is grad_x:
        grad_r = grad_x.clone()
    rows = affine.unbind()
    return [grad_x, *rows[:2], grad_r, *rows[2:], none if leak is None else sums.to(leak.dtype)]


def weighted_steps(spikes: Tensor, weights: list[float], dtype: torch.dtype) -> Tensor:
    """sum_t weights[t] spikes[t] of spikes [T, ...] in int8 or `dtype`, in `dtype` and their layout."""
    if not spikes[0].is_contiguous(memory_format=layout_of(spikes[0])):  # each step is dense; they may lie apart
        spikes = spikes.contiguous()
    out = torch.empty_like(spikes[0], dtype=dtype)
    threads = torch.get_num_threads() if spikes.numel() >= _PARALLEL else 1
    prepare(dtype, plain_lif(len(weights)), False).weighted_steps(
        _Pointer(spikes.data_ptr()), ctypes.c_int32(spikes.dtype is torch.int8), ctypes.c_int64(spikes.stride(0)),
        (ctypes.c_double * len(weights))(*weights), _Pointer(out.data_ptr()), ctypes.c_int64(out.numel()),
        ctypes.c_int32(threads),
    )  # fmt: skip
    return out


def _stats(x: Branch, r: Branch | None) -> Tensor:
    branches = [b for b in (x, r) if b is not None and b.eps is not None]
    channels = x.data.shape[1] if branches else 0
    stats = torch.empty(4, channels, dtype=wide(x.data.dtype), device=x.data.device)
    for i, branch in enumerate((x, r)):
        if branch is not None and branch.mean is not None and branch.var is not None:
            stats[2 * i], stats[2 * i + 1] = branch.mean, branch.var
    return stats


def _arguments(x: Branch, r: Branch | None, stats: Tensor, leak: Tensor | None, dynamics: Dynamics) -> _Args:
    size = x.data.numel() if dynamics.repeat else x.data.numel() // dynamics.steps
    args = _Args(
        step=size,
        channels=stats.shape[1],
        inner=1 if layout_of(x.data) is torch.channels_last else math.prod(x.data.shape[2:]),
        repeat=dynamics.repeat,
        threads=torch.get_num_threads() if size * dynamics.steps >= _PARALLEL else 1,
        threshold=dynamics.threshold,
        width=dynamics.width,
    )
    args.decay, args.gain = (dynamics.decay, dynamics.gain) if leak is None else leak.tolist()
    for i, (branch, to) in enumerate(((x, args.x), (r, args.r))):
        if branch is None:
            continue
        to.x = branch.data.data_ptr()
        if branch.eps is not None:
            to.mean, to.var = _rows(stats)[2 * i : 2 * i + 2]
            to.eps, to.batch_stats = branch.eps, branch.mean is None
            to.weight = None if branch.weight is None else branch.weight.data_ptr()
            to.bias = None if branch.bias is None else branch.bias.data_ptr()
    return args


def _rows(x: Tensor) -> list[int]:
    """Returns the addresses of the rows of [4, C]."""
    return [x.data_ptr() + i * x.shape[1] * x.element_size() for i in range(len(x))]


def _call(function: str, args: _Args, x: Branch, leak: Tensor | None, dynamics: Dynamics) -> None:
    if args.step:
        getattr(prepare(x.data.dtype, dynamics, leak is not None), function)(ctypes.byref(args))
