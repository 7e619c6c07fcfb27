"""What the tests share: no network, few threads, a tiny network, results, running commands as a user does.

The folders mirror those of the code. None of them is a package, or tests/zoo would stand in the way of zoo: so every
file has a name of its own.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import subprocess
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("SNNZOO_CACHE", str(ROOT / ".cache"))  # kernels built once for all processes of the tests

import pytest
import timm
import torch
from forks import Forks, as_module
from hypothesis import settings
from quick import read_operators_once
from torch import nn

from zoo import neurons, plugins
from zoo.files import LOCK
from zoo.models.sresnet import SResNet
from zoo.names import ARCHITECTURES, OWN_DATASETS, plain_name
from zoo.neurons import surrogate
from zoo.scaling.rules import PRESETS

# The same cases on every run, so that nobody's change fails by a case of chance; with
# `--hypothesis-profile=explore` many new ones.
settings.register_profile("same", max_examples=60, deadline=None, derandomize=True)
settings.register_profile("explore", max_examples=2000, deadline=None)
settings.load_profile("same")
read_operators_once()
gc.set_threshold(200_000, 50, 100)  # the exporter's many small objects wake the collector, for nothing


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def registered_here_only(monkeypatch):
    """What a test registers, itself or by a plugin, is gone after it."""
    monkeypatch.setattr(plugins, "_LOADED", {})
    monkeypatch.setattr(neurons, "_NEURONS", dict(neurons._NEURONS))
    monkeypatch.setattr(surrogate, "_SURROGATES", dict(surrogate._SURROGATES))
    before, kept = set(ARCHITECTURES), [(known, dict(known)) for known in (PRESETS, OWN_DATASETS)]
    yield
    for known, entries in kept:
        known.clear()
        known.update(entries)
    for name in ARCHITECTURES - before:
        ARCHITECTURES.remove(name)
        del timm.models._registry._model_entrypoints[name]


@pytest.fixture(scope="module")
def one_thread():
    """The tests of a file on one thread of PyTorch's, so that what they compare repeats."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def data_root() -> str:
    """The folder with the real CIFAR files; tests that need it are skipped without one."""
    root = os.environ.get("SNNZOO_DATA")
    if not root:
        pytest.skip("needs the real CIFAR files: set SNNZOO_DATA")
    return root


def tiny(depths=(2, 1), **kwargs) -> SResNet:
    """A spiking ResNet of three blocks that still has every kind of layer."""
    return SResNet(depths, (8, 16), **{"stem": 4, "hidden": 16, "timesteps": 2} | kwargs)


def awake(model):
    """A network in evaluation mode, with the running statistics of a batch: in fresh ones most layers never spike."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    steps = [model.timesteps] if model.encoding == "frames" else []
    x = torch.randn(8, *steps, *model.pretrained_cfg["input_size"], dtype=next(model.parameters()).dtype)
    with torch.no_grad():
        model.train()(x)
        assert not torch.equal(*model.eval()(x[:2])), "the logits are the same for every image"
    return model


@functools.cache
def small_families() -> list[str]:
    """The smallest network of every family of the zoo."""
    from recipes.health import small_forms

    return sorted(map(plain_name, small_forms()))


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


def train_and_stop(recipe: Any, epochs: int) -> None:
    """A training that is interrupted at the end of this many epochs."""
    from recipes.train import Trainer, train

    end_epoch = Trainer._end_epoch

    def end_and_stop(trainer: Any, epoch: int) -> dict[str, Any]:
        row = end_epoch(trainer, epoch)
        if epoch + 1 == epochs:
            raise KeyboardInterrupt
        return row

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_end_epoch", end_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe)


def assert_one_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """The command failed with one clear line that holds all the words, and no traceback."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    for word in words:
        assert word in errors[0], errors[0]


_COMMON = {
    "schema": 1, "model": "sresnet19", "tag": "t2_cifar10", "dataset": "cifar10", "split": "test", "images": 10_000,
    "top1": 90.0, "spikes_per_image": 1000.0, "spikes_per_layer": {"stem.lif": 400.0, "head.lif": 600.0},
    "spikes_per_step": [450.0, 550.0], "timesteps": 2, "epochs": 100, "seed": 0, "weights_sha256": "a" * 64,
    "command": "python -m recipes.train sresnet19.t2_cifar10", "commit": "0" * 40, "date": "2026-01-31T12:00:00Z",
    "versions": {"torch": "2.11"},
    "machine": {"system": "Linux", "cpu": "a cpu", "cores": 8, "threads": 4, "gpu": None},
}  # fmt: skip


def accuracy(**changes: Any) -> dict[str, Any]:
    """A result as recipes.train writes it."""
    own = {
        "kind": "accuracy", "top5": None, "params": 12_600_000, "train_images": 50_000, "scaling": None,
        "precision": "bf16", "train_seconds": 600.0, "comparison": "plain_vs_gs", "test_reads": 6,
        "data_sha256": "d" * 64,
    }  # fmt: skip
    return _COMMON | own | changes


def onnx(**changes: Any) -> dict[str, Any]:
    """A result as export.bench_ort writes it."""
    own = {
        "kind": "onnx", "top1": 89.75, "test_reads": 1, "command": "python -m export.bench_ort", "precision": "fp32",
        "layout": "flat", "provider": "CPUExecutionProvider", "optimization": "all", "onnx_sha256": "e" * 64,
        "onnx_bytes": 50_000_000, "latency": [latency(4, 1, 30.0), latency(1, 1, 12.5), latency(1, 4, 5.0)],
    }  # fmt: skip
    return _COMMON | own | changes


def ancestor(**changes: Any) -> dict[str, Any]:
    """What a result says of a checkpoint that its training started from."""
    own = {"name": "x", "weights_sha256": "f" * 64, "epochs": 1, "train_seconds": 1.0, "recipe_sha256": None}
    return own | changes


def put(path: Path, content: Any) -> Path:
    """Writes a JSON file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def snapshot(folder: Path) -> dict[Path, bytes]:
    """The files of a folder, and what they hold; but for locks."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != LOCK}


def latency(batch: int, threads: int, p50: float) -> dict[str, Any]:
    """An entry of the latency of one."""
    return {"batch": batch, "threads": threads, "p50_ms": p50, "p95_ms": p50 + 1, "runs": 50}
