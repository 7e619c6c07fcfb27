"""Folders of pictures, as somebody may have them: of many sizes, modes and formats."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

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
