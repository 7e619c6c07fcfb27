"""What every network of the zoo has beside its layers."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .layers import unfold_steps
from .neuron import LIF
from .norm import statistics_kept


class SpikingNetwork(nn.Module):
    """Base of the zoo's networks: a pure function from images to logits, time folded into the batch inside.

    A subclass sets timesteps, num_classes, num_features, in_chans and model_args, and defines `forward_features` and
    `forward_head`; the registry sets the rest.
    """

    timesteps: int
    num_classes: int
    num_features: int
    in_chans: int
    model_args: dict[str, Any]
    """The keywords that rebuild this network, JSON values."""
    pretrained_cfg: dict[str, Any]
    """timm's: input size, mean, std, labels, tag."""
    weights_sha256: str | None = None
    """Of the weights file that was loaded."""
    training_args: dict[str, Any] | None = None
    """The recipe behind the weights that were loaded."""
    grad_checkpointing = False

    def forward(self, x: Tensor, per_step: bool = False) -> Tensor:
        """Images [B, C, H, W] to logits [B, classes], or those of every time step [T, B, classes] if `per_step`."""
        logits = unfold_steps(self.forward_head(self.forward_features(x)), self.timesteps)
        return logits if per_step else logits.mean(0)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] to the spikes [T*B, C', H', W'] in front of the head."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Spikes [T*B, C, H, W] to logits [T*B, classes], or to the classifier's inputs if `pre_logits`."""
        raise NotImplementedError

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in training: keep the spikes between stages only, and run each stage again in backward.

        Gradients and running statistics are those of a network without it.
        """
        self.grad_checkpointing = enable

    def run_stage(self, stage: nn.Module, x: Tensor) -> Tensor:
        """stage(x), checkpointed if that is on."""
        if not (self.grad_checkpointing and self.training and torch.is_grad_enabled()):
            return stage(x)
        contexts = lambda: (contextlib.nullcontext(), statistics_kept(stage))  # noqa: E731
        out: Tensor = checkpoint(stage, x, use_reentrant=False, context_fn=contexts)
        return out

    def kernel_for(self, device: str, dtype: torch.dtype) -> str:
        """Which code runs the neurons for currents of that type on that device; see `zoo.kernels`."""
        names = dict.fromkeys(m.kernel_for(device, dtype) for m in self.modules() if isinstance(m, LIF))
        return ", ".join(names)
