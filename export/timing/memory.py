"""How much memory a subject needs: each setting in a process of its own, forked from one that has only the libraries.

Run as a module, it is that process: it reads a pickled `Jobs` from its standard input.
"""

import contextlib
import ctypes
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from recipes.processes import same_modules
from zoo.errors import shown
from zoo.plugins import load_plugin, plugin_files

from .rounds import Subject
from .subjects import Graph

_RUNS = 2
_STATUS = Path("/proc/self/status")


class Jobs(NamedTuple):
    """What is measured. Subjects are pickled by themselves, as each is to come to life in a process of its own."""

    subjects: list[bytes]
    settings: list[tuple[int, int]]
    """Batch and threads."""


def peak_bytes(
    subjects: Sequence[Subject], batch_sizes: Sequence[int], threads: Sequence[int]
) -> list[list[int | None]]:
    """The most memory that a process needed beyond Python, its libraries and the bytes of a graph: to make a session or
    load a network, and to run it.

    Returns:
        A list for each subject, in the order of `time_all`; None where the system does not tell (Linux does), for what
        runs on a GPU, which has memory of its own, or where that process fails, which is said.
    """
    settings = [(batch, n) for n in threads for batch in batch_sizes]
    if not _STATUS.exists() or any(subject.device != "cpu" for subject in subjects):
        return [[None for _ in settings] for _ in subjects]
    jobs = plugin_files(), Jobs([pickle.dumps(subject) for subject in subjects], settings)
    words = [sys.executable, "-m", __name__]
    given = b"".join(map(pickle.dumps, jobs))
    done = subprocess.run(words, input=given, capture_output=True, env=os.environ | same_modules())
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        print(f"peak memory was not measured: {shown(why)}", file=sys.stderr)
        return [[None for _ in settings] for _ in subjects]
    found: list[list[int | None]] = json.loads(done.stdout)
    for subject, peaks in zip(subjects, found, strict=True):
        if None in peaks:
            print(f"peak memory of {subject.name} was not measured: its process failed", file=sys.stderr)
    return found


def main() -> None:
    """The process that is forked."""
    answer = os.dup(1)
    os.dup2(2, 1)  # what a plugin prints is no part of the answer
    for file in pickle.load(sys.stdin.buffer):
        load_plugin(file)
    jobs = pickle.load(sys.stdin.buffer)
    found = [[_forked(subject, *setting) for setting in jobs.settings] for subject in jobs.subjects]
    with open(answer, "w") as out:
        json.dump(found, out)


def _forked(pickled: bytes, batch: int, threads: int) -> int | None:
    """Measured in a fork, whose peak so far is what it has now."""
    out, into = os.pipe()
    if (child := os.fork()) == 0:
        os.close(out)
        try:
            os.write(into, str(_needed(pickled, batch, threads)).encode())
        finally:
            os._exit(0)
    os.close(into)
    with open(out) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return int(text) if text else None  # nothing from one that failed, or was killed


def _needed(pickled: bytes, batch: int, threads: int) -> int:
    with contextlib.suppress(OSError, AttributeError):  # of glibc: what is free would be taken without being counted
        ctypes.CDLL(None).malloc_trim(0)
    before, files = _status("VmRSS"), _status("RssFile")
    subject: Subject = pickle.loads(pickled)
    if isinstance(subject, Graph):  # which is read from a file
        before = _status("VmRSS")
    with subject.ready(batch, threads) as run:
        for _ in range(_RUNS):
            run()
        # A fork has none of the libraries' pages until it touches them.
        touched = _status("RssFile") - files
    return _status("VmHWM") - before - touched


def _status(key: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
