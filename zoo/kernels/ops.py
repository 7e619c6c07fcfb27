"""The kernels as PyTorch operators, `snnzoo::lif`, its backward, `snnzoo::weighted_steps`: what autograd and
torch.compile see.

An operator is one node to them, whatever runs inside; its outputs keep the layout of its input. Autograd joins the two
by a Function, which torch.compile traces; an eager call goes straight to the kernel, because PyTorch's dispatcher takes
longer over these many arguments than a small layer takes to compute.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import cpu, gpu
from .spec import Branch, Dynamics, dense, layout_of, like, wide

_INPUTS = (
    "Tensor x, Tensor? weight, Tensor? bias, Tensor? mean, Tensor? var, float? eps, "
    "Tensor? r, Tensor? r_weight, Tensor? r_bias, Tensor? r_mean, Tensor? r_var, float? r_eps, Tensor? leak, "
    "int steps, bool repeat, float decay, float gain, float threshold, bool soft, bool detach, str surrogate, "
    "float width"
)
_LIBRARY = torch.library.Library("snnzoo", "DEF")
_LIBRARY.define(f"lif({_INPUTS}) -> (Tensor spikes, Tensor stats)")
_LIBRARY.define(f"lif_backward(Tensor grad, Tensor stats, {_INPUTS}) -> Tensor[]")
_LIBRARY.define("weighted_steps(Tensor spikes, float[] weights, ScalarType dtype) -> Tensor")
_KERNELS: dict[str, Any] = {"cpu": cpu, "cuda": gpu}
_NUMBERS = 13  # where the numbers of a neuron begin among the inputs


def fused_lif(x: Branch, r: Branch | None, leak: Tensor | None, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """LIF neurons over the sum of one or two branches, in one pass over the data.

    Args:
        x: currents [T*B, ...] ([B, ...] with `dynamics.repeat`), of a type that the device's kernel takes; its layout
            is kept. With normalisation the second axis is the channels, and only the CPU's kernel takes it, or r.
        r: a second summand of the same shape and type.
        leak: decay and gain [2] as a tensor that wants gradients, in place of the neuron's numbers.
        dynamics: of the neurons.

    Returns:
        The spikes [T*B, C, ...], and the statistics of the batch [4, C]: mean and biased variance of x, then of r
        (without normalisation [4, 0]).
    """
    return _LIF.apply(*x, *(r or (None,) * 6), leak, *dynamics)


def weighted_steps(spikes: Tensor, weights: list[float], dtype: torch.dtype) -> Tensor:
    """sum_t weights[t] spikes[t] of spikes [T, ...] on the CPU, in int8 or `dtype`; in `dtype`, in one pass."""
    result: Tensor = torch.ops.snnzoo.weighted_steps(spikes, weights, dtype)
    return result


def _unpack(inputs: tuple[Any, ...]) -> tuple[Branch, Branch | None, Tensor | None, Dynamics]:
    layout = layout_of(inputs[0])
    x, r = (Branch(*inputs[i : i + 6]) if inputs[i] is not None else None for i in (0, 6))
    assert x is not None
    x = x._replace(data=dense(x.data, layout))
    r = r and r._replace(data=dense(r.data, layout))
    return x, r, inputs[12], Dynamics(*inputs[_NUMBERS:])


def _forward(kernel: Any) -> Callable[..., tuple[Tensor, Tensor]]:
    return lambda *inputs: kernel.forward(*_unpack(inputs))


def _backward(kernel: Any) -> Callable[..., list[Tensor]]:
    def backward(grad: Tensor, stats: Tensor, *inputs: Any) -> list[Tensor]:
        x, r, leak, dynamics = _unpack(inputs)
        return kernel.backward(dense(grad, layout_of(x.data)), x, r, leak, stats, dynamics)

    return backward


def _forward_shapes(*inputs: Any) -> tuple[Tensor, Tensor]:
    x, r, _, dynamics = _unpack(inputs)
    rows = x.data.shape[0] * (dynamics.steps if dynamics.repeat else 1)
    normalised = x.eps is not None or (r is not None and r.eps is not None)
    stats = x.data.new_empty((4, x.data.shape[1] if normalised else 0), dtype=wide(x.data.dtype))
    return like(x.data, (rows, *x.data.shape[1:])), stats


def _backward_shapes(grad: Tensor, stats: Tensor, *inputs: Any) -> list[Tensor]:
    x, r, leak, _ = _unpack(inputs)
    none, rows = x.data.new_empty(0), [stats.new_empty(stats.shape[1]) for _ in range(4)]
    grad_r = none if r is None else torch.empty_like(r.data)
    grad_leak = none if leak is None else torch.empty_like(leak)
    return [torch.empty_like(x.data), rows[0], rows[1], grad_r, rows[2], rows[3], grad_leak]


def _eager_kernel(x: Tensor) -> Any:
    """The kernel to call as it is; None where PyTorch traces, for which all that computes is an operator."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._len_torch_dispatch_stack():
        return None
    return _KERNELS[x.device.type] if type(x) is Tensor else None


class _LIF(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        kernel = _eager_kernel(inputs[0])
        spikes, stats = _forward(kernel)(*inputs) if kernel else torch.ops.snnzoo.lif(*inputs)
        ctx.numbers = inputs[5], inputs[11], inputs[_NUMBERS:]
        ctx.save_for_backward(stats, *inputs[:5], *inputs[6:11], inputs[12])
        ctx.mark_non_differentiable(stats)
        return spikes, stats

    @staticmethod
    @once_differentiable  # the kernel's gradients have no graph: a second derivative would be a wrong number
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        stats, *tensors = ctx.saved_tensors
        eps, r_eps, dynamics = ctx.numbers
        inputs = (*tensors[:5], eps, *tensors[5:10], r_eps, tensors[10], *dynamics)
        kernel = _eager_kernel(grad)
        run = _backward(kernel) if kernel else torch.ops.snnzoo.lif_backward
        g = run(grad.to(tensors[0].dtype), stats, *inputs)

        def given(i: int, grad: Tensor) -> Tensor | None:
            return None if inputs[i] is None else grad

        x = (g[0], given(1, g[1]), given(2, g[2]), None, None, None)
        r = (given(6, g[3]), given(7, g[4]), given(8, g[5]), None, None, None)
        return (*x, *r, given(12, g[6]), *[None] * len(dynamics))


for device, module in _KERNELS.items():
    _LIBRARY.impl("lif", _forward(module), device.upper())
    _LIBRARY.impl("lif_backward", _backward(module), device.upper())
_LIBRARY.impl("weighted_steps", cpu.weighted_steps, "CPU")
torch.library.register_fake(
    "snnzoo::weighted_steps", lambda x, weights, dtype: torch.empty_like(x[0], dtype=dtype), lib=_LIBRARY
)
torch.library.register_fake("snnzoo::lif", _forward_shapes, lib=_LIBRARY)
torch.library.register_fake("snnzoo::lif_backward", _backward_shapes, lib=_LIBRARY)
