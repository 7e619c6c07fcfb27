"""Images of your own: DIR/train/CLASS/*, and DIR/val/CLASS/*, DIR/test/CLASS/* or both (torchvision's ImageFolder); or
DIR/CLASS/* alone, of which a tenth each becomes validation and test set, always the same.

A file belongs to the data if its name ends as one of `SUFFIXES`, in a class's folder or below it, through links, too;
names that start with a dot do not count.

Many images are decoded once, into a file of the cache that all processes map: they share its pages, which the system
may drop and read again.
"""

import hashlib
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import ZooError
from ..files import sha256_of, stamp, user_path
from ..names import PREFIX, SIZE, check_dataset
from .dataset import DataSet, Part, cached, check_memory, fixed_order, make_dataset, mean_and_std
from .images import SUFFIXES, Preparation, folder_cfg, preparation, square_side, walk

TRAIN, VAL, TEST = "train", "val", "test"
_MAPPED = 2**28
"""Bytes of decoded images from which on they are in a file."""
_Labelled = list[tuple[Path, int]]


def check_folder(trained_on: str, option: str) -> None:
    """Raises ZooError where a network was trained on a folder that is not there now; `option` says where it is."""
    if trained_on.startswith(PREFIX) and not user_path(trained_on.removeprefix(PREFIX)).is_dir():
        raise ZooError(f"it was trained on {trained_on}, which is not here: {option} {PREFIX}DIR says where it is")


def load_folder(path: str, name: str, img_size: int | None = None, prepare: Mapping[str, Any] | None = None) -> DataSet:
    """Loads the images below a folder, in one fixed random order, so that the first few are of all classes.

    Args:
        path: the folder.
        name: what the data set is called.
        img_size: pixels a side that the images are brought to, as `folder_cfg` says; 32 by default.
        prepare: a network's pretrained_cfg, which says instead how images are prepared.

    Raises:
        ZooError: no such folder, train/ and neither val/ nor test/, other classes in these, a class without images or
            with too few to be split, a file that cannot be read, or too little memory, or space where they are kept.
    """
    files = files_by_part(path)
    cfg, classes = prepare or folder_cfg(img_size or SIZE), list(files[TRAIN])
    parts = {part: _in_order(of_class) for part, of_class in files.items()}
    side = square_side(cfg)
    shape = sum(map(len, parts.values())), 3, side, side

    def write(whole: Any) -> dict[str, Any]:
        hashes = []
        for place, (pixels, digest) in zip(whole, _decoded(parts, cfg), strict=True):
            place[:] = pixels.numpy()
            hashes.append(digest)
        mean, std = mean_and_std(torch.from_numpy(whole[: len(parts[TRAIN])]))
        return {"sha256": _sha256(parts, hashes), "mean": mean, "std": std}

    if math.prod(shape) < _MAPPED:
        images = torch.empty(shape, dtype=torch.uint8)
        told = write(images.numpy())  # which shares its memory
    else:
        stamps = [[part, str(p.absolute()), label, *stamp(p)] for part in parts for p, label in parts[part]]
        filling = cfg.get("mean") if cfg.get("crop_mode") == "border" else None
        images, told = cached("images", [preparation(cfg), filling, stamps], shape, write)
    labelled = {}
    for part, found in parts.items():
        labelled[part] = images[: len(found)], torch.tensor([label for _, label in found])
        images = images[len(found) :]
    val = labelled[VAL] if len(parts) == 3 else None
    return make_dataset(name, classes, labelled[TRAIN], labelled[TEST if TEST in parts else VAL], val, told=told)


def _sha256(parts: dict[str, _Labelled], hashes: list[str]) -> str:
    """Returns the sha256 of a data set by those of its files, in the order of its images."""
    left, lines = iter(hashes), []
    for part, found in parts.items():
        lines += [part, *(f"{label} {next(left)}" for _, label in found)]
    return sha256_of("\n".join(lines).encode())


def check_class_names(network: str, labels: Sequence[str], dataset: str, classes: Sequence[str]) -> None:
    """Raises ZooError unless a network calls its classes as a data set of as many calls them."""
    for mine, theirs in zip(labels, classes, strict=True):
        if mine != theirs:
            fix = "rename its folders" if dataset.startswith(PREFIX) else "name a data set of the network's classes"
            raise ZooError(f"{network} calls a class {mine!r} that {dataset} calls {theirs!r}: {fix}")


def load_test_part(path: str, cfg: Mapping[str, Any], limit: int | None = None) -> tuple[Part, list[str]]:
    """Loads the test images of a folder, or the first `limit`, prepared as a pretrained_cfg says, and its classes; for
    errors see `load_folder`."""
    parts = files_by_part(path)
    test = TEST if TEST in parts else VAL
    found = _in_order(parts[test])[:limit]
    check_memory(path, len(found), square_side(cfg))
    images = torch.stack([pixels for pixels, _ in _decoded({test: found}, cfg)])
    return (images, torch.tensor([label for _, label in found])), list(parts[TRAIN])


def files_by_part(path: str) -> dict[str, dict[str, list[Path]]]:
    """Returns the image files below a folder, by part (train, and val, test or both) and class; for errors see
    `load_folder`."""
    check_dataset(PREFIX + path)
    root = user_path(path)
    parts = [part for part in (TRAIN, VAL, TEST) if (root / part).is_dir()]
    if not parts:
        return _split(root)
    if TRAIN not in parts:
        raise ZooError(f"{root} has no folder train/ with a folder of images for each class")
    folders = [folder.name for folder in sorted(root.iterdir()) if folder.is_dir() and folder.name[0] != "."]
    for name in [name for name in folders if name not in parts]:
        print(f"{root}: left out {name}/, which is none of train/, val/ and test/", file=sys.stderr)
    if len(parts) == 1:
        raise ZooError(f"{root} has neither val/ nor test/ with a folder of images for each class")
    files = {part: _files(root / part) for part in parts}
    for part in parts[1:]:
        _check_same(root, part, list(files[TRAIN]), list(files[part]))
    return files


def _split(root: Path) -> dict[str, dict[str, list[Path]]]:
    """Splits DIR/CLASS/*, each class by itself: some tenth of its files for validation and one for the test
    set, at least one each."""
    parts: dict[str, dict[str, list[Path]]] = {TRAIN: {}, VAL: {}, TEST: {}}
    for name, files in _files(root).items():
        if not any(file.parent == root / name for file in files):  # parts of another name, such as training/
            raise ZooError(f"{root / name} holds folders and no image: is {root} one with train/, val/ and test/?")
        if len(files) < len(parts):
            raise ZooError(f"{root / name} holds {len(files)} image(s): give three, to train, validate and test with")
        # By its name alone, so that a file stays where it is whatever others come or go.
        place = {file: hashlib.sha256(os.fsencode(file.relative_to(root))).digest() for file in files}
        order, count = sorted(files, key=place.__getitem__), len(files)
        first, second = (sum(of[0] < border for of in place.values()) for border in (26, 51))
        first = min(max(first, 1), count - 2)
        second = min(max(second, first + 1), count - 1)
        parts[VAL][name], parts[TEST][name], parts[TRAIN][name] = order[:first], order[first:second], order[second:]
    return parts


def _files(part: Path) -> dict[str, list[Path]]:
    found, left_out, loose = {}, 0, 0
    seen: dict[str, str] = {}
    for folder in sorted(part.iterdir()):
        if folder.name.startswith("."):
            continue
        if not folder.is_dir():
            loose += folder.name.lower().endswith(SUFFIXES)
            continue
        there = list(walk(folder, seen))
        files = [file for file in there if file.name.lower().endswith(SUFFIXES)]
        left_out += len(there) - len(files)
        if not files:
            raise ZooError(f"{folder} holds no image: no file there ends in {', '.join(SUFFIXES)}")
        found[folder.name] = files
    if not found:
        raise ZooError(f"{part} holds no folder with images: it needs one for each class")
    if left_out:
        print(f"{part}: left out {left_out} file(s) whose names are not those of images", file=sys.stderr)
    if loose:
        print(f"{part}: left out {loose} image(s) that are in no class's folder", file=sys.stderr)
    return found


def _check_same(root: Path, part: str, classes: list[str], others: list[str]) -> None:
    for have, lack, names in (
        (TRAIN, part, [c for c in classes if c not in others]),
        (part, TRAIN, [c for c in others if c not in classes]),
    ):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise ZooError(f"{root}: {have}/ has the class {names[0]!r:.200}{more}, which {lack}/ lacks")


def _in_order(files: dict[str, list[Path]]) -> _Labelled:
    """Returns the files of one part and the numbers of their classes, in the fixed random order."""
    return fixed_order([(path, label) for label, paths in enumerate(files.values()) for path in paths])


def _decoded(parts: dict[str, _Labelled], cfg: Mapping[str, Any]) -> Iterator[tuple[Tensor, str]]:
    """Yields uint8 pixels [3, S, S] and the sha256 of each file, in order."""
    prepare = Preparation(cfg)
    # Threads: Pillow decodes and scales without holding the interpreter. On an error, what is left is dropped.
    with ThreadPool(min(8, os.cpu_count() or 1)) as pool:
        for part, files in parts.items():
            done = pool.imap(lambda file: (prepare(file[0]), sha256_of(file[0])), files)
            yield from tqdm(done, desc=f"decode {part}", total=len(files), unit="img", disable=None, leave=False)
