"""Compilers that do not do what they should: the reference runs instead, and nothing is left in the cache."""

from __future__ import annotations

import atexit
import shutil
import time

import pytest
import torch

from zoo import kernels
from zoo.kernels import build
from zoo.kernels.lif import plain_lif

LAST = 'for word; do out="$word"; done\n'
COMPILERS = {
    "fails and prints bytes": ("printf '\\377\\033[31m error \\376' >&2; exit 1", "cannot build"),
    "writes nothing": ("exit 0", "writes nothing"),
    "writes an empty file": (f"{LAST}: > $out", "writes nothing"),
    "writes no library": (f"{LAST}head -c 5000 /dev/urandom > $out", "cannot load"),
    "sleeps": ("sleep 30 & exec sleep 30", "does not end within"),
}


@pytest.mark.parametrize("kind", COMPILERS)
def test_a_compiler_that_misbehaves(kind, tmp_path, monkeypatch):
    text, words = COMPILERS[kind]
    compiler = tmp_path / "compiler"
    compiler.write_text(f"#!/bin/sh\n{text}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("SNNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "_SECONDS", 0.5 if kind == "sleeps" else 60)
    build.cache_folder.cache_clear()
    try:
        begin = time.monotonic()
        obstacle = kernels._obstacle.__wrapped__("cpu", torch.float32, plain_lif(13), False)
        assert time.monotonic() - begin < 25
    finally:
        build.cache_folder.cache_clear()
    assert words in obstacle
    assert obstacle.isprintable()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_cache_that_is_a_file_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("mine")
    monkeypatch.setenv("SNNZOO_CACHE", str(tmp_path / "cache"))
    removed = []
    monkeypatch.setattr(atexit, "register", lambda *call, **_: removed.append(call))
    folder = build.cache_folder.__wrapped__("kernels")
    assert removed == [(shutil.rmtree, folder)]
    shutil.rmtree(folder)
    assert (tmp_path / "cache").read_text() == "mine"
