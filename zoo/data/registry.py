"""From a name to a data set: CIFAR from torchvision's files, scikit-learn's digits, a folder of images or of recordings
of an event camera, or one of a user's."""

import contextlib
import os
import re
import traceback
from collections.abc import Callable, Mapping
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision import datasets

from ..errors import ZooError, one_line
from ..files import locked, user_path
from ..names import BUILTIN, I2E, OWN_DATASETS, PREFIX, SIZE, Slices, check_dataset, check_size, dataset_name
from ..plugins import same_file
from ..schema import Model, parse
from .dataset import DataSet, as_tensor, check_memory, make_dataset
from .event_sets import KINDS, load_events, load_i2e
from .folder import load_folder
from .images import square_side

_CIFAR = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}
_CHUNK = 1024


class _Parts(Model):
    """What a user's function gives, tensors or arrays: see `register_dataset`."""

    classes: Any
    train_images: Any
    train_labels: Any
    test_images: Any
    test_labels: Any
    val_images: Any = None
    val_labels: Any = None


def register_dataset(name: str, load: Callable[[str | None], Mapping[str, Any] | DataSet]) -> None:
    """Makes a data set of your own known under a name, to be used like ours.

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
            for, and gives the same each time, tensors or arrays in a mapping or a `DataSet`: `classes`, a name each;
            `train_images` and `test_images`, uint8 [N, 3, S, S] or event frames [N, T, C, H, W]; `train_labels` and
            `test_labels`, integers [N]; perhaps `val_images` and `val_labels`, held out for validation. Channel
            statistics and checksum are computed from them.

    Raises:
        ZooError: a name that is taken or cannot be one.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise ZooError(f"register_dataset takes a name of letters, digits, _ and - first, not {name!r:.200}")
    if name in (*BUILTIN, *KINDS, I2E) or not same_file(OWN_DATASETS.get(name, load), load):
        raise ZooError(f"data set {name!r} is already registered: choose another name")
    OWN_DATASETS[name] = load


def list_datasets() -> list[str]:
    """Returns the names that `load_dataset` takes, besides those with a folder behind a colon."""
    return [*BUILTIN, *OWN_DATASETS]


def load_dataset(
    name: str, root: str | None = None, download: bool = False, *, img_size: int | None = None,
    prepare: Mapping[str, Any] | None = None, timesteps: int = 4, slices: Slices = "number",
) -> DataSet:  # fmt: skip
    """Loads a data set by name.

    Args:
        name: cifar10, cifar100; digits (scikit-learn's, embedded: needs no files; shown at 32 x 32 in grey); folder:DIR
            (see `zoo.data.folder`); recordings of an event camera, or images turned to events (see
            `zoo.data.event_sets`); or one of your own (see `register_dataset`).
        root: folder that holds torchvision's `cifar-10-batches-py` and `cifar-100-python`; SNNZOO_DATA when None.
        download: let torchvision fetch missing CIFAR files into `root`.
        img_size: pixels a side that its images are brought to; by default their own, and 32 of a folder.
        prepare: the pretrained_cfg of a network, which says instead how large its images are, and how those of a folder
            become so; of one for event frames, how many and how they are cut.
        timesteps, slices: number of frames that a recording is cut into, and how; see `zoo.data.events.edges`.

    Raises:
        ZooError: unknown name, no intact files, data that are none, or too little memory.
    """
    if prepare is not None and "slices" in prepare:  # frames
        _, height, width = prepare["input_size"]
        steps, slices = prepare["timesteps"], prepare["slices"]
        side = height if height == width and name not in OWN_DATASETS else None
        data = load_dataset(name, root, img_size=side, timesteps=steps, slices=slices)
        ours, theirs = [steps, *prepare["input_size"]], [data.timesteps, *data.input_size]
        if data.timesteps is None:
            raise ZooError(f"the network takes frames {ours}, and {name} has images: i2e:{name} turns them to events")
        if ours != theirs:
            raise ZooError(f"the network takes frames {ours}, and those of {name} are {theirs}")
        return data
    if prepare is not None:
        img_size = square_side(prepare)
    if img_size is not None:
        check_size(img_size)
    name, root = os.fspath(name), root or os.environ.get("SNNZOO_DATA")
    check_dataset(name, root, download=download)
    kind, colon, rest = name.partition(":")
    if kind + colon == PREFIX:
        return load_folder(rest, dataset_name(name), img_size, prepare)
    if kind in KINDS:
        return load_events(kind, rest, dataset_name(name), timesteps, slices, img_size)
    if kind == I2E:
        images = load_dataset(rest, root, download, img_size=img_size)
        if images.timesteps is not None:
            raise ZooError(f"{name}: {rest} has frames already")
        return load_i2e(images)
    if name == "digits":
        data = _load_digits()
    else:
        data = _load_cifar(name, str(root), download) if name in _CIFAR else _load_registered(name, root)
    if data.timesteps is not None and img_size is not None and {*data.input_size[1:]} != {img_size}:
        raise ZooError(
            f"{name} has frames of {list(data.input_size)}: their size cannot be changed, leave img_size out"
        )
    return data if data.timesteps is not None or img_size in (None, data.size) else _resized(data, img_size)


def _load_cifar(name: str, root: str, download: bool) -> DataSet:
    kind = _CIFAR[name]
    try:
        # Of several processes that would download, one does, and the others find what it left.
        with locked(user_path(root)) if download else contextlib.nullcontext():
            train, test = (kind(root, train=part, download=download) for part in (True, False))
    except RuntimeError as error:
        lost = f"{name}, {kind.base_folder} below {root!r}, is not what torchvision knows by its md5 sums"
        raise ZooError(f"{lost}; training with --download true fetches it") from error
    except URLError as error:
        lost = f"cannot download {name} from {kind.url} ({one_line(error)})"
        raise ZooError(f"{lost}: try again, or put {kind.base_folder} of another machine below {root!r}") from error
    images = [torch.from_numpy(np.ascontiguousarray(part.data.transpose(0, 3, 1, 2))) for part in (train, test)]
    labels = [torch.tensor(part.targets) for part in (train, test)]
    return make_dataset(name, list(train.classes), (images[0], labels[0]), (images[1], labels[1]))


def _load_digits() -> DataSet:
    from sklearn.datasets import load_digits  # here, as it takes a second and only this needs it
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    # Values 0 to 16 become 0 to 255; nearest-neighbour keeps the 8 x 8 pixels visible.
    pixels = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)
    images = interpolate(pixels[:, None], size=SIZE, mode="nearest").repeat(1, 3, 1, 1)
    labels = torch.from_numpy(digits.target).long()
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=digits.target, random_state=0)
    parts = ((images[part], labels[part]) for part in (train, test))
    return make_dataset("digits", [str(c) for c in range(10)], *parts)


def _load_registered(name: str, root: str | None) -> DataSet:
    try:
        found = OWN_DATASETS[name](root)
    except ZooError:
        raise
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        raise ZooError(f"the data set {name} fails to load ({line.filename}:{line.lineno}): {error!r:.300}") from error
    mirrored = found.mirrored if isinstance(found, DataSet) else None
    if isinstance(found, DataSet):
        found = {key: getattr(found, key) for key in _Parts.model_fields}
    if not isinstance(found, Mapping):
        raise ZooError(f"the data set {name} gives {type(found).__name__}, not a mapping from classes, ...")
    given = parse(_Parts, dict(found), f"data set {name}")
    if (given.val_images is None) != (given.val_labels is None):
        raise ZooError(f"the data set {name} lacks val_{'images' if given.val_images is None else 'labels'}")
    train, test, val = (
        (_on_cpu(getattr(given, f"{part}_images")), _on_cpu(getattr(given, f"{part}_labels")))
        for part in ("train", "test", "val")
    )
    data = make_dataset(name, given.classes, train, test, None if val[0] is None else val)
    data = data._replace(mirrored=mirrored)
    for side in data.input_size[1:]:
        check_size(side)
    return data


def _on_cpu(value: Any) -> Any:
    value = as_tensor(value)
    return value.cpu() if isinstance(value, Tensor) else value


def _resized(data: DataSet, size: int) -> DataSet:
    train, test = (data.train_images, data.train_labels), (data.test_images, data.test_labels)
    val = None if data.val_images is None or data.val_labels is None else (data.val_images, data.val_labels)
    check_memory(data.name, sum(len(labels) for _, labels in (train, test, *([val] if val else []))), size)
    parts = [part and (_scaled(part[0], size), part[1]) for part in (train, test, val)]
    return make_dataset(data.name, data.classes, *parts)._replace(sha256=data.sha256)  # type: ignore[arg-type]


def _scaled(images: Tensor, size: int) -> Tensor:
    scaled = torch.empty(len(images), 3, size, size, dtype=torch.uint8)
    for old, new in zip(images.split(_CHUNK), scaled.split(_CHUNK), strict=True):
        new.copy_(interpolate(old, size=(size, size), mode="bilinear", antialias=True))
    return scaled
