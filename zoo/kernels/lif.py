"""The fused kernels of LIF layers: which there are, what they are given, and the PyTorch operators that run them.

An operator (`snnzoo::lif`, its backward, `snnzoo::weighted_steps`) is one node to autograd and torch.compile, whatever
runs inside; its outputs keep the layout of its input. Autograd joins forward and backward by a Function, which
torch.compile traces; an eager call goes straight to the kernel, because PyTorch's dispatcher takes longer over these
many arguments than a small layer takes to compute.
"""

import importlib
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.amp.autocast_mode import is_autocast_available
from torch.autograd.function import once_differentiable

SURROGATES = ["triangle", "rectangle", "arctan", "sigmoid"]
"""Those that the kernels know, numbered as in lif.cpp; zoo/neurons/surrogate.py has the formulas."""


class Kernel(NamedTuple):
    """What runs LIF layers on a type of device, and what it can run."""

    name: str
    module: str
    """The file here with its `prepare`, `forward` and `backward`, imported on first use: Triton is not everywhere."""
    dtypes: tuple[torch.dtype, ...]
    """Types of the input currents."""
    most_steps: int
    """Time steps, which it unrolls."""
    whole_current: bool
    """Whether it computes normalisation and sum in front of the neurons, too; else PyTorch does."""

    def code(self) -> Any:
        """Returns the module; ImportError where something that it needs is not installed."""
        return importlib.import_module(f".{self.module}", __package__)


KERNELS = {
    "cpu": Kernel("cpp", "cpu", (torch.float32, torch.float64, torch.bfloat16), 16, True),
    "cuda": Kernel("triton", "triton_lif", (torch.float32, torch.float64, torch.bfloat16, torch.float16), 64, False),
}
"""By type of device."""


class Dynamics(NamedTuple):
    """A LIF layer in numbers: u = decay v + gain i, and what follows from u (see `zoo.neurons.lif`)."""

    steps: int
    repeat: bool
    """The current is given once, [B, ...], and the same at every step."""
    decay: float
    gain: float
    threshold: float
    soft: bool
    detach: bool
    surrogate: str
    width: float


class Branch(NamedTuple):
    """One summand of the current, [T*B, C, ...], with the batch normalisation in front of it."""

    data: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None
    mean: Tensor | None = None
    """Frozen statistics [C]; None to take the batch's."""
    var: Tensor | None = None
    eps: float | None = None
    """None where nothing is normalised."""


def plain_lif(steps: int) -> Dynamics:
    return Dynamics(steps, False, 0.5, 1.0, 1.0, False, True, SURROGATES[0], 1.0)


@torch.compiler.assume_constant_result
def has_autocast(device: str) -> bool:
    """Whether a type of device has autocast, and may be asked for it; PyTorch 2.11 cannot compile the question."""
    return is_autocast_available(device)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Returns the type of membranes and statistics: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def layout_of(x: Tensor) -> torch.memory_format:
    """channels_last if `x` lies so and not also contiguously, else contiguous."""
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def like(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Returns an empty tensor of another shape in the layout of `x`."""
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout_of(x))


def fused_lif(x: Branch, r: Branch | None, leak: Tensor | None, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """LIF neurons over the sum of one or two branches, in one pass over the data.

    Args:
        x: currents [T*B, ...] ([B, ...] with `dynamics.repeat`), of a type that the device's kernel takes; its layout
            is kept. With normalisation the second axis is the channels; that, and r, take a kernel of whole currents.
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
    return torch.ops.snnzoo.weighted_steps(spikes, weights, dtype)


_INPUTS = (
    "Tensor x, Tensor? weight, Tensor? bias, Tensor? mean, Tensor? var, float? eps, "
    "Tensor? r, Tensor? r_weight, Tensor? r_bias, Tensor? r_mean, Tensor? r_var, float? r_eps, Tensor? leak, "
    "int steps, bool repeat, float decay, float gain, float threshold, bool soft, bool detach, str surrogate, "
    "float width"
)
_NUMBERS = 13  # where the numbers of a neuron begin among them


def _unpack(inputs: tuple[Any, ...]) -> tuple[Branch, Branch | None, Tensor | None, Dynamics]:
    layout = layout_of(inputs[0])
    x, r = (
        None if inputs[i] is None else Branch(inputs[i].contiguous(memory_format=layout), *inputs[i + 1 : i + 6])
        for i in (0, 6)
    )
    assert x is not None
    return x, r, inputs[12], Dynamics(*inputs[_NUMBERS:])


def _forward(*inputs: Any) -> tuple[Tensor, Tensor]:
    return KERNELS[inputs[0].device.type].code().forward(*_unpack(inputs))


def _backward(grad: Tensor, stats: Tensor, *inputs: Any) -> list[Tensor]:
    x, r, leak, dynamics = _unpack(inputs)
    grad = grad.contiguous(memory_format=layout_of(x.data))
    return KERNELS[grad.device.type].code().backward(grad, x, r, leak, stats, dynamics)


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


_LIBRARY = torch.library.Library("snnzoo", "DEF")
for _schema, _devices, _run, _shapes in (
    (f"lif({_INPUTS}) -> (Tensor spikes, Tensor stats)", KERNELS, _forward, _forward_shapes),
    (f"lif_backward(Tensor grad, Tensor stats, {_INPUTS}) -> Tensor[]", KERNELS, _backward, _backward_shapes),
    (
        "weighted_steps(Tensor spikes, float[] weights, ScalarType dtype) -> Tensor",
        ["cpu"],
        lambda *inputs: KERNELS["cpu"].code().weighted_steps(*inputs),
        lambda x, weights, dtype: like(x[0], x.shape[1:]).to(dtype),
    ),
):
    _LIBRARY.define(_schema)
    _name = _schema.split("(")[0]
    for _device in _devices:
        _LIBRARY.impl(_name, _run, _device.upper())
    torch.library.register_fake(f"snnzoo::{_name}", _shapes, lib=_LIBRARY)


def is_eager(x: Tensor) -> bool:
    """Returns whether the kernel is called as it is; where PyTorch traces, all that computes must be an operator."""
    tracing = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._len_torch_dispatch_stack()
    return not tracing and type(x) is Tensor


class _LIF(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        spikes, stats = (_forward if is_eager(inputs[0]) else torch.ops.snnzoo.lif)(*inputs)
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
        run = _backward if is_eager(grad) else torch.ops.snnzoo.lif_backward
        g = run(grad.to(tensors[0].dtype), stats, *inputs)

        def given(i: int, grad: Tensor) -> Tensor | None:
            return None if inputs[i] is None else grad

        x = (g[0], given(1, g[1]), given(2, g[2]), None, None, None)
        r = (given(6, g[3]), given(7, g[4]), given(8, g[5]), None, None, None)
        return (*x, *r, given(12, g[6]), *[None] * len(dynamics))
