"""CIFAR's files: where they are looked for, and what is said where they cannot be fetched."""

from __future__ import annotations

from urllib.error import URLError

import pytest

from zoo.data import builtin, load_dataset
from zoo.errors import ZooError


def test_a_download_that_fails_names_the_data_set_and_the_way_out(tmp_path, monkeypatch):
    class Unreachable:
        url, base_folder = "https://example.org/c.tar.gz", "cifar-10-batches-py"

        def __init__(self, *_, **__):
            raise URLError("no such host")

    monkeypatch.setitem(builtin._CIFAR, "cifar10", Unreachable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZooError, match=r"cannot download cifar10 from https://example\.org/c\.tar\.gz .*no such host"):
        load_dataset("cifar10", "~/data", download=True)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]  # at home, and no folder called ~
