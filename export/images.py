"""Images from a file, and the normalisation that a graph's metadata asks for."""

import lzma
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.data import SIZE, dataset_name, load_dataset
from zoo.data import normalise as normalise_tensor
from zoo.data.dataset import check_size
from zoo.data.folder import PREFIX, load_test_part
from zoo.data.images import square_side
from zoo.errors import ZooError, one_line
from zoo.files import open_regular

# Bytes of images in memory.
_LARGEST = 2**31
_BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError)


def read_images(path: str | os.PathLike[str], limit: int | None = None) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Images [N, C, H, W] and labels [N], if there are any, from an .npz ("images", "labels") or an .npy (images).

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
    # What zipfile, its decompressors and NumPy make of a broken, encrypted or oversized member.
    except (
        OSError,
        ValueError,
        EOFError,
        LookupError,
        RuntimeError,
        SyntaxError,
        TypeError,
        MemoryError,
        *_BROKEN,
    ) as error:
        raise ZooError(f"cannot read {path} as .npz or .npy: {one_line(error) or type(error).__name__}") from error


def _read_array(file: Any, path: Path, name: str, limit: int | None) -> NDArray[Any]:
    """An array of an open .npy file, no larger than its header says and than is allowed."""
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


def is_file(data: str) -> bool:
    """Whether a command's data are a file of arrays, rather than the name of a data set."""
    return Path(data).suffix in (".npz", ".npy") and not data.startswith(PREFIX)


class Loaded(NamedTuple):
    """Images to measure on; the name and the classes are those of a named data set."""

    images: NDArray[Any]
    labels: NDArray[Any] | None
    dataset: str | None
    classes: Sequence[str] | None


def load_images(
    data: str, root: str | None = None, limit: int | None = None, input_size: Sequence[int] | None = None
) -> Loaded:
    """What a command line calls data.

    Args:
        data: cifar10, cifar100, digits, folder:DIR or one of your own (their test sets), or an .npz or .npy file.
        root: the folder with the data sets' files.
        limit: the first so many images only.
        input_size: of the network [C, H, W], to which a data set is brought.

    Raises:
        ZooError: no such data, or a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ZooError(f"--limit must be 1 or more, not {limit}")
    if is_file(data):
        return Loaded(*read_images(data, limit), None, None)
    side = None if input_size is None else square_side(input_size)
    if data.startswith(PREFIX):
        (pixels, truth), classes = load_test_part(data.removeprefix(PREFIX), check_size(side or SIZE), limit)
        return Loaded(pixels.numpy(), truth.numpy(), dataset_name(data), classes)
    found = load_dataset(data, root, img_size=side)
    images, labels = found.test_images[:limit].numpy(), found.test_labels[:limit].numpy()
    return Loaded(images, labels, found.name, found.classes)


def as_array(values: NDArray[Any] | torch.Tensor) -> NDArray[Any]:
    """Images or labels as an array: a tensor of any device, or whatever NumPy takes.

    Raises:
        ZooError: neither.
    """
    if not isinstance(values, torch.Tensor):
        try:
            array = np.asarray(values)
        except ValueError:  # of several shapes
            array = np.empty((), object)
        if array.dtype == object:
            raise ZooError(
                f"expected an array or a tensor, such as a data set's test_images, not {type(values).__name__}"
            )
        return array
    if values.dtype == torch.bfloat16:
        raise ZooError("NumPy has no bfloat16: give uint8 images, or normalised float32 ones")
    return values.detach().cpu().numpy()


def check_images(images: NDArray[Any], size: Sequence[int]) -> None:
    """Raise ZooError unless `images` are uint8 or finite float32 [N, *size], N > 0."""
    if images.ndim != 4 or images.shape[1:] != tuple(size) or not len(images):
        raise ZooError(f"expected images {['N', *size]}, got {list(images.shape)}")
    if images.dtype not in (np.uint8, np.float32):
        raise ZooError(f"expected uint8 images, or normalised float32 ones, not {images.dtype}")
    if images.dtype == np.float32 and not np.isfinite(images).all():
        raise ZooError("the images hold NaN or infinite values")


def check_labels(labels: NDArray[Any], count: int, classes: int) -> None:
    """Raise ZooError unless `labels` are `count` integers in 0 .. classes - 1."""
    if labels.shape != (count,):
        raise ZooError(f"{count} images need labels [{count}], got {list(labels.shape)}")
    if labels.dtype.kind not in "iu":
        raise ZooError(f"labels must be integers, not {labels.dtype}")
    if not 0 <= labels.min() <= labels.max() < classes:
        found = f"{labels.min()}..{labels.max()}"
        raise ZooError(f"labels must lie in 0..{classes - 1}, the classes of this network, not {found}")


def normalise(images: NDArray[Any], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """`zoo.data.normalise` of an array."""
    own = np.require(images, requirements=["C", "W"])  # PyTorch takes no array that it cannot write or walk forward
    return normalise_tensor(torch.from_numpy(own), mean, std).numpy()
