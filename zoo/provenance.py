"""Where a number comes from: command, commit, date, versions, machine, plugins."""

import contextlib
import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .errors import shown
from .names import split_folder
from .plugins import loaded_plugins

_LONGEST = 8000
_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("torch", "torchvision", "timm", "numpy", "onnx", "onnxruntime-gpu", "onnxruntime", "snn-zoo")


def provenance(*, gpu: bool = False) -> dict[str, Any]:
    """Returns the fields that every measurement file carries: command, commit, date, versions, machine, plugins; a GPU
    is named only if the measurement was made on it."""
    return {
        "command": command(),
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in _PACKAGES if _version(p)},
        "machine": machine(gpu),
        "plugins": loaded_plugins(),
    }


def command() -> str:
    """Returns the command line of this process, to be typed again: `snn-zoo train ...`, `python -m ...`; paths are as
    `without_folders` leaves them, and what cannot be printed is an escape."""
    arguments = [without_folders(word) for word in sys.argv[1:]]
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    start, world = [], os.environ.get("WORLD_SIZE", "1")
    if several := "RANK" in os.environ and world.isdecimal() and int(world) > 1:
        here = os.environ.get("LOCAL_WORLD_SIZE", world)
        nodes = str(int(world) // int(here))
        start = ["torchrun", *(["--nnodes", nodes] if nodes != "1" else []), "--nproc-per-node", here]
    if spec is None:  # a script, as snn-zoo is one
        words = [*start, *(["--no-python"] if several else []), Path(sys.argv[0]).name]
    else:
        words = [*(start or ["python"]), "-m", spec.name.removesuffix(".__main__")]
    return shown(shlex.join([*words, *arguments]), _LONGEST)


def without_folders(word: str) -> str:
    """Cuts a path out of the working directory, also in --option=PATH, folder:PATH and the like, to its last part:
    where somebody keeps files is no part of a result."""
    option, sign, value = word.partition("=") if word.startswith("--") else ("", "", word)
    kind, path = split_folder(value)
    outside = os.path.isabs(path) or path.startswith(("~", ".."))
    return f"{option}{sign}{kind}{Path(path).name}" if outside else word


_PAGES = [f":(exclude,glob)recipes/studies/ablation/plans/*/{name}" for name in ("README.md", "plot.svg")]


def commit() -> str | None:
    """Returns the commit of the checkout that this package runs from, `-dirty` if it has changes, but for the pages
    that an ablation renders beside its results; None outside one."""
    try:
        top = _git("rev-parse", "--show-toplevel")
        if Path(top).resolve() != _ROOT:
            return None
        # --no-optional-locks: a measurement must not wait for, or write to, the index.
        dirty = _git("--no-optional-locks", "status", "--porcelain", "--untracked-files=no", "--", ".", *_PAGES)
        return _git("rev-parse", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def machine(gpu: bool) -> dict[str, Any]:
    """Names operating system, processor, threads of PyTorch, and the GPU if that was used, else None."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_line("model name").split(":", 1)[-1].strip() or "unknown",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if gpu and torch.cuda.is_available() else None,
        "instruction_set": _instruction_set(),
    }


def _instruction_set() -> str:
    byte_products = re.search(r"\b(avx512_|avx_)vnni\b", cpu_line("flags"))
    return torch.backends.cpu.get_cpu_capability() + (" VNNI" if byte_products else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(_ROOT), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpu_line(*starts: str) -> str:
    """Returns the first line of /proc/cpuinfo that starts so; without one, what Python knows of the processor."""
    with contextlib.suppress(OSError, StopIteration):
        return next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(starts))
    return platform.processor()
