"""From pixels to what a network sees, and which images it sees."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ZooError
from .dataset import DataSet


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels [B, C, H, W], integers from 0 to 255, to (x / 255 - mean) / std of their channel, in float32; what is
    floating-point is taken as normalised."""
    if images.is_floating_point():
        return images.float()
    if images.shape[1] != len(mean):
        raise ZooError(f"the images have {images.shape[1]} channels, the network takes {len(mean)}")
    shift, scale = (
        torch.tensor(v, dtype=torch.float32).to(images.device, non_blocking=True)[:, None, None] for v in (mean, std)
    )
    return images.float().div_(255).sub_(shift).div_(scale)


def normalisation(
    model: nn.Module, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel that a network's pixels are normalised by: 0 and 1, that is not at
    all, where its encoding reads them as brightness.

    Args:
        mean, std: those of the data; by default of the network's `pretrained_cfg`.
    """
    cfg: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    mean, std = (tuple(cfg[key] if own is None else own) for key, own in (("mean", mean), ("std", std)))
    if getattr(model, "encoding", "direct") == "direct":
        return mean, std
    return (0.0,) * len(mean), (1.0,) * len(std)


def split(data: DataSet, train_images: int, val_images: int) -> tuple[Tensor, Tensor]:
    """Indices of the training and validation images, both from the training set, the same for every seed.

    Args:
        train_images: how many to train on, 0 for all that validation leaves.
        val_images: how many to hold out, taken first.

    Raises:
        ZooError: more images asked for than there are; or a data set that has validation images of its own.
    """
    total = len(data.train_images)
    if val_images and data.val_images is not None:
        raise ZooError(f"{data.name} has {len(data.val_images)} validation images of its own: leave val_images at 0")
    if train_images + val_images > total or val_images >= total:
        raise ZooError(f"{data.name} has {total} training images; cannot use {train_images} and hold out {val_images}")
    order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
    stop = val_images + train_images if train_images else total
    return order[val_images:stop], order[:val_images]
