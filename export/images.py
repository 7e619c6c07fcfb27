"""Reads images for graphs: from files of anybody and from data sets, as pixels or as a network takes them."""

import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.data import SIZE, dataset_name, load_dataset, normalisation
from zoo.data import normalise as normalise_tensor
from zoo.data.folder import check_folder, load_test_part
from zoo.data.images import data_form, folder_cfg
from zoo.errors import ZooError, one_line
from zoo.files import open_regular
from zoo.names import PREFIX

from .commands import is_file

_LARGEST = 2**31
"""Bytes of images in memory."""
_BRIGHTEST = 1e6
"""Size of a normalised value: far beyond any image, and small enough to compute with."""


class Loaded(NamedTuple):
    """Images to measure on; the name and the classes are those of a named data set."""

    images: NDArray[Any]
    labels: NDArray[Any] | None
    dataset: str | None
    classes: Sequence[str] | None


def load_images(
    data: str, root: str | None = None, limit: int | None = None, prepare: Mapping[str, Any] | None = None
) -> Loaded:
    """Loads what a command line calls data.

    Args:
        data: cifar10, cifar100, digits, folder:DIR or one of your own (their test sets), or an .npz or .npy file.
        root: the folder with the data sets' files.
        limit: the first so many images only.
        prepare: the network's pretrained_cfg, as which a data set is prepared.

    Raises:
        ZooError: no such data.
    """
    if is_file(data):
        return Loaded(*read_images(data, limit), None, None)
    if data.startswith(PREFIX):
        (pixels, truth), classes = load_test_part(data.removeprefix(PREFIX), prepare or folder_cfg(SIZE), limit)
        return Loaded(pixels.numpy(), truth.numpy(), dataset_name(data), classes)
    found = load_dataset(data, root, prepare=prepare)
    images, labels = found.test_images[:limit].numpy(), found.test_labels[:limit].numpy()
    return Loaded(images, labels, found.name, found.classes)


def read_images(path: str | os.PathLike[str], limit: int | None = None) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Reads images [N, C, H, W] and labels [N], if there are any, from an .npz ("images", "labels") or .npy (images).

    No other array is read, and of these no more than `limit` entries.

    Raises:
        ZooError: no such file, not one of NumPy's, without "images", with a single number in place of an array, or with
            more than `_LARGEST` bytes to be read.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            if file.read(2) != b"PK":
                file.seek(0)
                return _read_array(file, path, "images", limit), None
            with zipfile.ZipFile(file) as archive:
                members = {name.removesuffix(".npy"): name for name in archive.namelist()}
                if "images" not in members:
                    there = ", ".join(list(members)[:16]) or "nothing"
                    raise ZooError(f'{path} has no array "images", only {there}')
                arrays = {}
                for name in ("images", "labels"):
                    if name in members:
                        with archive.open(members[name]) as member:
                            arrays[name] = _read_array(member, path, name, limit)
                return arrays["images"], arrays.get("labels")
    except ZooError:
        raise
    except Exception as error:  # whatever zipfile, its decompressors and NumPy make of bytes that nobody has checked
        raise ZooError(f"cannot read {path} as .npz or .npy: {one_line(error) or type(error).__name__}") from error


def _read_array(file: Any, path: Path, name: str, limit: int | None) -> NDArray[Any]:
    """Reads an array of an open .npy file, no larger than its header says and than is allowed."""
    version = np.lib.format.read_magic(file)
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in headers:
        raise ValueError(f"its format is {version}")
    shape, fortran, dtype = headers[version](file)
    if not shape:
        raise ZooError(f'"{name}" in {path} is a single value, expected an array with one entry per image')
    if dtype.kind not in "biuf" or min(shape) < 0:
        raise ValueError(f"it holds {dtype} {list(shape)}")
    wanted = shape if limit is None or fortran else (min(limit, shape[0]), *shape[1:])
    size = math.prod(wanted) * dtype.itemsize
    if size > _LARGEST:
        raise ZooError(f'"{name}" in {path} has {size:,} bytes, at most {_LARGEST:,} are read: --limit N takes fewer')
    data = file.read(size)
    if len(data) < size:
        raise ValueError(f'"{name}" is cut short')
    array = np.frombuffer(data, dtype)
    return array.reshape(wanted[::-1]).T[:limit] if fortran else array.reshape(wanted)


def as_array(values: NDArray[Any] | Tensor) -> NDArray[Any]:
    """Returns images or labels as an array: from a tensor of any device, or whatever NumPy takes."""
    if isinstance(values, Tensor):
        if values.dtype == torch.bfloat16:
            raise ZooError("NumPy has no bfloat16: give uint8 images, or normalised float32 ones")
        return values.detach().cpu().numpy()
    try:
        array = np.asarray(values)
    except ValueError:  # of several shapes
        array = np.empty((), object)
    if array.dtype == object:
        raise ZooError(f"expected an array or a tensor, such as a data set's test_images, not {type(values).__name__}")
    return array


def check_images(images: NDArray[Any], size: Sequence[int]) -> None:
    """Raises ZooError unless `images` are uint8 or finite float32 [N, *size], N > 0."""
    if images.shape[1:] != tuple(size) or not len(images):
        raise ZooError(f"expected images {['N', *size]}, got {list(images.shape)}")
    if images.dtype not in (np.uint8, np.float32):
        raise ZooError(f"expected uint8 images, or normalised float32 ones, not {images.dtype}")
    _check_values(images)


def _check_values(images: NDArray[Any]) -> None:
    if images.dtype.kind == "f" and not -_BRIGHTEST <= images.min() <= images.max() <= _BRIGHTEST:
        raise ZooError(f"the images hold NaN, or values beyond {_BRIGHTEST:,.0f}: normalised ones lie around 0")


def check_labels(labels: NDArray[Any], count: int, classes: int) -> None:
    """Raises ZooError unless `labels` are `count` integers in 0 .. classes - 1."""
    if labels.shape != (count,):
        raise ZooError(f"{count} images need labels [{count}], got {list(labels.shape)}")
    if labels.dtype.kind not in "iu":
        raise ZooError(f"labels must be integers, not {labels.dtype}")
    if not 0 <= labels.min() <= labels.max() < classes:
        found = f"{labels.min()}..{labels.max()}"
        raise ZooError(f"labels must lie in 0..{classes - 1}, the classes of this network, not {found}")


def normalise(images: NDArray[Any], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """Normalises uint8 pixels as `zoo.data.normalise` does; float32 images are returned as they are."""
    own = np.array(images, order="C")  # PyTorch takes no array that it cannot write or walk forward
    return normalise_tensor(torch.from_numpy(own), mean, std).numpy()


def graph_input(model: Any) -> tuple[int, ...]:
    """Returns the shape of what the graph of a network takes, without the batch.

    Rate encoding draws random numbers, which a graph does not: it takes the spikes that the encoder made, as frames.
    """
    frames = [model.timesteps] if model.encoding == "rate" else []
    return (*frames, *model.input_shape)


def form_of(model: Any) -> dict[str, Any]:
    """Returns in what form a network takes data; see `data_form`. A module of others has its pretrained_cfg at most."""
    args = getattr(model, "model_args", {}), getattr(model, "training_args", None)
    return data_form(getattr(model, "pretrained_cfg", {}), *args)


def network_inputs(model: nn.Module, images: NDArray[Any] | Tensor) -> NDArray[np.float32]:
    """Returns images as a network takes them: uint8 pixels [N, C, H, W] normalised; float32 ones, which are so already,
    and frames [N, T, C, H, W] as they are.
    """
    images, shape = as_array(images), graph_input(model)
    if len(shape) == 3:
        check_images(images, shape)
        return normalise(images, *normalisation(model))
    if images.shape[1:] != shape or not len(images):
        of = " that the encoder made, of an .npz or .npy file" if model.encoding == "rate" else ""
        raise ZooError(f"expected finite frames {['N', *shape]}{of}, got {list(images.shape)}")
    _check_values(images)
    return images.astype(np.float32)


def training_images(model: nn.Module, data: str | None, root: str | None, count: int) -> NDArray[np.float32]:
    """Returns normalised images for `export.int8`: at most `count`, of a file or the first training images of a data
    set, by default of the one that the network was trained on."""
    if data is None:
        data = (getattr(model, "training_args", None) or {}).get("dataset")
        if data is None:
            raise ZooError("int8 needs training images, and this network tells no data set: --calibration names one")
        check_folder(data, "--calibration")
    if is_file(data):
        images = read_images(data, count)[0]
    else:
        images = load_dataset(data, root, prepare=form_of(model)).train_images[:count].numpy()
    return network_inputs(model, images)
