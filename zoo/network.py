"""What every network of the zoo has beside its layers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .layers import unfold_steps


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
