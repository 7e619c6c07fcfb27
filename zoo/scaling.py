"""Gradient scaling by the causality of pre- and post-synaptic spikes.

Park et al. 2023, "Gradient Scaling on Deep Spiking Neural Networks with Spike-Dependent Local Information" (arXiv
2308.00558), scale the STBP weight gradient by spike-dependent local information. Its abstract names no equation: the
preset `causal_trace` follows the first author's published TensorFlow code, and that it is the paper's rule is an
inference. With spikes s, traces x, the layer's weight gradient g[t] of step t, and K(a, b) the layer's weight-gradient
operator for input a and output gradient b, summed over batch and positions:

    x[t] = k x[t-1] + s[t],  x[-1] = 0,  k = exp(-1)          for pre- and post-synaptic neurons alike
    E[t] = K(x_pre[t], x_post[t])                             coincidence, in the shape of the weight
    G[t] = (1 - alpha) + alpha E[t] / max E[t]                in [1 - alpha, 1]; 1 where max E[t] = 0
    dL/dW = sum_t G[t] g[t]                                   elementwise

Only the weight gradient is scaled, and only while training: forward, error passed down, biases and normalisation are
those of the plain layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor

from .errors import ZooError
from .specs import check_number, split_spec

WeightGradient = Callable[[Tensor, Tensor], Tensor]
"""K: (layer input [B, ...], gradient at the layer's output [B, ...]) -> gradient in the shape of the weight."""

TRACE_DECAY = math.exp(-1)
NONE = "none"
"""How model arguments spell None: timm drops keywords that are None, and a `_gs` model would fall back to its rule."""


class PostSpikes:
    """How a layer's backward learns of the spikes of the neurons that it drives, which its forward does not know yet.

    A block creates one, hands it to the layer, and ties the neurons' spikes to it. The layer leaves a token, a second
    output in the shape of the first; `tie` passes the spikes on, and in the backward pass sends them to the layer as
    "the gradient of the token". So they travel along autograd's graph like everything else, which holds for
    torch.compile, checkpointing and several forwards in flight alike.
    """

    __slots__ = ("token",)

    def __init__(self) -> None:
        self.token: Tensor | None = None

    def tie(self, spikes: Tensor, kept: Tensor | None = None) -> Tensor:
        """`spikes` [T*B, ...] themselves, tied to the layer if it left a token.

        Args:
            spikes: of the neurons behind the layer.
            kept: what to keep of them for backward, `layers.compact(spikes)`; themselves unless said.

        Raises:
            ZooError: they are not in the shape of the layer's output.
        """
        if self.token is None:
            return spikes
        if spikes.shape != self.token.shape:
            shapes = f"{tuple(spikes.shape)} do not match the output {tuple(self.token.shape)}"
            raise ZooError(f"post-synaptic spikes {shapes} of a layer with scaling")
        return _Tie.apply(spikes, self.token, spikes.detach() if kept is None else kept)


class _Tie(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, spikes: Tensor, token: Tensor, kept: Tensor) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.dtype = spikes.dtype
        return spikes.view_as(spikes)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return grad, ctx.saved_tensors[0].to(ctx.dtype), None


class Scaling(NamedTuple):
    """One gradient-scaling rule: a preset's name and its strength alpha, 0 <= alpha <= 1."""

    name: str
    alpha: float

    def weight_gradient(self, pre: Tensor, post: Tensor, error: Tensor, operator: WeightGradient) -> Tensor:
        """The scaled weight gradient of one layer.

        Args:
            pre: the layer's input spikes [T, B, ...].
            post: the spikes [T, B, ...] of the neurons that it drives, in the shape of the layer's output.
            error: gradient at the layer's output [T, B, ...].
            operator: the layer's weight-gradient operator K.
        """
        return _PRESETS[self.name](self.alpha, pre, post, error, operator)


def list_scalings() -> list[str]:
    """The names that the `scaling` keyword takes."""
    return list(_PRESETS)


def resolve_scaling(spec: str | Mapping[str, Any] | Scaling | None) -> Scaling | None:
    """Turn None or "none", a preset's name or `{"name": ..., "alpha": ...}` into a `Scaling`; alpha is 0.5 unless said.

    Raises:
        ZooError: unknown preset or key, or alpha outside [0, 1].
    """
    if spec is None or spec == NONE or isinstance(spec, Scaling):
        return spec if isinstance(spec, Scaling) else None
    name, given = split_spec("scaling", spec, [*list_scalings(), NONE], ["alpha"])
    return Scaling(name, check_number("scaling alpha", given.get("alpha", 0.5), 0, 1))


def trace(spikes: Tensor) -> Tensor:
    """Spike traces x[t] = k x[t-1] + s[t] of spikes [T, ...], k = exp(-1); same shape, float32 at least."""
    dtype = torch.promote_types(spikes.dtype, torch.float32)
    out = spikes.to(dtype, copy=True)
    for t in range(1, len(out)):
        out[t].add_(out[t - 1], alpha=TRACE_DECAY)
    return out


def _causal_trace(alpha: float, pre: Tensor, post: Tensor, error: Tensor, operator: WeightGradient) -> Tensor:
    # Sums over batch and positions overflow float16 at 65,504. G does not depend on the traces' scale, and a power of
    # two changes no digit: bring the largest possible sum near 1.
    scale = 2.0 ** -round(math.log2(post[0].numel() / post.shape[2]) / 2)
    x_pre, x_post = ((trace(spikes) * scale).to(error.dtype) for spikes in (pre, post))
    steps = range(len(error))
    evidence = _sum_over_ranks(torch.stack([_wide(operator(x_pre[t], x_post[t])) for t in steps]))
    largest = evidence.flatten(1).amax(1).view(-1, *[1] * (evidence.dim() - 1))
    # No coincidence, no information: G = 1.
    relative = torch.where(largest > 0, evidence / largest, 1)
    gradients = torch.stack([_wide(operator(pre[t], error[t])) for t in steps])
    return ((1 - alpha + alpha * relative) * gradients).sum(0)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _sum_over_ranks(evidence: Tensor) -> Tensor:
    # Coincidences are sums over the batch: the ranks of a data-parallel run add theirs before the maximum is taken, so
    # that N processes compute what one would.
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(evidence)
    return evidence


_PRESETS: dict[str, Callable[[float, Tensor, Tensor, Tensor, WeightGradient], Tensor]] = {"causal_trace": _causal_trace}
