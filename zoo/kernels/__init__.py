"""Which code runs a layer: the plain reference, or a kernel that equals it.

The keyword `kernel` of a neuron or network decides, or, where that is "auto", the environment variable SNNZOO_KERNEL:

    auto        the fused kernel where there is one for the device and the type of data, else the reference
    fused       the fused kernel; an error where there is none
    reference   plain PyTorch

Fused kernels (lif.py has their table): "cpp" on a CPU (cpu.py and lif.cpp, built on first use by the machine's C++
compiler, then cached), "triton" on CUDA (triton_lif.py).

Convolutions over spikes have one, too, "event" (event.py, event.cpp), which skips zeros. It adds up float32 in another
order, so that it equals the reference up to rounding, and runs where it is asked for: inside `zoo.event_driven`.
"""

import functools
import os
import warnings
from typing import Any

import torch
from torch import Tensor

from ..errors import ZooError, one_line, one_of
from . import event
from .lif import KERNELS, SURROGATES, Dynamics, plain_lif

REFERENCE, VARIABLE = "reference", "SNNZOO_KERNEL"


def list_kernels() -> list[str]:
    """Returns the values that the `kernel` keyword takes."""
    return ["auto", "fused", REFERENCE]


def can_weigh_steps(spikes: Tensor, dtype: torch.dtype) -> bool:
    """Whether `weighted_steps` takes these spikes [T, ...], and SNNZOO_KERNEL does not ask for the reference."""
    return spikes.dtype in (torch.int8, dtype) and spikes.device.type == "cpu" and _weighs(len(spikes), dtype)


@torch.compiler.assume_constant_result
def _weighs(steps: int, dtype: torch.dtype) -> bool:
    return os.environ.get(VARIABLE) != REFERENCE and _obstacle("cpu", dtype, plain_lif(steps), False) is None


def pick_kernel(
    kernel: str, device: str, dtype: torch.dtype, dynamics: Dynamics, *, leak: bool = False, potential: bool = False
) -> str:
    """Returns the name of the code that runs a layer of neurons: "reference", "cpp" or "triton".

    Args:
        kernel: as in `list_kernels`; device: "cpu", "cuda" ...; dtype: of the input currents.
        leak: decay and gain come as a tensor, which takes another build of the kernel.
        potential: the membrane potential is wanted, which no fused kernel keeps.

    Raises:
        ZooError: an unknown value, or "fused" where no fused kernel runs; the message says why.
    """
    # The choice hangs on whether there is a gain, on no other of these numbers, which torch.compile may not know.
    gain = 1.0 if dynamics.gain == 1 else 0.5
    return _pick(
        kernel, device, dtype, leak, potential, *dynamics._replace(decay=0.5, gain=gain, threshold=1.0, width=1.0)
    )


@torch.compiler.assume_constant_result  # of constants: a compiled network keeps the kernel it was traced with
def asked_kernel(kernel: str) -> str:
    """Returns what is asked for, by the keyword or, where that is "auto", by SNNZOO_KERNEL: one of `list_kernels`."""
    if kernel not in list_kernels():
        raise one_of("kernel", kernel, list_kernels())
    if kernel == "auto":
        kernel = os.environ.get(VARIABLE) or "auto"
        if kernel not in list_kernels():
            raise one_of(f"value of {VARIABLE}", kernel, list_kernels())
    return kernel


@torch.compiler.assume_constant_result
def _pick(kernel: str, device: str, dtype: torch.dtype, leak: bool, potential: bool, *numbers: Any) -> str:
    kernel = asked_kernel(kernel)
    if kernel == REFERENCE or torch.onnx.is_in_onnx_export():  # which knows PyTorch's own operators
        return REFERENCE
    kept = "a rule of gradient scaling reads membrane potentials, which fused kernels do not keep"
    if (obstacle := kept if potential else _obstacle(device, dtype, Dynamics(*numbers), leak)) is None:
        return KERNELS[device].name
    if kernel == "fused":
        raise ZooError(f"no fused neuron kernel runs here: {obstacle}; kernel 'auto' or 'reference' runs without one")
    _announce(obstacle)
    return REFERENCE


@functools.cache
def _obstacle(device: str, dtype: torch.dtype, dynamics: Dynamics, leak: bool) -> str | None:
    """What keeps the fused kernel of a device from running, None for nothing; builds the kernel the first time."""
    if device not in KERNELS:
        return f"there is none for device {device}"
    kernel = KERNELS[device]
    if dynamics.surrogate not in SURROGATES:  # of a user's: no kernel may compute another in its place
        return f"the {kernel.name} kernel does not know the surrogate {dynamics.surrogate!r}"
    if dtype not in kernel.dtypes:
        return f"the {kernel.name} kernel does not take {str(dtype).removeprefix('torch.')}"
    if dynamics.steps > kernel.most_steps:
        return f"the {kernel.name} kernel unrolls at most {kernel.most_steps} time steps, not {dynamics.steps}"
    try:
        kernel.code().prepare(dtype, dynamics, leak)
    except ImportError as error:
        return f"{kernel.name} cannot be imported: {one_line(error)}"
    except ZooError as error:
        return str(error)
    return None


def skips_zeros(kernel: str) -> bool:
    """Returns whether there is code that skips zeros in a convolution over spikes, for float32 on a CPU; says why not.

    Args:
        kernel: as in `list_kernels`; "fused" asks for fused neurons, and is "auto" here.
    """
    if asked_kernel(kernel) == REFERENCE:
        return False
    if (obstacle := _event_obstacle()) is not None:
        _announce(obstacle, "convolutions multiply zeros, too, slower")
    return obstacle is None


@functools.cache
def _event_obstacle() -> str | None:
    try:
        event.prepare()
    except ZooError as error:
        return str(error)
    return None


@functools.cache
def _announce(obstacle: str, what: str = "spiking neurons run in plain PyTorch, slower and with more memory") -> None:
    warnings.warn(
        f"{what}: {obstacle}. {VARIABLE}={REFERENCE} asks for that and hides this message.",
        stacklevel=2,
    )
