"""The CUDA kernel: PyTorch tensors to the Triton of triton_lif.py and back. No normalisation and no second branch."""

import contextlib
from typing import Any

import torch
from torch import Tensor

from .spec import Branch, Dynamics, like, wide

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_MOST_STEPS = 64
_LAUNCH = {"num_warps": 4, "enable_fp_fusion": False}  # no fused multiply-add: spikes equal PyTorch's bit for bit


def obstacle(dtype: torch.dtype, dynamics: Dynamics, *, leak: bool = False) -> str | None:
    """Why the kernel cannot run for this type of data and these neurons, None if it can; builds it the first time."""
    if dtype not in _DTYPES:
        return f"the triton kernel does not take {str(dtype).removeprefix('torch.')}"
    if dynamics.steps > _MOST_STEPS:
        return f"the triton kernel unrolls at most {_MOST_STEPS} time steps, not {dynamics.steps}"
    try:
        from .triton_lif import lif_forward
    except ImportError as error:
        return f"triton cannot be imported: {_first_line(error)}"
    if torch.cuda.is_available():
        try:  # compiles and launches nothing
            constants = _constants(dtype, dynamics)
            lif_forward.warmup(dtype, torch.float32 if leak else None, dtype, 16, **constants, **_LAUNCH, grid=(1,))
        except Exception as error:  # a device too old, no C compiler for the launcher ...: PyTorch still runs
            return f"triton cannot build the neuron kernel: {_first_line(error)}"
    return None


def forward(x: Branch, r: Branch | None, leak: Tensor | None, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Spikes [T*B, ...] in the layout of x, and no statistics, [4, 0]."""
    from .triton_lif import lif_forward

    data = _current(x, r)
    spikes = like(data, (len(data) * dynamics.steps if dynamics.repeat else len(data), *data.shape[1:]))
    n = spikes.numel() // dynamics.steps
    constants = _constants(data.dtype, dynamics)
    if n:
        with _device(data):
            lif_forward[_programs(n, dynamics),](data, leak, spikes, n, **constants, **_LAUNCH)
    return spikes, data.new_empty((4, 0), dtype=wide(data.dtype))


def backward(
    grad: Tensor, x: Branch, r: Branch | None, leak: Tensor | None, stats: Tensor, dynamics: Dynamics
) -> list[Tensor]:
    """Gradients as `cpu.backward` returns them; of x and leak only, else empty."""
    from .triton_lif import lif_backward

    data = _current(x, r)
    n = grad.numel() // dynamics.steps
    programs = _programs(n, dynamics)
    grad_x = torch.empty_like(data)
    sums = None if leak is None else data.new_empty((programs, 2), dtype=wide(data.dtype))
    constants = _constants(data.dtype, dynamics)
    more = {"detach": dynamics.detach, "surrogate": dynamics.surrogate, "width": dynamics.width}
    if n:
        with _device(data):
            lif_backward[programs,](grad, data, leak, grad_x, sums, n, **constants, **more, **_LAUNCH)
    none, row = data.new_empty(0), stats.new_empty(0)
    grad_leak = none if leak is None or sums is None else sums.sum(0, dtype=torch.float64).to(leak.dtype)
    return [grad_x, row, row, none, row, row, grad_leak]


def _current(x: Branch, r: Branch | None) -> Tensor:
    assert (r, x.eps) == (None, None), "on CUDA PyTorch composes the current"
    return x.data


def _constants(dtype: torch.dtype, dynamics: Dynamics) -> dict[str, Any]:
    """What both kernels are compiled for."""
    from .triton_lif import ACC

    return {
        "steps": dynamics.steps,
        "repeat": dynamics.repeat,
        "decay": float(dynamics.decay),
        "gain": float(dynamics.gain),
        "threshold": float(dynamics.threshold),
        "soft": dynamics.soft,
        "acc": ACC[wide(dtype)],
        "block": _block(dynamics),
    }


def _block(dynamics: Dynamics) -> int:
    """Neurons of one program: fewer where more steps of each are kept in registers."""
    return max(128, 1024 * 4 // max(4, 1 << (dynamics.steps - 1).bit_length()))


def _programs(n: int, dynamics: Dynamics) -> int:
    return -(-n // _block(dynamics))


def _device(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
