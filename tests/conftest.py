"""What the tests share: no network, few threads, a tiny network, running commands as a user does.

The folders mirror those of the code. None of them is a package, or tests/zoo would stand in the way of zoo: so every
file has a name of its own.
"""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("SNNZOO_CACHE", str(ROOT / ".cache"))  # kernels built once for all processes of the tests

import pytest
import torch
from forks import Forks, as_module

from zoo.models.sresnet import SResNet


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def data_root() -> str:
    """The folder with the real CIFAR files; tests that need it are skipped without one."""
    root = os.environ.get("SNNZOO_DATA")
    if not root:
        pytest.skip("needs the real CIFAR files: set SNNZOO_DATA")
    return root


def tiny(**kwargs) -> SResNet:
    """A spiking ResNet of two blocks that still has every kind of layer."""
    return SResNet((2, 1), (8, 16), **{"stem": 4, "hidden": 16, "timesteps": 2} | kwargs)


def run_module(name: str, *arguments: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """`python -m ...` in a process of its own."""
    return run_code(as_module(name, *arguments), cwd, **env)


def run_code(code: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own, with the variables that are set here now."""
    return _forks().fork(code, cwd or ROOT, late=os.environ | {"PYTHONPATH": str(ROOT)} | env)


@functools.cache
def _forks() -> Forks:
    forks = Forks(dict(os.environ))
    atexit.register(forks.close)
    return forks


def assert_one_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """The command failed with one clear line that holds all the words, and no traceback."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    for word in words:
        assert word in errors[0], errors[0]
