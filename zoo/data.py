"""Data sets as whole uint8 tensors: decoded once, augmented in batches on the device."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision import datasets

from .errors import ZooError, one_of


class DataSet(NamedTuple):
    """Images [N, 3, 32, 32] in uint8 and labels [N] in int64, with what a checkpoint must remember of them."""

    name: str
    classes: list[str]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    mean: tuple[float, ...]
    """Channel means of the training images, in units of 255."""
    std: tuple[float, ...]
    sha256: str
    """Over the bytes of all images and labels."""


SIZE = 32
"""Pixels a side of every data set's images."""
_CIFAR = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}


def list_datasets() -> list[str]:
    """The names that `load_dataset` takes."""
    return [*_CIFAR, "digits"]


def load_dataset(name: str, root: str | None = None, download: bool = False) -> DataSet:
    """Load a data set by name.

    Args:
        name: cifar10, cifar100, or digits (scikit-learn's, embedded: needs no files; shown at 32 x 32 in grey).
        root: folder that holds torchvision's `cifar-10-batches-py` and `cifar-100-python`; SNNZOO_DATA when None.
        download: let torchvision fetch missing CIFAR files into `root`.

    Raises:
        ZooError: unknown name, or no intact files below the root.
    """
    if name == "digits":
        return _digits()
    if name not in _CIFAR:
        raise one_of("data set", name, list_datasets())
    root = root or os.environ.get("SNNZOO_DATA")
    if not root:
        raise ZooError(f"{name} needs a data root: pass --data-dir DIR or set SNNZOO_DATA")
    kind = _CIFAR[name]
    try:
        if download:
            Path(root).mkdir(parents=True, exist_ok=True)
        train, test = (kind(root, train=part, download=download) for part in (True, False))
    except RuntimeError as error:
        wanted = f"the folder {kind.base_folder} with torchvision's files (their md5 sums are checked)"
        lost = f"no intact {name} below {root!r}: expected {wanted}; --download true fetches them"
        raise ZooError(lost) from error
    images = [torch.from_numpy(np.ascontiguousarray(part.data.transpose(0, 3, 1, 2))) for part in (train, test)]
    labels = [torch.tensor(part.targets) for part in (train, test)]
    return _data_set(name, list(train.classes), images, labels)


def _digits() -> DataSet:
    digits = load_digits()
    # Values 0 to 16 become 0 to 255; nearest-neighbour keeps the 8 x 8 pixels visible.
    pixels = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)
    images = interpolate(pixels[:, None], size=SIZE, mode="nearest").repeat(1, 3, 1, 1)
    labels = torch.from_numpy(digits.target).long()
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=digits.target, random_state=0)
    parts = ([whole[train], whole[test]] for whole in (images, labels))
    return _data_set("digits", [str(c) for c in range(10)], *parts)


def _data_set(name: str, classes: list[str], images: list[Tensor], labels: list[Tensor]) -> DataSet:
    digest = hashlib.sha256()
    for part in (*images, *labels):
        digest.update(part.numpy().tobytes())
    mean, std = zip(*(_mean_and_std(channel) for channel in images[0].unbind(1)), strict=True)
    return DataSet(name, classes, images[0], labels[0], images[1], labels[1], mean, std, digest.hexdigest())


def _mean_and_std(pixels: Tensor) -> tuple[float, float]:
    # From the histogram of the 256 values: exact, and ten times as fast as converting every pixel to float64.
    counts = torch.bincount(pixels.flatten(), minlength=256).double()
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = (counts * values).sum() / counts.sum()
    variance = (counts * (values - mean).square()).sum() / counts.sum()
    return round(float(mean), 4), round(float(variance.sqrt()), 4)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 images [B, C, H, W] to (x / 255 - mean) / std of their channel; float32 ones are taken as normalised."""
    if images.dtype == torch.float32:
        return images
    if images.shape[1] != len(mean):
        raise ZooError(f"the images have {images.shape[1]} channels, the network takes {len(mean)}")
    shift, scale = (torch.tensor(v, dtype=torch.float32, device=images.device)[:, None, None] for v in (mean, std))
    return images.float().div_(255).sub_(shift).div_(scale)


def split(data: DataSet, train_images: int, val_images: int) -> tuple[Tensor, Tensor]:
    """Indices of the training and validation images, both from the training set, the same for every seed.

    Args:
        train_images: how many to train on, 0 for all that validation leaves.
        val_images: how many to hold out, taken first.

    Raises:
        ZooError: more images asked for than there are.
    """
    total = len(data.train_images)
    if train_images + val_images > total or val_images >= total:
        raise ZooError(f"{data.name} has {total} training images; cannot use {train_images} and hold out {val_images}")
    order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
    stop = val_images + train_images if train_images else total
    return order[val_images:stop], order[:val_images]
