"""The Triton kernel against the reference, value for value; alone with TRITON_INTERPRET=1 it runs on a CPU.

Exits with 1 and prints what differs. test_triton.py starts it, and takes its functions to a CUDA device.
"""

import itertools
import random
import sys
import time
import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.kernels.lif import KERNELS, wide
from zoo.neurons.lif import LIF, PLIF
from zoo.neurons.surrogate import list_surrogates

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
Result = tuple[Tensor, Tensor, Tensor | None]  # spikes, gradient of x, gradient of PLIF's parameter


class Case(NamedTuple):
    dtype: torch.dtype
    steps: int
    soft: bool
    detach: bool
    surrogate: str
    learnt: bool  # PLIF
    gain: bool  # decay_input
    repeat: bool
    decay: float
    threshold: float
    shape: tuple[int, ...]  # of one step
    special: bool  # some currents are infinite or NaN

    def layer(self, device: str, kernel: str) -> LIF:
        cls = PLIF if self.learnt else LIF
        return cls(
            self.steps,
            decay=self.decay,
            threshold=self.threshold,
            reset="soft" if self.soft else "hard",
            decay_input=self.gain,
            detach_reset=self.detach,
            surrogate=self.surrogate,
            kernel=kernel,
        ).to(device, wide(self.dtype))

    def data(self, device: str) -> tuple[Tensor, Tensor]:
        """Currents, half of them on a grid where membranes meet the threshold exactly, and a gradient of the spikes."""
        g = torch.Generator().manual_seed(0)
        rows = self.shape[0] * self.steps
        shape = (self.shape[0] if self.repeat else rows, *self.shape[1:])
        x = torch.randn(shape, generator=g) + 0.3
        ties = torch.randint(-8, 13, shape, generator=g) / 8
        x = torch.where(torch.rand(shape, generator=g) < 0.5, x, ties)
        if self.special:
            which = torch.randint(0, 40, shape, generator=g)
            for i, value in enumerate((float("inf"), float("-inf"), float("nan"))):
                x[which == i] = value
        grad = torch.randn((rows, *self.shape[1:]), generator=g)
        x, grad = (t.to(device, self.dtype) for t in (x, grad))
        if len(shape) == 4:
            x, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad))
        return x, grad


def cases() -> list[Case]:
    """Every kind of dynamics with every number of steps in float32, a quarter in other types; the rest drawn."""
    draw = random.Random(0)
    shapes = [(3,), (1000,), (1025,), (2, 3, 4, 5), (1, 2560)]
    flags = [False, True]
    return [
        Case(
            *fixed,
            gain=draw.random() < 0.5,
            repeat=draw.random() < 0.4,
            decay=draw.choice([0.5, 0.3, 0.8]),
            threshold=draw.choice([1.0, 0.7]),
            shape=draw.choice(shapes),
            special=draw.random() < (0.2 if fixed[-1] else 0.6),  # one NaN hides PLIF's whole gradient
        )
        for fixed in itertools.product(DTYPES, [1, 2, 4, 5], flags, flags, list_surrogates(), flags)
        if fixed[0] is torch.float32 or draw.random() < 0.25
    ]


def run_layer(layer: LIF, x: Tensor, grad: Tensor, repeat: bool) -> Result:
    """Through autograd."""
    x = x.detach().requires_grad_()
    spikes = layer(x, repeat=repeat)
    spikes.backward(grad)
    return spikes.detach(), x.grad, layer.w.grad if isinstance(layer, PLIF) else None


def compare(case: Case, device: str) -> list[str]:
    """What differs between the fused layer and the reference."""
    x, grad = case.data(device)
    spikes, grad_x, grad_w = run_layer(case.layer(device, "fused"), x, grad, case.repeat)
    reference = case.layer(device, "reference")
    with torch.no_grad():
        expected = reference(x, repeat=case.repeat)
    # Gradients are computed in the wide type and rounded once, those of 16-bit data too.
    _, by_x, by_w = run_layer(reference, x.to(wide(x.dtype)), grad.to(wide(x.dtype)), case.repeat)
    exact = {torch.float32: 1e-6, torch.float64: 1e-12}.get(x.dtype)
    rtol, atol = (torch.finfo(x.dtype).eps, 1e-6) if exact is None else (exact, exact)
    if case.surrogate == "sigmoid":  # the reference's s (1 - s) cancels where s is near 1; the kernel's form does not
        atol *= 4
    problems = differs("spikes", spikes, expected, 0, 0) + differs(
        "gradient of x", grad_x, by_x.to(x.dtype), rtol, atol
    )
    if grad_w is not None:
        exact = exact or 1e-6  # a sum over all neurons, in whatever order
        by_w = torch.zeros_like(grad_w) if by_w is None else by_w  # one step without gain: w takes no part
        problems += differs("gradient of w", grad_w, by_w, exact, exact * spikes.numel() ** 0.5)
    return [f"{case}: {problem}" for problem in problems]


def differs(what: str, got: Tensor, expected: Tensor, rtol: float, atol: float) -> list[str]:
    if (got.dtype, got.shape, got.stride()) != (expected.dtype, expected.shape, expected.stride()):
        return [f"{what}: {got.dtype} {got.shape} {got.stride()}, not {expected.dtype} {expected.shape}"]
    a, b = got.double(), expected.double()
    wrong = ~torch.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
    if not wrong.any():
        return []
    return [f"{what}: {int(wrong.sum())} of {wrong.numel()}, e.g. {a[wrong][:4].tolist()}, not {b[wrong][:4].tolist()}"]


def main() -> int:
    warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, of infinite and NaN currents in the interpreter
    KERNELS["cpu"] = KERNELS["cuda"]
    start, problems = time.time(), []
    chosen = cases()[:: int(sys.argv[1])]
    for case in chosen:
        problems += compare(case, "cpu")
    print("\n".join(problems[:20]))
    print(f"{len(chosen)} cases, {len(problems)} differences, {time.time() - start:.0f} s")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
