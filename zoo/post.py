"""How a layer's backward pass learns of the spikes of the neurons behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .errors import ZooError


class PostSpikes:
    """How a layer's backward learns of the spikes of the neurons that it drives, which its forward does not know yet.

    A block creates one, hands it to the layer, and ties the neurons' spikes to it. The layer leaves a token, a second
    output; `tie` passes the spikes on, and in the backward pass sends what the layer wants to know of them (the factor
    of its weight gradient, or the spikes themselves) as "the gradient of the token". So it travels along autograd's
    graph like everything else, which holds for torch.compile, checkpointing and several forwards in flight alike.
    """

    __slots__ = ("factor", "output", "token")

    def __init__(self) -> None:
        self.token: Tensor | None = None
        self.output: torch.Size | None = None
        """Shape of the layer's output, and so of the spikes."""
        self.factor: Callable[[Tensor], Tensor] | None = None
        """What to send of the spikes; None for themselves."""

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
        if spikes.shape != self.output:
            shapes = f"{tuple(spikes.shape)} do not match the output {tuple(self.output or ())}"
            raise ZooError(f"post-synaptic spikes {shapes} of a layer with scaling")
        told = spikes.detach() if kept is None else kept
        if self.factor is None:
            told = told.view(self.token.shape)
        else:
            with torch.no_grad():
                told = self.factor(told).to(self.token.dtype)
        return _Tie.apply(spikes, self.token, told)


class _Tie(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, spikes: Tensor, token: Tensor, told: Tensor) -> Tensor:
        ctx.save_for_backward(told)
        ctx.dtype = token.dtype
        return spikes.view_as(spikes)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return grad, ctx.saved_tensors[0].to(ctx.dtype), None
