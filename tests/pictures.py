"""Folders of pictures, as somebody may have them: of many sizes, modes and formats."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ["daisy", "rose", "tulip"]
_FORMS = [("RGB", "jpg"), ("RGB", "png"), ("P", "png"), ("L", "jpeg"), ("RGBA", "webp"), ("LA", "png"), ("RGB", "bmp")]


def make_pictures(root: Path, parts: Iterable[str] = ("train", "val"), count: int = 8, seed: int = 0) -> Path:
    """PART/CLASS/N.EXT below `root`, `count` a class, twice as many to train on; classes differ in brightness."""
    draw = np.random.default_rng(seed)
    for part in parts:
        for label, name in enumerate(CLASSES):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(2 * count if part == "train" else count):
                mode, suffix = _FORMS[i % len(_FORMS)]
                height, width = draw.integers(20, 90, 2)
                pixels = draw.integers(0, 60, (height, width, 3)) + 90 * label
                Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(folder / f"{i:02}.{suffix}")
    return root


def make_shapes(root: Path, count: int, seed: int = 0) -> Path:
    """KIND/N.EXT below `root`, `count` a kind: discs, squares and triangles of any colour on any other, in noise, on
    pictures of 24 to 200 pixels, up to 1.6 times as high as wide or the other way round."""
    draw = np.random.default_rng(seed)
    for kind in ("disc", "square", "triangle"):
        (root / kind).mkdir(parents=True)
        for i in range(count):
            width = int(draw.integers(24, 200))
            height = int(width * draw.uniform(1 / 1.6, 1.6))
            colours = draw.integers(0, 256, (2, 3))
            while np.abs(colours[0] - colours[1]).sum() < 150:
                colours = draw.integers(0, 256, (2, 3))
            pixels = colours[0] + draw.normal(0, 12, (height, width, 3))
            picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            side = min(width, height)
            radius = side * draw.uniform(0.25, 0.4)
            x, y = (length / 2 + side * draw.uniform(-0.1, 0.1) for length in (width, height))
            pen, fill, low = ImageDraw.Draw(picture), tuple(map(int, colours[1])), 0.8 * radius
            if kind == "disc":
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
            elif kind == "square":
                pen.rectangle((x - low, y - low, x + low, y + low), fill=fill)
            else:
                pen.polygon([(x, y - radius), (x - radius, y + low), (x + radius, y + low)], fill=fill)
            picture.save(root / kind / f"{i:02}.{'png' if i % 2 else 'jpg'}")
    return root


def make_stretched(root: Path, count: int, seed: int = 0) -> list[Path]:
    """Pictures below `root`: bands and blobs of drawn colours, wide, tall and of odd sizes, 9 to 400 pixels a side, up
    to eight times as long as short, in all modes and formats."""
    draw, files = np.random.default_rng(seed), []
    root.mkdir(parents=True)
    for i in range(count):
        mode, suffix = _FORMS[i % len(_FORMS)]
        short = int(draw.integers(9, 60))
        shape = short, int(short * draw.uniform(1, 8))
        height, width = shape if i % 3 else shape[::-1]
        y, x = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
        pixels = np.empty((height, width, 3))
        pixels[:] = draw.integers(0, 256, 3)
        pixels[y > draw.uniform(0.3, 0.8)] = draw.integers(0, 256, 3)
        for _ in range(3):
            (v, u), radius = draw.uniform(0.2, 0.8, 2), draw.uniform(0.05, 0.3)
            pixels[(y - v) ** 2 + (x - u) ** 2 < radius**2] = draw.integers(0, 256, 3)
        pixels += draw.normal(0, 8, pixels.shape)
        files.append(root / f"{i:02}.{suffix}")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode).save(files[-1])
    return files
