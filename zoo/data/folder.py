"""Images of your own: DIR/train/CLASS/*, and DIR/val/CLASS/*, DIR/test/CLASS/* or both (torchvision's ImageFolder); or
DIR/CLASS/* alone, of which a tenth each becomes validation and test set, always the same.

A file belongs to the data if its name ends as one of `SUFFIXES`, in a class's folder or below it, through links, too;
names that start with a dot do not count.
"""

import os
import random
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import ZooError
from ..files import sha256_of, user_path
from ..names import PREFIX, SIZE, check_dataset
from .dataset import DataSet, Part, check_memory, make_dataset
from .images import SUFFIXES, Preparation, folder_cfg, square_side

TRAIN, VAL, TEST = "train", "val", "test"


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
            with too few to be split, a file that cannot be read, or too little memory.
    """
    parts = files_by_part(path)
    cfg = prepare or folder_cfg(img_size or SIZE)
    check_memory(path, sum(len(found) for part in parts.values() for found in part.values()), square_side(cfg))
    decoded, hashes = {}, []
    for part, files in parts.items():
        decoded[part], of_files = _decode(part, files, cfg)
        hashes += [part, *of_files]
    test = decoded[TEST if TEST in parts else VAL]
    data = make_dataset(name, list(parts[TRAIN]), decoded[TRAIN], test, decoded[VAL] if len(parts) == 3 else None)
    return data._replace(sha256=sha256_of("\n".join(hashes).encode()))


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
    check_memory(path, min(sum(map(len, parts[test].values())), limit or sys.maxsize), square_side(cfg))
    return _decode(test, parts[test], cfg, limit)[0], list(parts[TRAIN])


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
    if len(parts) == 1:
        raise ZooError(f"{root} has neither val/ nor test/ with a folder of images for each class")
    files = {part: _files(root / part) for part in parts}
    for part in parts[1:]:
        _check_same(root, part, list(files[TRAIN]), list(files[part]))
    return files


def _split(root: Path) -> dict[str, dict[str, list[Path]]]:
    """Splits DIR/CLASS/*, each class by itself: a tenth of its files for validation and one for the test set."""
    parts: dict[str, dict[str, list[Path]]] = {TRAIN: {}, VAL: {}, TEST: {}}
    for name, files in _files(root).items():
        if not any(file.parent == root / name for file in files):  # parts of another name, such as training/
            raise ZooError(f"{root / name} holds folders and no image: is {root} one with train/, val/ and test/?")
        if len(files) < len(parts):
            raise ZooError(f"{root / name} holds {len(files)} image(s): give three, to train, validate and test with")
        held, order = max(1, len(files) // 10), random.Random(0).sample(files, len(files))
        parts[VAL][name], parts[TEST][name] = order[:held], order[held : 2 * held]
        parts[TRAIN][name] = order[2 * held :]
    return parts


def _files(part: Path) -> dict[str, list[Path]]:
    """Returns the files of each class, all sorted."""
    found, left_out, loose = {}, 0, 0
    real: dict[str, str] = {}  # from each folder without links to what it was read as
    for folder in sorted(part.iterdir()):
        if folder.name.startswith("."):
            continue
        if not folder.is_dir():
            loose += folder.name.lower().endswith(SUFFIXES)
            continue
        files = []
        for where, folders, names in os.walk(folder, onerror=_unreadable, followlinks=True):
            if (before := real.setdefault(os.path.realpath(where), where)) != where:
                raise ZooError(f"{where} is {before} again, through a link: its images would count twice; remove one")
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            seen = [name for name in sorted(names) if not name.startswith(".")]
            images = [Path(where, name) for name in seen if name.lower().endswith(SUFFIXES)]
            files += images
            left_out += len(seen) - len(images)
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


def _unreadable(error: OSError) -> None:
    raise ZooError(f"cannot read the folder {error.filename}: {error.strerror}") from error


def _check_same(root: Path, part: str, classes: list[str], others: list[str]) -> None:
    for have, lack, names in (
        (TRAIN, part, [c for c in classes if c not in others]),
        (part, TRAIN, [c for c in others if c not in classes]),
    ):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise ZooError(f"{root}: {have}/ has the class {names[0]!r:.200}{more}, which {lack}/ lacks")


def _decode(
    part: str, files: dict[str, list[Path]], cfg: Mapping[str, Any], limit: int | None = None
) -> tuple[Part, list[str]]:
    """Returns images and labels, and in the same order label and sha256 of each file."""
    labelled = [(path, label) for label, paths in enumerate(files.values()) for path in paths]
    order: list[int] = torch.randperm(len(labelled), generator=torch.Generator().manual_seed(0)).tolist()[:limit]
    prepare, hashes = Preparation(cfg), [""] * len(order)
    images = torch.empty(len(order), 3, prepare.height, prepare.width, dtype=torch.uint8)

    def place(i: int) -> None:
        path, label = labelled[order[i]]
        images[i] = prepare(path)
        hashes[i] = f"{label} {sha256_of(path)}"

    # Threads: Pillow decodes and scales without holding the interpreter. On an error, what is left is dropped.
    with ThreadPool(min(8, os.cpu_count() or 1)) as pool:
        done = pool.imap(place, range(len(order)))
        for _ in tqdm(done, desc=f"decode {part}", total=len(order), unit="img", disable=None, leave=False):
            pass
    labels: Tensor = torch.tensor([labelled[i][1] for i in order])
    return (images, labels), hashes
