"""An image file to pixels: the one place where image files are opened."""

import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from timm.data import create_transform, resolve_data_config
from torch import Tensor

from ..errors import ZooError, one_line
from ..files import user_path

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""What is read. By name, so that Pillow tries no other decoder: some run other programs, as that of EPS."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""How the names of their files end, in lower case."""
MAX_PIXELS = 2**26
"""Of one image, 8192 x 8192, also on its way to the network's size."""


class Preparation:
    """How image files become what a network was trained on, by timm's transforms for evaluation.

    Args:
        cfg: a checkpoint's pretrained_cfg: input_size; crop_pct, crop_mode and interpolation, timm's where it has none.
    """

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        config = resolve_data_config(pretrained_cfg=dict(cfg))
        channels, self.height, self.width = config["input_size"]
        if channels != 3:
            raise ZooError(f"the network takes images of {channels} channels, and image files have 3")
        self._scaled = max(self.height, self.width) / config["crop_pct"]
        # The prefetcher's form ends in uint8, where the other one normalises.
        self._transform = create_transform(**config, is_training=False, use_prefetcher=True)

    def __call__(self, path: str | os.PathLike[str]) -> Tensor:
        """Reads the first image in a file, as uint8 pixels [3, H, W]."""
        image = read_image(path)
        width, height = image.size
        # The shorter side is scaled to the network's and the longer one in proportion, before it is cropped.
        if self._scaled**2 * max(width, height) / min(width, height) > MAX_PIXELS:
            raise ZooError(f"{path} is {width} x {height} pixels, too long and thin: crop it first")
        return self._transform(image)


def preparation(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a pretrained_cfg by which images are prepared, with timm's values where it has none."""
    config = resolve_data_config(pretrained_cfg=dict(cfg))
    return {key: config[key] for key in ("input_size", "interpolation", "crop_pct", "crop_mode")}


def folder_cfg(size: int) -> dict[str, Any]:
    """Says how images of any size become square ones, in the words of a pretrained_cfg, as timm evaluates: the shorter
    side is scaled to `size` pixels, bilinear and without aliasing, and the centre cut out."""
    return {"input_size": (3, size, size), "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "center"}


def files_at(path: str | os.PathLike[str], suffixes: Sequence[str] = SUFFIXES) -> list[str]:
    """Returns a file by itself, and of a folder those in it and below whose names end so, sorted by name."""
    if not (root := user_path(path)).is_dir():
        return [os.fspath(path)]
    found = [str(file) for file in sorted(walk(root, {})) if file.suffix.lower() in suffixes]
    if not found:
        raise ZooError(f"{path} holds nothing to classify: no file there ends in {', '.join(suffixes)}")
    return found


def walk(folder: Path, seen: dict[str, str]) -> Iterator[Path]:
    """Yields the visible files in a folder and below it, through links, too, folder by folder.

    Args:
        seen: from each folder without links that was read before to what it was read as.

    Raises:
        ZooError: a folder that cannot be read, or that was read before.
    """
    for where, folders, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        if (before := seen.setdefault(os.path.realpath(where), where)) != where:
            raise ZooError(f"{where} is {before} again, through a link: its images would count twice; remove one")
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(where, name) for name in sorted(names) if not name.startswith("."))


def _unreadable(error: OSError) -> None:
    raise ZooError(f"cannot read the folder {error.filename}: {error.strerror}") from error


def data_form(
    cfg: Mapping[str, Any], model_args: Mapping[str, Any], recipe: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Returns in what form a network takes data, as `load_dataset` is told by `prepare`: its pretrained_cfg, and of one
    for event frames their number and how recordings are cut into them, as in its training.

    Args:
        cfg, model_args, recipe: its pretrained_cfg, model_args and training_args, or those of its config.json.
    """
    if model_args.get("encoding") != "frames":
        return dict(cfg)
    return {**cfg, "timesteps": model_args["timesteps"], "slices": (recipe or {}).get("slices", "number")}


def square_side(cfg: Mapping[str, Any]) -> int:
    """Returns the side of the images [3, side, side] that a pretrained_cfg is for; raises ZooError for others."""
    channels, height, width = input_size = cfg["input_size"]
    if channels != 3 or height != width:
        raise ZooError(f"the network takes images {list(input_size)}, data sets have square ones of 3 channels")
    return height


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Reads the first image in a file, upright, in RGB: grey is repeated, a palette looked up, alpha dropped.

    Raises:
        ZooError: no such file, none that Pillow can read as one of `FORMATS`, or more than `MAX_PIXELS`.
    """
    path = user_path(path)
    if not path.is_file():  # a pipe, for one, could be waited for without end
        raise ZooError(f"{path} is no ordinary file" if path.exists() else f"no such file: {path}")
    formats = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound below is lower
            image = Image.open(path, formats=FORMATS)
        with image:
            if math.prod(image.size) > MAX_PIXELS:
                size = f"{image.width} x {image.height}"
                raise ZooError(f"{path} has {size} pixels, more than {MAX_PIXELS:,}: scale it down first")
            image.getexif()  # says how to turn it; left in `info`, it would be written again, and may not be fit for it
            for kept in ("exif", "Raw profile type exif"):
                image.info.pop(kept, None)
            return _rgb(ImageOps.exif_transpose(image))  # upright, as a camera says it was held
    except (ZooError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise ZooError(f"{path} is not an image in {formats}") from None
    except Exception as error:  # whatever decoders make of bytes that nobody has checked
        raise ZooError(f"{path} is not an image in {formats} that can be read: {one_line(error)}") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, save it with 8 bits")
    if image.mode.startswith("I"):  # Pillow would clip 16 bits to 8, and show all but black in white
        pixels = np.asarray(image)
        if not 0 <= pixels.min() <= pixels.max() <= 0xFFFF:
            raise ValueError("its pixels are integers of 32 bits, save it with 8 bits")
        # Of a picture that is black but for its last bits there is no use; it is one of 8 bits, saved with more.
        image = Image.fromarray((pixels >> 8 if pixels.max() > 0xFF else pixels).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # or Pillow warns
    return image.convert("RGB")
