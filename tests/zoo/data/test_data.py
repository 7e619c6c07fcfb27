"""Data sets: their images, statistics and splits; those from code of one's own."""

from urllib.error import URLError

import pytest
import torch

import zoo
from zoo.data import load_dataset, normalise, registry, split
from zoo.data.dataset import make_dataset
from zoo.errors import ZooError


def test_digits_need_no_files():
    data = load_dataset("digits")
    assert data.train_images.shape[1:] == (3, 32, 32)
    assert data.train_images.dtype == torch.uint8
    assert len(data.train_images) + len(data.test_images) == 1797
    assert torch.bincount(data.test_labels).tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    assert data.sha256 == load_dataset("digits").sha256


@pytest.mark.data
@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar(name, classes, data_root):
    data = load_dataset(name, data_root)
    assert data.train_images.shape == (50_000, 3, 32, 32)
    assert torch.bincount(data.test_labels).tolist() == [10_000 // classes] * classes
    assert len(data.classes) == classes
    published = {"cifar10": (0.4914, 0.4822, 0.4465), "cifar100": (0.5071, 0.4865, 0.4409)}[name]
    assert data.mean == pytest.approx(published, abs=2e-4)


def test_bad_data_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("SNNZOO_DATA", raising=False)
    with pytest.raises(ZooError, match="cifar100"):
        load_dataset("cifar1000")
    with pytest.raises(ZooError, match="--data-dir"):
        load_dataset("cifar10")
    with pytest.raises(ZooError, match="cifar-10-batches-py"):
        load_dataset("cifar10", str(tmp_path))


def test_split_is_disjoint_and_fixed():
    data = load_dataset("digits")
    train, val = split(data, 0, 200)
    assert len(val) == 200
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(len(data.train_images)))
    few, same = split(data, 100, 200)
    assert torch.equal(val, same)
    assert set(few.tolist()) <= set(train.tolist())
    with pytest.raises(ZooError, match="1437 training images"):
        split(data, 1400, 200)


def test_a_download_that_fails_names_the_data_set_and_the_way_out(tmp_path, monkeypatch):
    class Unreachable:
        url, base_folder = "https://example.org/c.tar.gz", "cifar-10-batches-py"

        def __init__(self, *_, **__):
            raise URLError("no such host")

    monkeypatch.setitem(registry._CIFAR, "cifar10", Unreachable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZooError, match=r"cannot download cifar10 from https://example\.org/c\.tar\.gz .*no such host"):
        load_dataset("cifar10", "~/data", download=True)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]  # at home, and no folder called ~


def _parts(size: int = 16) -> dict:
    images, labels = (
        torch.arange(40).to(torch.uint8)[:, None, None, None].expand(40, 3, size, size),
        torch.arange(40) % 2,
    )
    return {
        "classes": ["even", "odd"],
        "train_images": images[:30].contiguous(),
        "train_labels": labels[:30],
        "test_images": images[30:].numpy(),  # arrays will do
        "test_labels": labels[30:].numpy().astype(">i2"),  # ... of any integers, in either order of bytes
    }


def test_a_data_set_of_ones_own_is_one_of_ours(registered_here_only, monkeypatch):
    roots = []
    zoo.register_dataset("parity", lambda root: roots.append(root) or _parts())
    assert "parity" in zoo.list_datasets()
    monkeypatch.delenv("SNNZOO_DATA", raising=False)
    data = zoo.load_dataset("parity", "here")
    assert isinstance(data, zoo.DataSet)
    assert (roots, data.size, data.classes, data.mean[0]) == (["here"], 16, ["even", "odd"], round(14.5 / 255, 4))
    assert data.test_labels.dtype == torch.int64
    assert (larger := load_dataset("parity", img_size=24)).train_images.shape == (30, 3, 24, 24)
    assert larger.sha256 == data.sha256
    again = {"val_images": data.test_images, "val_labels": data.test_labels}
    zoo.register_dataset("with_val", lambda root: data._replace(**again))
    assert len(load_dataset("with_val").val_images) == 10
    with pytest.raises(ZooError, match="validation images of its own"):
        split(load_dataset("with_val"), 0, 5)


BAD = {
    "labels must lie in 0..1, not 0..2": {"train_labels": torch.arange(30) % 3},
    "labels must be integers, not float32": {"test_labels": torch.zeros(10)},
    "10 images need labels [10], not [9]": {"test_labels": torch.zeros(9).long()},
    "expected uint8 images [N, 3, S, S] or frames [N, T, C, H, W], not float32": {
        "train_images": torch.zeros(30, 3, 16, 16)
    },
    "expected uint8 images [N, 3, S, S] or frames [N, T, C, H, W], not [30, 1, 16, 16]": {
        "train_images": torch.zeros(30, 1, 16, 16).byte()
    },
    "expected uint8 images [N, 3, S, S] or frames [N, T, C, H, W], not [30, 3, 16, 17]": {
        "train_images": torch.zeros(30, 3, 16, 17).byte()
    },
    "test: there is no image": {"test_images": torch.zeros(0, 3, 16, 16).byte(), "test_labels": torch.zeros(0).long()},
    "images of several sizes: test has [3, 24, 24], train [3, 16, 16]": {
        "test_images": torch.zeros(10, 3, 24, 24).byte()
    },
    "images must be a tensor or an array, not list": {"test_images": [1, 2]},
    "two classes named 'even'": {"classes": ["even", "even"]},
    "a list of two class names or more": {"classes": ["even"]},
    "names are printable text": {"classes": ["even", 3]},
    "unknown data set parity key 'labels'": {"labels": 3},
    "lacks val_labels": {"val_images": torch.zeros(1, 3, 16, 16).byte()},
    "fails to load (": ZeroDivisionError(),
    "gives list, not a mapping": [],
}


@pytest.mark.parametrize("words", BAD)
def test_what_is_wrong_with_one_is_named(registered_here_only, words):
    def load(root):
        if isinstance(BAD[words], Exception):
            raise BAD[words]
        return _parts() | BAD[words] if isinstance(BAD[words], dict) else BAD[words]

    zoo.register_dataset("parity", load)
    with pytest.raises(ZooError) as error:
        load_dataset("parity")
    assert words in str(error.value)
    assert "parity" in str(error.value)


def test_the_checksum_is_of_every_part():
    parts = [torch.arange(12).to(torch.uint8).view(1, 3, 2, 2), torch.tensor([1])] * 3
    sums = {_checksum(parts)}
    for i, part in enumerate(parts):
        sums.add(_checksum([*parts[:i], 1 - part, *parts[i + 1 :]]))
    assert len(sums) == 7


def _checksum(parts):
    train, test, val = (tuple(parts[i : i + 2]) for i in (0, 2, 4))
    return make_dataset("x", ["a", "b"], train, test, val).sha256


def test_a_channel_that_is_the_same_everywhere_becomes_0(registered_here_only):
    parts = _parts()
    parts["train_images"][:, 1] = 51
    zoo.register_dataset("no_green", lambda root: parts)
    data = load_dataset("no_green")
    assert (data.mean[1], data.std[1]) == (0.2, 1)
    seen = normalise(data.train_images, data.mean, data.std)
    assert torch.isfinite(seen).all()
    assert not seen[:, 1].any()


def test_names_that_cannot_be_are_refused(registered_here_only):
    taken, wrong = ("digits", "nmnist", "i2e"), (("a/b", "letters, digits"), (3, "letters"), ("", "letters"))
    for name, words in (*((name, "already registered") for name in taken), *wrong):
        with pytest.raises(ZooError, match=words):
            zoo.register_dataset(name, lambda root: None)
