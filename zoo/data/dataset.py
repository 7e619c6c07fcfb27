"""What a data set is, and how one is made of images and labels."""

import hashlib
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import ZooError

SIZE = 32
"""Pixels a side of CIFAR's and of digits' images, and by default of those of a folder."""
_SIDES = (8, 1024)
_CHUNK = 4096
# Decoded images are not all that a command keeps in memory.
_HEADROOM = 1.25


class DataSet(NamedTuple):
    """Images [N, 3, S, S] in uint8 and labels [N] in int64, with what a checkpoint must remember of them."""

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
    """Over the bytes of all images and labels, of a folder over its files: the same at every `img_size`."""
    val_images: Tensor | None = None
    """Held out for validation by the data set itself; None where it leaves that to `split`."""
    val_labels: Tensor | None = None

    def __repr__(self) -> str:
        return f"{self.name}: {len(self.train_images):,} training and {len(self.test_images):,} test images"

    @property
    def size(self) -> int:
        """S, the side of its images in pixels."""
        return self.train_images.shape[-1]


Part = tuple[Tensor, Tensor]
"""Images and labels."""


def make_dataset(name: str, classes: Sequence[str], train: Part, test: Part, val: Part | None = None) -> DataSet:
    """A data set of its parts, whose statistics and checksum are computed here.

    Raises:
        ZooError: a part has no image, other shapes or types than a `DataSet`, labels that are none of its classes; or
            there are not two classes or more, each with a printable name of its own.
    """
    classes = _checked_classes(name, classes)
    parts = {"train": train, "test": test} | ({} if val is None else {"val": val})
    for part, (images, labels) in parts.items():
        _check_part(f"the data set {name}, {part}:", images, labels, len(classes))
        if images.shape != (len(images), *train[0].shape[1:]):
            found = f"{part} has {images.shape[-1]} pixels a side, train {train[0].shape[-1]}"
            raise ZooError(f"the data set {name} has images of several sizes: {found}")
    digest = hashlib.sha256()
    for tensor in (train[0], test[0], train[1], test[1], *(val or ())):
        digest.update(tensor.contiguous().numpy().data)
    mean, std = _mean_and_std(train[0])
    own = {} if val is None else {"val_images": val[0], "val_labels": val[1]}
    return DataSet(name, classes, *train, *test, mean, std, digest.hexdigest(), **own)


def check_size(img_size: int) -> int:
    """`img_size` itself, if images may have that side.

    Raises:
        ZooError: they may not.
    """
    low, high = _SIDES
    if type(img_size) is not int or not low <= img_size <= high:
        raise ZooError(f"img_size must be a whole number from {low} to {high}, not {img_size!r}")
    return img_size


def check_memory(name: str, images: int, size: int) -> None:
    """Refuse what would not fit the memory: uint8 images [N, 3, S, S].

    Raises:
        ZooError: it would not.
    """
    needed, free = images * 3 * size**2, free_memory()
    if free is not None and needed * _HEADROOM > free:
        text = f"{images:,} images of {size} x {size} pixels take {needed / 1e9:.1f} GB"
        raise ZooError(f"{name}: {text}, and {free / 1e9:.1f} GB of memory are free: lower img_size")


def free_memory() -> int | None:
    """Bytes that a process can still have, None where the system does not say."""
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _checked_classes(name: str, classes: Any) -> list[str]:
    if isinstance(classes, str) or not isinstance(classes, Sequence) or len(classes) < 2:
        raise ZooError(f"the data set {name} needs a list of two class names or more, not {classes!r:.200}")
    for label in classes:
        if not isinstance(label, str) or not label or not label.isprintable():
            raise ZooError(f"the data set {name} has a class named {label!r:.200}: names are printable text")
    if len(set(classes)) < len(classes):
        double = next(label for i, label in enumerate(classes) if label in classes[:i])
        raise ZooError(f"the data set {name} has two classes named {double!r:.200}")
    return list(classes)


def _check_part(where: str, images: Any, labels: Any, classes: int) -> None:
    for what, tensor in (("images", images), ("labels", labels)):
        if not isinstance(tensor, Tensor):
            raise ZooError(f"{where} {what} must be a tensor or an array, not {type(tensor).__name__}")
    expected = "uint8 images [N, 3, S, S]"
    if images.dtype != torch.uint8:
        raise ZooError(f"{where} expected {expected}, not {str(images.dtype).removeprefix('torch.')}")
    if images.dim() != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ZooError(f"{where} expected {expected}, not {list(images.shape)}")
    if not len(images):
        raise ZooError(f"{where} there is no image")
    if labels.dtype != torch.int64:
        raise ZooError(f"{where} labels must be integers, not {str(labels.dtype).removeprefix('torch.')}")
    if labels.shape != images.shape[:1]:
        raise ZooError(f"{where} {len(images)} images need labels [{len(images)}], not {list(labels.shape)}")
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        found = f"{int(labels.min())}..{int(labels.max())}"
        raise ZooError(f"{where} labels must lie in 0..{classes - 1}, its {classes} classes, not {found}")


def _mean_and_std(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    # From the histogram of the 256 values: exact, and ten times as fast as converting every pixel to float64. In
    # chunks, since a channel of all images is a copy of a third of them.
    counts = torch.zeros(3, 256, dtype=torch.float64)
    for chunk in images.split(_CHUNK):
        for channel, pixels in enumerate(chunk.unbind(1)):
            counts[channel] += torch.bincount(pixels.flatten(), minlength=256)
    values = torch.arange(256, dtype=torch.float64) / 255
    means = [(c * values).sum() / c.sum() for c in counts]
    variances = [(c * (values - m).square()).sum() / c.sum() for c, m in zip(counts, means, strict=True)]
    # A channel that is the same everywhere becomes 0 everywhere.
    return tuple(round(float(m), 4) for m in means), tuple(round(float(v.sqrt()), 4) or 1.0 for v in variances)


def as_tensor(value: Any) -> Any:
    """A tensor of an array, labels in int64; what is neither stays as it is, for `make_dataset` to refuse."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
        value = torch.from_numpy(np.ascontiguousarray(value, value.dtype.newbyteorder("=")))
    if isinstance(value, Tensor) and value.dim() == 1 and not value.is_floating_point():
        value = value.long()
    return value.cpu() if isinstance(value, Tensor) else value
