"""The CUDA kernel, LIF neurons in Triton: `LIF.step` of zoo/neurons/lif.py and its gradient, rounding for rounding.

A program takes `block` neurons through all time steps. Membranes live in registers, in `acc` (float32, or float64 for
float64 data); the backward pass recomputes them from the currents, so that nothing else is saved. The numbers of a
neuron are compile-time constants, because Triton passes a Python float as float32. Launch with fused multiply-add off:
it would round a membrane once where PyTorch rounds twice, and spikes would differ.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..errors import ZooError, one_line
from .lif import Branch, Dynamics, like, wide

_ACC = {torch.float32: tl.float32, torch.float64: tl.float64}
_LAUNCH = {"num_warps": 4, "enable_fp_fusion": False}


def prepare(dtype: torch.dtype, dynamics: Dynamics, leak: bool) -> None:
    """Compiles the forward kernel, and launches nothing; ZooError: an old device, no compiler ..."""
    if torch.cuda.is_available():
        try:
            constants = _constants(dtype, dynamics)
            _lif_forward.warmup(dtype, torch.float32 if leak else None, dtype, 16, **constants, **_LAUNCH, grid=(1,))
        except Exception as error:  # whatever Triton raises: PyTorch still runs
            raise ZooError(f"triton cannot build the neuron kernel: {one_line(error)}") from error


def forward(x: Branch, r: Branch | None, leak: Tensor | None, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Spikes [T*B, ...] in the layout of x, and no statistics, [4, 0]; x and r hold no more than a current."""
    data = x.data
    spikes = like(data, (len(data) * dynamics.steps if dynamics.repeat else len(data), *data.shape[1:]))
    n = spikes.numel() // dynamics.steps
    if n:
        with _device(data):
            constants = _constants(data.dtype, dynamics)
            _lif_forward[_programs(n, dynamics),](data, leak, spikes, n, **constants, **_LAUNCH)
    return spikes, data.new_empty((4, 0), dtype=wide(data.dtype))


def backward(
    grad: Tensor, x: Branch, r: Branch | None, leak: Tensor | None, stats: Tensor, dynamics: Dynamics
) -> list[Tensor]:
    """Returns the gradients as `cpu.backward` returns them; of x and leak only, else empty."""
    data = x.data
    n = grad.numel() // dynamics.steps
    programs = _programs(n, dynamics)
    grad_x = torch.empty_like(data)
    sums = None if leak is None else data.new_empty((programs, 2), dtype=wide(data.dtype))
    constants = _constants(data.dtype, dynamics)
    more = {"detach": dynamics.detach, "surrogate": dynamics.surrogate, "width": dynamics.width}
    if n:
        with _device(data):
            _lif_backward[programs,](grad, data, leak, grad_x, sums, n, **constants, **more, **_LAUNCH)
    none, row = data.new_empty(0), stats.new_empty(0)
    grad_leak = none if leak is None or sums is None else sums.sum(0, dtype=torch.float64).to(leak.dtype)
    return [grad_x, row, row, none, row, row, grad_leak]


def _constants(dtype: torch.dtype, dynamics: Dynamics) -> dict[str, Any]:
    """Returns what both kernels are compiled for."""
    return {
        "steps": dynamics.steps,
        "repeat": dynamics.repeat,
        "decay": float(dynamics.decay),
        "gain": float(dynamics.gain),
        "threshold": float(dynamics.threshold),
        "soft": dynamics.soft,
        "acc": _ACC[wide(dtype)],
        "block": _block(dynamics),
    }


def _block(dynamics: Dynamics) -> int:
    """Neurons of one program: fewer where more steps of each are kept in registers."""
    return max(128, 1024 * 4 // max(4, 1 << (dynamics.steps - 1).bit_length()))


def _programs(n: int, dynamics: Dynamics) -> int:
    return -(-n // _block(dynamics))


def _device(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


@triton.jit
def _reset(u: tl.tensor, s: tl.tensor, threshold: tl.tensor, soft: tl.constexpr) -> tl.tensor:
    return u - threshold * s if soft else u * (1 - s)  # a product, so that inf and NaN pass as in PyTorch


@triton.jit
def _surrogate(
    d: tl.tensor, name: tl.constexpr, width: tl.constexpr, acc: tl.constexpr, block: tl.constexpr
) -> tl.tensor:
    """Returns the surrogate derivative at d = u - threshold (zoo/neurons/surrogate.py); NaN stays NaN."""
    inverse = tl.full([block], 1 / width, acc)
    if name == "triangle":
        y = 1 - tl.abs(d) * inverse
        y = tl.where(y < 0, 0, y) * inverse
    elif name == "rectangle":
        y = tl.where(tl.abs(d) < tl.full([block], width / 2, acc), inverse, 0)
    elif name == "arctan":
        y = tl.full([block], 3.141592653589793 / width, acc) * d
        y = inverse / (1 + y * y)
    else:
        tl.static_assert(name == "sigmoid")
        e = tl.exp(-tl.abs(d) * inverse)  # s (1 - s) = e / (1 + e)^2, without cancellation
        y = e / ((1 + e) * (1 + e)) * inverse
    return y


@triton.jit
def _lif_forward(
    x: tl.tensor,
    leak: tl.tensor,
    spikes: tl.tensor,
    n: tl.tensor,
    steps: tl.constexpr,
    repeat: tl.constexpr,
    decay: tl.constexpr,
    gain: tl.constexpr,
    threshold: tl.constexpr,
    soft: tl.constexpr,
    acc: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Spikes [T, n] of currents [T, n] ([n] with `repeat`); leak [2] or None."""
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < n
    if leak is None:
        a = tl.full([block], decay, acc)
        b = tl.full([block], gain, acc)
    else:
        a = tl.load(leak).to(acc)
        b = tl.load(leak + 1).to(acc)
    c = tl.full([block], threshold, acc)
    v = tl.zeros([block], acc)
    x += at
    spikes += at
    for _ in tl.static_range(steps):
        u = v * a + tl.load(x, mask=inside, other=0).to(acc) * b
        s = (u - c >= 0).to(acc)
        tl.store(spikes, s.to(spikes.dtype.element_ty), mask=inside)
        v = _reset(u, s, c, soft)
        if not repeat:
            x += n
        spikes += n


@triton.jit
def _lif_backward(
    grad: tl.tensor,
    x: tl.tensor,
    leak: tl.tensor,
    grad_x: tl.tensor,
    sums: tl.tensor,
    n: tl.tensor,
    steps: tl.constexpr,
    repeat: tl.constexpr,
    decay: tl.constexpr,
    gain: tl.constexpr,
    threshold: tl.constexpr,
    soft: tl.constexpr,
    detach: tl.constexpr,
    surrogate: tl.constexpr,
    width: tl.constexpr,
    acc: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Gradient of the currents, in their shape, and [programs, 2]: each program's gradients of decay and gain."""
    program = tl.program_id(0)
    at = program.to(tl.int64) * block + tl.arange(0, block)
    inside = at < n
    if leak is None:
        a = tl.full([block], decay, acc)
        b = tl.full([block], gain, acc)
    else:
        a = tl.load(leak).to(acc)
        b = tl.load(leak + 1).to(acc)
    c = tl.full([block], threshold, acc)

    v = tl.zeros([block], acc)
    x += at
    grad += at
    grad_x += at
    currents = ()
    before = ()  # membranes before each step
    for t in tl.static_range(steps):
        if t == 0 or not repeat:
            i = tl.load(x, mask=inside, other=0).to(acc)
        currents = currents + (i,)  # type: ignore[assignment] # noqa: RUF005 - Triton knows no (*currents, i)
        before = before + (v,)  # type: ignore[assignment] # noqa: RUF005
        u = v * a + i * b
        v = _reset(u, (u - c >= 0).to(acc), c, soft)
        x += n
        if t > 0:
            grad += n
            if not repeat:
                grad_x += n

    carry = tl.zeros([block], acc)  # gradient of v after the step
    by_x = tl.zeros([block], acc)
    by_decay = tl.zeros([block], acc)
    by_gain = tl.zeros([block], acc)
    for k in tl.static_range(steps):
        u = before[steps - 1 - k] * a + currents[steps - 1 - k] * b
        s = (u - c >= 0).to(acc)
        by_spike = tl.load(grad, mask=inside, other=0).to(acc)
        if k > 0 and not detach:  # nothing reads v after the last step: 0 times an infinite u must not make a NaN
            by_spike = by_spike - carry * (c if soft else u)
        g = by_spike * _surrogate(u - c, surrogate, width, acc, block)
        if k > 0:
            g = g + (carry if soft else carry * (1 - s))
        if repeat:
            by_x += g * b
        else:
            tl.store(grad_x, (g * b).to(grad_x.dtype.element_ty), mask=inside)
            grad_x -= n
        if leak is not None:
            by_gain += g * currents[steps - 1 - k]
            if k < steps - 1:  # no membrane before the first step
                by_decay += g * before[steps - 1 - k]
        carry = g * a
        grad -= n
    if repeat:
        tl.store(grad_x, by_x.to(grad_x.dtype.element_ty), mask=inside)
    if leak is not None:
        tl.store(sums + 2 * program, tl.sum(tl.where(inside, by_decay, 0), axis=0))
        tl.store(sums + 2 * program + 1, tl.sum(tl.where(inside, by_gain, 0), axis=0))
