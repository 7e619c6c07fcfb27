"""Data sets: their images, statistics and splits."""

from __future__ import annotations

from urllib.error import URLError

import pytest
import torch

from zoo.data import load_dataset, registry, split
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
