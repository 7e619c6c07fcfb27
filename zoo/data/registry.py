"""From a name to a data set."""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import ZooError, one_of
from ..plugins import at_line, file_of, same_part
from .builtin import BUILTIN, load_builtin
from .dataset import DataSet, Part, as_tensor, check_memory, check_size, make_dataset
from .folder import PREFIX, folder_name, load_folder

_OWN: dict[str, Callable[[str | None], Any]] = {}
_PARTS = [f"{part}_{what}" for part in ("train", "test", "val") for what in ("images", "labels")]
_CHUNK = 1024


def register_dataset(name: str, load: Callable[[str | None], Mapping[str, Any] | DataSet]) -> None:
    """Make a data set of your own known under a name, to be used like ours.

    A file of your own, that `zoo.load_plugin` or a command's `--plugin FILE` runs, may hold:

    >>> import torch, zoo
    >>> def load(root):
    ...     images = torch.arange(100).to(torch.uint8)[:, None, None, None].repeat(1, 3, 32, 32)
    ...     labels = torch.arange(100) % 2
    ...     return {
    ...         "classes": ["even", "odd"],
    ...         "train_images": images[:80], "train_labels": labels[:80],
    ...         "test_images": images[80:], "test_labels": labels[80:],
    ...     }
    >>> zoo.register_dataset("parity", load)

    Args:
        name: letters, digits, _ and -; it is part of tags and file names.
        load: called with the data root (`--data-dir` or SNNZOO_DATA, None without either) where the data set is asked
            for, and gives the same each time: `classes` (a name each), `train_images` and `test_images`, uint8 [N, 3,
            S, S], `train_labels` and `test_labels`, integers [N], and perhaps `val_images` and `val_labels`, held out
            for validation; tensors or arrays, in a mapping or a `DataSet`. Channel statistics and checksum are computed
            from them.

    Raises:
        ZooError: a name that is taken or cannot be one, or a `load` that cannot be called.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise ZooError(f"register_dataset takes a name of letters, digits, _ and - first, not {name!r:.200}")
    if name in BUILTIN or (name in _OWN and not same_part(_OWN[name], load)):
        raise ZooError(f"data set {name!r} is already registered: choose another name")
    if not callable(load):
        raise ZooError(f'register_dataset takes a function, zoo.register_dataset("{name}", load), not {load!r:.200}')
    _OWN[name] = load


def list_datasets() -> list[str]:
    """The names that `load_dataset` takes, besides folder:DIR."""
    return [*BUILTIN, *_OWN]


def dataset_name(dataset: str) -> str:
    """What a data set is called in records and tags: its name, or that of its folder."""
    if not dataset.startswith(PREFIX):
        return dataset
    name = folder_name(dataset.removeprefix(PREFIX))
    return f"{name}_folder" if name in BUILTIN else name  # or its numbers would pass for theirs


def load_dataset(name: str, root: str | None = None, download: bool = False, *, img_size: int | None = None) -> DataSet:
    """Load a data set by name.

    Args:
        name: cifar10, cifar100; digits (scikit-learn's, embedded: needs no files; shown at 32 x 32 in grey); folder:DIR
            (see `zoo.data.folder`); or one of your own (see `register_dataset`).
        root: folder that holds torchvision's `cifar-10-batches-py` and `cifar-100-python`; SNNZOO_DATA when None.
        download: let torchvision fetch missing CIFAR files into `root`.
        img_size: pixels a side that its images are brought to; by default their own, and 32 of a folder.

    Raises:
        ZooError: unknown name, no intact files, data that are none, or too little memory.
    """
    if img_size is not None:
        check_size(img_size)
    name = os.fspath(name)
    if name.startswith(PREFIX):
        return load_folder(name.removeprefix(PREFIX), dataset_name(name), img_size)
    root = root or os.environ.get("SNNZOO_DATA")
    if name in BUILTIN:
        data = load_builtin(name, root, download)
    elif name in _OWN:
        data = _load_own(name, root)
    else:
        raise one_of("data set", name, [*list_datasets(), f"{PREFIX}DIR"])
    return data if img_size in (None, data.size) else _resized(data, img_size)


def _load_own(name: str, root: str | None) -> DataSet:
    try:
        found = _OWN[name](root)
    except ZooError:
        raise
    except Exception as error:
        where = at_line(error, file_of(_OWN[name]))
        raise ZooError(f"the data set {name} fails to load{where}: {error!r:.300}") from error
    if isinstance(found, DataSet):
        found = {key: getattr(found, key) for key in ("classes", *_PARTS) if getattr(found, key) is not None}
    if not isinstance(found, Mapping):
        raise ZooError(f"the data set {name} gives {type(found).__name__}, not a mapping from classes, {_PARTS[0]} ...")
    known = ["classes", *_PARTS]
    for key in found:
        if key not in known:
            raise one_of(f"key of the data set {name}", key, known)
    needed = known if {"val_images", "val_labels"} & found.keys() else known[:-2]
    if missing := [key for key in needed if key not in found]:
        raise ZooError(f"the data set {name} lacks {', '.join(missing)}")
    parts: list[Part] = [
        (as_tensor(found[f"{part}_images"]), as_tensor(found[f"{part}_labels"]))
        for part in ("train", "test", "val")
        if f"{part}_images" in found
    ]
    data = make_dataset(name, found["classes"], *parts)
    check_size(data.size)
    return data


def _resized(data: DataSet, size: int) -> DataSet:
    parts = [(data.train_images, data.train_labels), (data.test_images, data.test_labels)]
    if data.val_images is not None and data.val_labels is not None:
        parts.append((data.val_images, data.val_labels))
    check_memory(data.name, sum(len(images) for images, _ in parts), size)
    scaled = make_dataset(data.name, data.classes, *((_scaled(images, size), labels) for images, labels in parts))
    return scaled._replace(sha256=data.sha256)


def _scaled(images: Tensor, size: int) -> Tensor:
    scaled = torch.empty(len(images), 3, size, size, dtype=torch.uint8)
    for old, new in zip(images.split(_CHUNK), scaled.split(_CHUNK), strict=True):
        new.copy_(interpolate(old, size=(size, size), mode="bilinear", antialias=True))
    return scaled
