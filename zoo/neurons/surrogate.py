"""Surrogate derivatives of the spike, by name.

A spike is the Heaviside step of x = membrane potential - threshold; its derivative is zero almost everywhere. Training
replaces the derivative by a bump of unit area, `phi(x / width) / width` (STBP: Wu et al. 2018, arXiv 1706.02609, eq. 20
onward; the term surrogate gradient: Neftci et al. 2019, arXiv 1901.09948). Every surrogate here has that one parameter.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from ..errors import ZooError
from ..plugins import check_new
from ..specs import Spec, check_positive, split_spec

Derivative = Callable[[Tensor, float], Tensor]


def triangle(x: Tensor, width: float) -> Tensor:
    """max(0, 1 - |x| / width) / width: half-base `width`. Esser et al. 2016 (arXiv 1603.08270); width 1 is TET's."""
    return torch.clamp(1 - x.abs() / width, min=0) / width


def rectangle(x: Tensor, width: float) -> Tensor:
    """1 / width where |x| < width / 2, else 0: full base `width`. STBP's h1, Wu et al. 2018 (arXiv 1706.02609)."""
    return (x.abs() < width / 2).to(x.dtype) / width


def arctan(x: Tensor, width: float) -> Tensor:
    """1 / (width (1 + (pi x / width)^2)); width = 2 / alpha of Fang et al. 2021 (PLIF, arXiv 2007.05785)."""
    return 1 / (width * (1 + (math.pi / width * x).square()))


def sigmoid(x: Tensor, width: float) -> Tensor:
    """s (1 - s) / width, s = sigmoid(x / width); width = 1 / alpha. STBP's h3, Wu et al. 2018 (arXiv 1706.02609)."""
    s = torch.sigmoid(x / width)
    return s * (1 - s) / width


# name -> (derivative, default width): TET's, STBP's, PLIF's (alpha 2), and SpikingJelly's (alpha 4).
_SURROGATES: dict[str, tuple[Derivative, float]] = {
    "triangle": (triangle, 1.0),
    "rectangle": (rectangle, 1.0),
    "arctan": (arctan, 1.0),
    "sigmoid": (sigmoid, 0.25),
}


class Surrogate(NamedTuple):
    """A named surrogate derivative with its width, in units of membrane potential."""

    name: str
    width: float

    def derivative(self, x: Tensor) -> Tensor:
        """Returns the surrogate of d spike / d x at x = membrane potential - threshold; same shape and dtype as `x`."""
        return _SURROGATES[self.name][0](x, self.width)

    def spike(self, x: Tensor) -> Tensor:
        """1 where x >= 0, else 0, in the dtype of `x`; differentiates to `derivative`."""
        return _Spike.apply(x, self)


class SeenBy(Surrogate):
    """A surrogate that also appends each x, detached, to the list `seen`."""

    seen: list[Tensor]

    def spike(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach())
        return super().spike(x)


def list_surrogates() -> list[str]:
    """Returns the names that the `surrogate` keyword takes."""
    return list(_SURROGATES)


def register_surrogate(name: str, *, width: float = 1.0) -> Callable[[Derivative], Derivative]:
    """Decorator: makes `derivative(x, width)` a surrogate derivative under a name, to be used like ours.

    >>> @zoo.register_surrogate("gaussian", width=0.5)
    ... def gaussian(x, width):  # x = membrane potential - threshold, of any shape
    ...     return torch.exp(-(x / width).square() / 2) / (width * math.sqrt(2 * math.pi))

    It gives finite values in the shape and type of `x`, which it leaves as they are. No fused kernel knows it: with the
    kernel "auto", neurons that use it run in plain PyTorch, and say so once.

    Args:
        name: letters, digits and _.
        width: what it is called with where a network does not say another, in units of membrane potential.

    Raises:
        ZooError: a name that is taken, a width that is not above 0, or no function.
    """
    check_new("surrogate", name)
    check_positive(f"the width of surrogate {name!r}", width)

    def register(derivative: Derivative) -> Derivative:
        check_new("surrogate", name, derivative, _SURROGATES[name][0] if name in list_surrogates() else None)
        if not callable(derivative):
            raise ZooError(f"surrogate {name!r} takes a function (x, width) -> derivative, not {derivative!r}")
        _SURROGATES[name] = derivative, float(width)
        return derivative

    return register


def resolve_surrogate(spec: Spec | Surrogate) -> Surrogate:
    """Turns a name or `{"name": ..., "width": ...}` into a `Surrogate`; the width is a positive finite number."""
    if isinstance(spec, Surrogate):
        return spec
    name, given = split_spec("surrogate", spec, {name: ["width"] for name in _SURROGATES})
    return Surrogate(name, check_positive("surrogate width", given.get("width", _SURROGATES[name][1])))


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, surrogate: Surrogate) -> Tensor:
        return (x >= 0).to(x.dtype)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, Surrogate], output: Tensor) -> None:
        x, ctx.surrogate = inputs  # type: ignore[attr-defined]
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grad * ctx.surrogate.derivative(x), None
