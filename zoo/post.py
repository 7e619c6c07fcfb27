"""How the spikes of the neurons behind a layer reach the layer's backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .errors import ZooError


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
