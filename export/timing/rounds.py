"""Subjects in turns, their milliseconds and what follows from them."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from zoo.errors import ZooError

WARM_UP = 3
"""Runs of each block that are not timed, after a first one that allocates."""
MAX_BATCH = 4096
MAX_THREADS = 4 * (os.cpu_count() or 1)


class Subject(Protocol):
    """What is timed."""

    @property
    def name(self) -> str:
        """Its name in a table."""

    @property
    def device(self) -> str:
        """Where it runs, "cpu" or "cuda"."""

    def ready(self, batch: int, threads: int) -> AbstractContextManager[Callable[[], Any]]:
        """Loaded, and run once: each call is a run on `batch` images. What it holds is gone at the end."""


def check_settings(batch_sizes: Sequence[int], threads: Sequence[int], runs: int, rounds: int) -> None:
    """Raise ZooError unless these can be timed."""
    limits = (("batch size", batch_sizes, MAX_BATCH), ("threads", threads, MAX_THREADS), ("runs", [runs], 10**6))
    for name, values, most in (*limits, ("rounds", [rounds], 10**4)):
        if not values or min(values) < 1 or max(values) > most:
            raise ZooError(f"{name} must lie in 1..{most}, not {list(values)}")


def time_all(
    subjects: Sequence[Subject], batch_sizes: Sequence[int], threads: Sequence[int], runs: int, rounds: int
) -> list[list[dict[str, Any]]]:
    """Latency of each subject in every setting, all with the same warm-up.

    Args:
        subjects: what is timed.
        batch_sizes, threads: every pair is a setting.
        runs: timed runs of each subject in each setting, dealt out over the rounds.
        rounds: in each, every subject has a turn at every setting; no more than there are runs.

    Returns:
        Rows as in `zoo.result.Latency`, a list for each subject, settings in the order of threads, then batch sizes.

    Raises:
        ZooError: settings out of bounds, or a subject that does not run.
    """
    check_settings(batch_sizes, threads, runs, rounds)
    settings = [(batch, n) for n in threads for batch in batch_sizes]
    times: list[list[list[float]]] = [[[] for _ in settings] for _ in subjects]
    rounds = min(rounds, runs)
    with tqdm(total=rounds * len(settings) * len(subjects), desc="latency", leave=False, disable=None) as bar:
        for turn in range(rounds):
            block = runs // rounds + (turn < runs % rounds)
            for j, (batch, n) in enumerate(settings):
                for subject, found in zip(subjects, times, strict=True):
                    found[j] += _block(subject, batch, n, block)
                    bar.update()
    return [[row(*setting, ms) for setting, ms in zip(settings, found, strict=True)] for found in times]


def _block(subject: Subject, batch: int, threads: int, runs: int) -> list[float]:
    times = []
    with subject.ready(batch, threads) as run:
        for i in range(WARM_UP + runs):
            begin = time.perf_counter()
            run()
            if i >= WARM_UP:
                times.append(1000 * (time.perf_counter() - begin))
    return times


def row(batch: int, threads: int, ms: Sequence[float]) -> dict[str, Any]:
    """What every single time of a setting comes to."""
    p50, p90, p95, p99 = map(float, np.percentile(ms, (50, 90, 95, 99)))
    return {
        "batch": batch, "threads": threads, "p50_ms": p50, "p90_ms": p90, "p95_ms": p95, "p99_ms": p99,
        "images_per_second": 1000 * batch / p50, "runs": len(ms), "ms": [round(value, 4) for value in ms],
    }  # fmt: skip
