"""Compiles the Triton kernel for real GPUs, without one: for the compute capabilities given, e.g. 80 90.

The interpreter (triton_parity.py) accepts Python that Triton's compiler does not; and only machine code shows
whether multiply and add stay apart. Exits with 1 and prints what is wrong.
"""

import re
import sys

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from zoo.kernels import triton_lif
from zoo.kernels.lif import Dynamics, wide
from zoo.neurons.surrogate import list_surrogates

N = 3 * 1024


class StandIn:
    """What Triton asks of a driver before it launches anything."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return self.target.arch

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_kernels(dtype: torch.dtype, neuron: Dynamics, leak: torch.dtype | None) -> list[str]:
    """What is wrong with the code of both kernels."""
    numbers = triton_lif._constants(dtype, neuron) | triton_lif._LAUNCH
    more = {"detach": neuron.detach, "surrogate": neuron.surrogate, "width": neuron.width}
    sums = leak and wide(dtype)
    kernels = [
        triton_lif._lif_forward.warmup(dtype, leak, dtype, N, **numbers, grid=(1,)),
        triton_lif._lif_backward.warmup(dtype, dtype, leak, dtype, sums, N, **numbers, **more, grid=(1,)),
    ]
    problems = []
    for kernel in kernels:
        ptx = kernel.asm["ptx"]
        # An add or mul without .rn may be fused by ptxas. In float64 exp and division are themselves made of fma.
        fused = set(re.findall(r"\bfma\.\S+|\b(?:add|sub|mul)(?:\.ftz)?\.f(?:32|64)", ptx))
        if fused and not (dtype is torch.float64 and kernel is kernels[1]):
            problems.append(f"{kernel.name} {dtype} {neuron}: {sorted(fused)}")
        if not re.search(r"ld\.global\S*\.v[24]\.", ptx):
            problems.append(f"{kernel.name} {dtype} {neuron}: no vector loads")
    return problems


def main() -> int:
    problems = []
    torch.cuda.is_available = lambda: True
    for capability in map(int, sys.argv[1:]):
        driver.set_active(StandIn(capability))
        for i, surrogate in enumerate(list_surrogates()):
            dtype = (torch.float32, torch.bfloat16, torch.float16, torch.float64)[i]
            for odd in (False, True):
                neuron = Dynamics(4, odd, 0.3, 0.7, 1.0, (i % 2 == 0) == odd, odd, surrogate, 0.5)
                problems += compile_kernels(dtype, neuron, torch.float32 if i < 2 else None)
            triton_lif.prepare(dtype, neuron, leak=i < 2)
        print(f"sm_{capability}: {len(problems)} problems", *problems, sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
