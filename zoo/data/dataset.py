"""What a data set is, how one is made of images and labels, and what of it a network sees."""

import errno
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ZooError
from ..files import cache_folder, locked, read_json, sha256_of, write_json

_CHUNK = 4096
# Decoded images are not all that a command keeps in memory.
_HEADROOM = 1.25


class DataSet(NamedTuple):
    """Images [N, 3, S, S] or event frames [N, T, C, H, W] in uint8 and labels [N] in int64, with what a checkpoint must
    remember of them."""

    name: str
    classes: list[str]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    mean: tuple[float, ...]
    """Channel means of the training images, in units of 255; 0 of frames, whose counts are taken as they are."""
    std: tuple[float, ...]
    sha256: str
    """Over the bytes of all images and labels, of a folder over its files: the same at every `img_size`, and of
    recordings at all `timesteps` and `slices`."""
    val_images: Tensor | None = None
    """Held out for validation by the data set itself; None where it leaves that to `split`."""
    val_labels: Tensor | None = None
    mirrored: tuple[int, ...] | None = None
    """Of event frames whose steps have a direction: the steps in the order of a mirrored sample."""

    def __repr__(self) -> str:
        return f"{self.name}: {len(self.train_images):,} training and {len(self.test_images):,} test images"

    @property
    def size(self) -> int:
        """S, the side of its images in pixels."""
        return self.train_images.shape[-1]

    @property
    def timesteps(self) -> int | None:
        """T of event frames; None of images."""
        return self.train_images.shape[1] if self.train_images.dim() == 5 else None

    @property
    def input_size(self) -> tuple[int, int, int]:
        """Channels, rows and columns of an image or a frame."""
        channels, height, width = self.train_images.shape[-3:]
        return channels, height, width


Sample = TypeVar("Sample")
Part = tuple[Tensor, Tensor]
"""Images and labels."""


def as_tensor(value: Any) -> Any:
    """Turns an array of NumPy's into a tensor, and labels into int64; leaves what is neither to be refused."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nor is it written to here
            value = torch.from_numpy(np.ascontiguousarray(value, value.dtype.newbyteorder("=")))
    if isinstance(value, Tensor) and value.dim() == 1 and not value.is_floating_point():
        value = value.long()
    return value


def make_dataset(
    name: str,
    classes: Sequence[str],
    train: Part,
    test: Part,
    val: Part | None = None,
    *,
    told: Mapping[str, Any] | None = None,
) -> DataSet:
    """Makes a data set of its parts, whose statistics and checksum are computed here, but for those of mean, std and
    sha256 that are `told`.

    Raises:
        ZooError: a part has no image, other shapes or types than a `DataSet`, labels that are none of its classes; or
            there are not two classes or more, each with a printable name of its own.
    """
    _check_classes(name, classes)
    parts = {"train": train, "test": test} | ({} if val is None else {"val": val})
    for part, (images, labels) in parts.items():
        if wrong := _wrong(images, labels, len(classes)):
            raise ZooError(f"the data set {name}, {part}: {wrong}")
        if images.shape[1:] != train[0].shape[1:]:
            found = f"{part} has {list(images.shape[1:])}, train {list(train[0].shape[1:])}"
            raise ZooError(f"the data set {name} has images of several sizes: {found}")
    told = dict(told or {})
    if "sha256" not in told:
        digest = hashlib.sha256()
        for tensor in (train[0], test[0], train[1], test[1], *(val or ())):
            digest.update(tensor.contiguous().numpy().data)
        told["sha256"] = digest.hexdigest()
    if "mean" not in told:
        channels = train[0].shape[-3]
        frames = (0.0,) * channels, (1.0,) * channels
        told["mean"], told["std"] = mean_and_std(train[0]) if train[0].dim() == 4 else frames
    mean, std = tuple(told["mean"]), tuple(told["std"])
    return DataSet(name, list(classes), *train, *test, mean, std, told["sha256"], *(val or ()))


def fixed_order(samples: Sequence[Sample]) -> list[Sample]:
    """Returns what lies class after class in one random order, always the same, so that the first few are of all."""
    return [samples[i] for i in torch.randperm(len(samples), generator=torch.Generator().manual_seed(0)).tolist()]


def cached(
    kind: str, key: Sequence[object], shape: tuple[int, ...], write: Callable[[Any], dict[str, Any]]
) -> tuple[Tensor, dict[str, Any]]:
    """Returns uint8 values out of the file of the cache that holds them, and what was noted of them. The first process
    that asks for them makes both, others wait for it; all map the file, and share its pages.

    Args:
        kind: what they are, a folder of the cache.
        key: what they are made of, JSON values.
        shape: theirs.
        write: fills an array with them, and returns what is to be noted, JSON values.

    Raises:
        ZooError: there is too little space, or an error of `write`'s.
    """
    folder, digest = cache_folder(kind), sha256_of(json.dumps([*key, shape]).encode())
    file, note = (folder / f"{digest[:16]}.{suffix}" for suffix in ("npy", "json"))

    def kept() -> bool:
        return file.is_file() and note.is_file()

    if not kept():
        with locked(folder):
            if not kept():
                note.unlink(missing_ok=True)  # of a file that somebody deleted
                print(f"{kind} are kept in {file}, {np.prod(shape) / 1e9:.1f} GB", file=sys.stderr)
                write_json(note, _fill(file, shape, kind, write))
    # What were written there would stay in this process.
    return torch.from_numpy(np.load(file, mmap_mode="c")), read_json(note)


def _fill(file: Path, shape: tuple[int, ...], kind: str, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Makes the file of an array, with what `write` fills it, and returns what that notes."""
    whole = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    try:
        with open(file, "r+b") as mapped:  # all of it now: a full disk ends writes into a map with SIGBUS
            os.posix_fallocate(mapped.fileno(), 0, file.stat().st_size)
        about = write(whole)
        whole.flush()
        return about
    except BaseException as error:
        file.unlink()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            needed = f"{np.prod(shape) / 1e9:.1f} GB of {kind}: {error.strerror}"
            instead = "SNNZOO_CACHE names another folder; or lower img_size"
            raise ZooError(f"{file.parent} is to keep {needed}. {instead}") from error
        raise


def check_memory(name: str, images: int, size: int) -> None:
    """Raises ZooError where uint8 images [N, 3, S, S] would not fit the memory."""
    needed, free = images * 3 * size**2, free_memory()
    if free is not None and needed * _HEADROOM > free:
        text = f"{images:,} images of {size} x {size} pixels take {needed / 1e9:.1f} GB"
        raise ZooError(f"{name}: {text}, and {free / 1e9:.1f} GB of memory are free: lower img_size")


def free_memory() -> int | None:
    """Returns the bytes that a process can still have, None where the system does not say."""
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _check_classes(name: str, classes: Any) -> None:
    if isinstance(classes, str) or not isinstance(classes, Sequence) or len(classes) < 2:
        raise ZooError(f"the data set {name} needs a list of two class names or more, not {classes!r:.200}")
    for i, label in enumerate(classes):
        if not isinstance(label, str) or not label or not label.isprintable():
            raise ZooError(f"the data set {name} has a class named {label!r:.200}: names are printable text")
        if label in classes[:i]:
            raise ZooError(f"the data set {name} has two classes named {label!r:.200}")


def _wrong(images: Any, labels: Any, classes: int) -> str | None:
    """Says what about a part is not as a `DataSet` has it; None if it is."""
    for what, tensor in (("images", images), ("labels", labels)):
        if not isinstance(tensor, Tensor):
            return f"{what} must be a tensor or an array, not {type(tensor).__name__}"
    expected = "expected uint8 images [N, 3, S, S] or frames [N, T, C, H, W]"
    if images.dtype != torch.uint8:
        return f"{expected}, not {str(images.dtype).removeprefix('torch.')}"
    is_images = images.dim() == 4 and images.shape[1] == 3 and images.shape[2] == images.shape[3]
    if not is_images and (images.dim() != 5 or 0 in images.shape[1:]):
        return f"{expected}, not {list(images.shape)}"
    if not len(images):
        return "there is no image"
    if labels.dtype != torch.int64:
        return f"labels must be integers, not {str(labels.dtype).removeprefix('torch.')}"
    if labels.shape != images.shape[:1]:
        return f"{len(images)} images need labels [{len(images)}], not {list(labels.shape)}"
    low, high = int(labels.min()), int(labels.max())
    return None if 0 <= low <= high < classes else f"labels must lie in 0..{classes - 1}, not {low}..{high}"


def mean_and_std(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel of images [N, 3, H, W], in units of 255."""
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


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turns pixels [B, C, H, W], integers from 0 to 255, into (x / 255 - mean) / std of their channel, in float32; what
    is floating-point is taken as normalised, and counts of event frames [B, T, C, H, W] as they are."""
    if images.is_floating_point() or images.dim() == 5:
        return images.float()
    if images.shape[1] != len(mean):
        raise ZooError(f"the images have {images.shape[1]} channels, the network takes {len(mean)}")
    shift, scale = (
        torch.tensor(v, dtype=torch.float32).to(images.device, non_blocking=True)[:, None, None] for v in (mean, std)
    )
    return images.float().div_(255).sub_(shift).div_(scale)


def warn_of_pixels(images: Any, mean: Sequence[float]) -> None:
    """Warns of floating-point images, which are taken as normalised, a tensor or an array, where they can only be
    pixels: of normalised ones some lie below 0, if `mean` does not."""
    if images.min() >= 0 < max(mean):
        found = f"these lie in {images.min():g}..{images.max():g}, as pixels do"
        warnings.warn(f"floating-point images are taken as normalised, and {found}: give them as uint8", stacklevel=4)


def normalisation(
    model: nn.Module, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel that a network's pixels are normalised by: those given, by
    default its `pretrained_cfg`'s; 0 and 1, for no normalisation at all, where its encoding reads brightness."""
    cfg: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    mean, std = (tuple(cfg[key] if own is None else own) for key, own in (("mean", mean), ("std", std)))
    if getattr(model, "encoding", "direct") == "direct":
        return mean, std
    return (0.0,) * len(mean), (1.0,) * len(std)


def split(data: DataSet, train_images: int, val_images: int) -> tuple[Tensor, Tensor]:
    """Returns indices of the training and validation images, both from the training set, the same for every seed.

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
