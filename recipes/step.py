"""What a training step is made of: its randomness, its images and targets, the pass through the network, the loss."""

import random

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.data import DataSet, normalise

from . import augment
from .config import Recipe


def seed(*key: int) -> None:
    """Seed every generator that a step draws from, by what it is: the run's seed, its process, its number.

    Zeros at the end of a key make no difference: a run's weights and its first step of process 0 draw from one stream.
    """
    words = np.random.SeedSequence(list(key)).generate_state(2)
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))
    np.random.seed(int(words[0]))  # noqa: NPY002 (timm's Mixup draws from the global generator)
    random.seed(int(words[1]))


def augmented(images: Tensor, recipe: Recipe, data: DataSet) -> Tensor:
    """Images uint8 [B, C, H, W] as the recipe augments them, normalised, float32."""
    if recipe.crop:
        images = augment.random_crop(images, recipe.crop)
    if recipe.hflip:
        images = augment.random_flip(images)
    images = augment.auto_augment(images, recipe.auto_augment, recipe.randaugment_ops, recipe.randaugment_magnitude)
    x = normalise(images, data.mean, data.std)
    if recipe.cutout:
        x = augment.cutout(x, recipe.cutout)
    return augment.erase(x, recipe.erasing) if recipe.erasing else x


def one_hot(y: Tensor, classes: int, smoothing: float) -> Tensor:
    """Targets [B, classes] of classes [B], a part `smoothing` of each spread over all."""
    return F.one_hot(y, classes).float() * (1 - smoothing) + smoothing / classes


def forward(network: nn.Module, x: Tensor, amp: torch.dtype | None) -> Tensor:
    """Logits of every time step, [T, B, classes], of a network or one that is wrapped for several processes.

    Args:
        amp: the precision of autocast; None for float32.
    """
    with torch.autocast(x.device.type, dtype=amp, enabled=amp is not None):
        logits: Tensor = network(x, per_step=True)
        return logits


def loss_of(logits: Tensor, target: Tensor, recipe: Recipe) -> Tensor:
    """Cross-entropy of the mean logits, or TET (Deng et al. 2022, arXiv 2202.11946, eq. 12); logits [T, B, classes]."""
    if recipe.loss == "ce":
        return F.cross_entropy(logits.mean(0), target)
    per_step = F.cross_entropy(logits.flatten(0, 1), target.repeat(len(logits), 1))
    return (1 - recipe.tet_lambda) * per_step + recipe.tet_lambda * (logits - 1).square().mean()
