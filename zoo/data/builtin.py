"""CIFAR-10 and CIFAR-100 from torchvision's files, and scikit-learn's digits."""

import contextlib
from urllib.error import URLError

import numpy as np
import torch
from torch.nn.functional import interpolate
from torchvision import datasets

from ..errors import ZooError, one_line
from ..files import locked, user_path
from .dataset import SIZE, DataSet, make_dataset

_CIFAR = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}
DIGITS = "digits"
BUILTIN = [*_CIFAR, DIGITS]
"""Their names."""


def load_builtin(name: str, root: str | None, download: bool) -> DataSet:
    """One of `BUILTIN`; arguments and errors are those of `load_dataset`."""
    if name == DIGITS:
        return _digits()
    if not root:
        raise ZooError(f"{name} needs a data root: pass --data-dir DIR or set SNNZOO_DATA")
    kind = _CIFAR[name]
    try:
        # Of several processes that would download, one does, and the others find what it left.
        with locked(user_path(root)) if download else contextlib.nullcontext():
            train, test = (kind(root, train=part, download=download) for part in (True, False))
    except RuntimeError as error:
        wanted = f"the folder {kind.base_folder} with torchvision's files (their md5 sums are checked)"
        lost = f"no intact {name} below {root!r}: expected {wanted}; --download true fetches them"
        raise ZooError(lost) from error
    except URLError as error:
        lost = f"cannot download {name} from {kind.url} ({one_line(error)})"
        raise ZooError(f"{lost}: try again, or put {kind.base_folder} of another machine below {root!r}") from error
    images = [torch.from_numpy(np.ascontiguousarray(part.data.transpose(0, 3, 1, 2))) for part in (train, test)]
    labels = [torch.tensor(part.targets) for part in (train, test)]
    return make_dataset(name, list(train.classes), (images[0], labels[0]), (images[1], labels[1]))


def _digits() -> DataSet:
    from sklearn.datasets import load_digits  # here, as it takes a second and only this needs it
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    # Values 0 to 16 become 0 to 255; nearest-neighbour keeps the 8 x 8 pixels visible.
    pixels = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)
    images = interpolate(pixels[:, None], size=SIZE, mode="nearest").repeat(1, 3, 1, 1)
    labels = torch.from_numpy(digits.target).long()
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=digits.target, random_state=0)
    parts = ((images[part], labels[part]) for part in (train, test))
    return make_dataset(DIGITS, [str(c) for c in range(10)], *parts)
