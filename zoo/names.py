"""The names that commands take, known before PyTorch is loaded: networks, their checkpoints, data sets, tags.

Nothing here imports PyTorch, so that a command line with a wrong name is answered at once.
"""

import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal

from .errors import ZooError, one_of
from .files import read_json, user_path
from .specs import check_integer

_HERE = Path(__file__).resolve().parent
BUNDLED = _HERE / "weights"
"""One checkpoint directory each, named `architecture.tag`."""
NOT_IN_WHEEL = ("sresnet19_gs.t4_cifar100", "max_resnet18_gs.t4_cifar100")
"""The bundled checkpoints that only a checkout has, as the wheel has to stay under 90 MB; see pyproject.toml."""
PUBLISHED = BUNDLED / "published.json"
"""The zoo's checkpoints on a Hub."""
MEASURED = BUNDLED / "measured.json"
"""What the leaderboard says of them, which renders it."""
CATALOGUE = _HERE / "models" / "catalogue.json"
"""Networks and keywords; `python -m zoo.models.catalogue` writes it."""
CONFIG = "config.json"
"""The file of a checkpoint directory that says what its network is."""
TAG = r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}"
ARCHITECTURES: set[str] = set()
"""Those that are registered, of the zoo and of plugins; see `zoo.register_model`."""
SIZE = 32
"""Pixels a side of CIFAR's and of digits' images, and by default of those of a folder."""
BUILTIN = ["cifar10", "cifar100", "digits"]
"""Data sets that every user has."""
OWN_DATASETS: dict[str, Callable[[str | None], Any]] = {}
"""Those of plugins, and what loads them; see `zoo.register_dataset`."""
PREFIX, I2E = "folder:", "i2e"
RECORDINGS = ("cifar10dvs", "dvsgesture", "nmnist", "events")
"""Kinds of folders of recordings of event cameras, see zoo/data/event_sets.py."""
FOLDERS = (PREFIX, *(f"{kind}:" for kind in RECORDINGS))
"""What stands in front of the folders of images or recordings that a data set is made of."""
FORMS = [*(f"{kind}DIR" for kind in FOLDERS), f"{I2E}:DATASET"]
Slices = Literal["number", "time"]
"""How a recording is cut: into parts of as many events, or of the same duration."""
_NAME_LENGTH = 64


@cache
def sizes() -> dict[str, dict[str, Any]]:
    """Returns params, dense_operations, timesteps and input_size of each of the zoo's networks, of the plain one of
    twins; see `zoo.models.catalogue`, which counts them."""
    return read_json(CATALOGUE)["networks"]


@cache
def keywords() -> dict[str, list[str]]:
    """Returns the zoo's own names that each keyword of a network takes."""
    return read_json(CATALOGUE)["keywords"]


@cache
def measured() -> dict[str, dict[str, Any]]:
    """Returns dataset, top1 (percent), timesteps, params, spikes_per_image, latency_ms (of the float32 file, batch 1,
    one thread) and cpu of each checkpoint that the leaderboard has a row of."""
    return read_json(MEASURED)


@cache
def all_references() -> Any:
    return read_json(_HERE / "models" / "references.json")["rows"]


def references(architecture: str) -> list[dict[str, Any]]:
    """Published results of a network, which others measured: model, network, method, T, cifar10, cifar100 (top-1, %),
    strong_augmentation, citation, read_in; see models/references.json.

    A twin with gradient scaling is the same network and has those of its plain twin; a width variant is another network
    and has none.
    """
    return [row for row in all_references() if row["model"] == plain_name(architecture)]


def plain_name(architecture: str) -> str:
    """Returns the twin of an architecture without gradient scaling; itself, if it has no other."""
    plain = architecture.removesuffix("_gs")
    return plain if plain in sizes() or plain in ARCHITECTURES else architecture


def architectures() -> list[str]:
    """Returns the names of all networks, sorted; of a plugin's as soon as it is loaded."""
    return sorted(ARCHITECTURES.union(sizes(), (f"{name}_gs" for name in sizes())))


def pretrained_names() -> list[str]:
    """Returns, sorted, `architecture.tag` of every checkpoint that is bundled or published."""
    return sorted({folder.name for folder in BUNDLED.glob("*.*") if folder.is_dir()} | read_json(PUBLISHED).keys())


def split_name(name: str) -> tuple[str, str]:
    """Splits `architecture.tag`; the tag may be empty."""
    architecture, _, tag = name.partition(".")
    return architecture, tag


def is_path(source: str) -> bool:
    """Returns whether `source` points at something on this disk, rather than naming a network."""
    if source.startswith(("hf-hub:", "local-dir:")):
        return False
    named = split_name(source)[0] in architectures()
    return os.path.sep in source or os.path.exists(os.path.join(source, CONFIG) if named else source)


def check_name(name: str) -> None:
    """Raises ZooError unless `name` is an architecture of the zoo and its tag, if there is one, a known one."""
    architecture, tag = split_name(name)
    if architecture not in (known := architectures()):
        raise one_of("model", architecture or name, known)
    tags = [split_name(other)[1] for other in pretrained_names() if other.startswith(f"{architecture}.")]
    if tag and tag not in tags:
        if name in NOT_IN_WHEEL:
            raise ZooError(f"{name} is too large for the wheel; a checkout has it: git clone, then pip install -e .")
        if not tags:
            raise ZooError(f"unknown tag {tag!r}: {no_weights(architecture)}")
        raise one_of(f"tag of {architecture}", tag, tags)


def check_source(source: str, *, trained: bool = True) -> None:
    """Raises ZooError for what `zoo.load` cannot take, as far as names and places tell.

    Args:
        source: a name, a checkpoint directory, local-dir:DIR or hf-hub:ORG/NAME.
        trained: weights are needed, and not an architecture alone.
    """
    place = source.removeprefix("local-dir:")
    if source.startswith("hf-hub:"):
        return
    if place != source or is_path(source):
        path = user_path(place)
        if not path.exists():
            raise ZooError(f"no checkpoint at {place}: there is nothing of that name")
        if path.is_dir() and not (path / CONFIG).is_file():
            raise ZooError(f"{place} is no checkpoint: it has no {CONFIG}")
        return
    check_name(source)
    architecture = split_name(source)[0]
    if trained and not any(other.startswith(f"{architecture}.") for other in pretrained_names()):
        raise ZooError(no_weights(architecture))


def no_weights(architecture: str) -> str:
    """Says what to tell somebody who asks for weights that nobody has published, and what there is instead."""
    if tagged := [name for name in pretrained_names() if name.startswith(f"{architecture}.")]:
        return f"{architecture} has no weights without a tag: take {' or '.join(tagged)}"
    return (
        f"{architecture} has no published weights: `python -m recipes.train families.t4_cifar10 --model "
        f"{architecture}` trains some; `snn-zoo list` shows which networks have them"
    )


def split_folder(source: str) -> tuple[str, str]:
    """Splits what names a folder of data or a checkpoint into what stands in front of the folder, as "folder:" or
    "i2e:folder:", and the folder; the first is empty where nothing does."""
    kinds = ("local-dir:", *FOLDERS, *(f"{I2E}:{kind}" for kind in FOLDERS))
    kind = next((kind for kind in kinds if source.startswith(kind)), "")
    return kind, source.removeprefix(kind)


def folder_name(path: str) -> str:
    """Returns what a data set in a folder is called: the folder's own name, of letters, digits, _ and -."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(os.path.abspath(user_path(path))).name)
    return name.lstrip("_-")[:_NAME_LENGTH] or "folder"


def dataset_name(dataset: str) -> str:
    """Returns what a data set is called in records and tags: its name, or that of its folder."""
    kind, colon, path = dataset.partition(":")
    if kind == I2E:
        return f"{I2E}_{dataset_name(path)}"
    if f"{kind}{colon}" not in FOLDERS:
        return dataset
    if kind not in ("folder", "events"):  # a published one
        return kind
    name = folder_name(path)
    published = name in (*BUILTIN, *RECORDINGS) or name.startswith(f"{I2E}_")
    return f"{name}_folder" if published else name  # or its numbers would pass for theirs


def check_dataset(dataset: str, root: str | None = None, *, download: bool = False) -> None:
    """Raises ZooError for a data set that cannot be loaded, as far as names and places tell.

    Args:
        dataset: see `zoo.load_dataset`.
        root: the folder of CIFAR's files; SNNZOO_DATA when None.
        download: missing files may be fetched.
    """
    kind, colon, path = dataset.partition(":")
    if dataset in OWN_DATASETS:
        return
    if kind == I2E and colon:
        check_dataset(path, root, download=download)
    elif f"{kind}{colon}" in FOLDERS:
        if not path or not user_path(path).is_dir():
            forms = f"{PREFIX}DIR is one with DIR/CLASS/*, or with DIR/train/CLASS/* and val/ or test/CLASS/*"
            raise ZooError(f"no such folder: {path!r}" + (f"; {forms}" if kind == "folder" else ""))
    elif dataset not in BUILTIN:
        raise one_of("data set", dataset, [*BUILTIN, *sorted(OWN_DATASETS), *FORMS])
    elif dataset != "digits":
        root = root or os.environ.get("SNNZOO_DATA")
        if not root:
            raise ZooError(f"{dataset} needs a data root: pass --data-dir DIR or set SNNZOO_DATA")
        inside = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[dataset]
        if not download and not (user_path(root) / inside).is_dir():
            wanted = f"the folder {inside} with torchvision's files (their md5 sums are checked)"
            fetch = "training with --download true fetches them"
            raise ZooError(f"no intact {dataset} below {root!r}: expected {wanted}; {fetch}")


def check_size(img_size: Any) -> int:
    """Returns `img_size`, if images may have that side; else raises ZooError."""
    return check_integer("img_size", img_size, 8, 1024)
