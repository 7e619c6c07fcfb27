"""Images from a file, and the normalisation that a graph's metadata asks for."""

import os
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
from zoo.errors import ZooError


def read_images(path: str | os.PathLike[str]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Images [N, C, H, W] and labels [N], if there are any, from an .npz ("images", "labels") or an .npy (images).

    Raises:
        ZooError: no such file, not one of NumPy's, without "images", or with a single number in place of an array.
    """
    path = Path(path)
    try:
        content = np.load(path, allow_pickle=False)
        arrays = dict(content) if isinstance(content, np.lib.npyio.NpzFile) else {"images": content}
    except FileNotFoundError as error:
        raise ZooError(f"no such file: {path}") from error
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ZooError(f"cannot read {path} as .npz or .npy: {error}") from error
    if "images" not in arrays:
        raise ZooError(f'{path} has no array "images", only {", ".join(arrays) or "nothing"}')
    for name in ("images", "labels"):
        if name in arrays and not arrays[name].ndim:
            raise ZooError(f'"{name}" in {path} is a single value, expected an array with one entry per image')
    return arrays["images"], arrays.get("labels")


class Loaded(NamedTuple):
    """Images to measure on; name and number of classes are those of a named data set."""

    images: NDArray[Any]
    labels: NDArray[Any] | None
    dataset: str | None
    classes: int | None


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
    if Path(data).suffix in (".npz", ".npy") and not data.startswith(PREFIX):
        images, labels = read_images(data)
        return Loaded(images[:limit], None if labels is None else labels[:limit], None, None)
    side = None if input_size is None else square_side(input_size)
    if data.startswith(PREFIX):
        (pixels, truth), classes = load_test_part(data.removeprefix(PREFIX), check_size(side or SIZE), limit)
        return Loaded(pixels.numpy(), truth.numpy(), dataset_name(data), len(classes))
    found = load_dataset(data, root, img_size=side)
    images, labels = found.test_images[:limit].numpy(), found.test_labels[:limit].numpy()
    return Loaded(images, labels, found.name, len(found.classes))


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
