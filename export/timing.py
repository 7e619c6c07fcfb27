"""Times graphs in ONNX Runtime and networks in PyTorch in turns, and measures their memory and their operators.

A machine drifts, so what is compared takes turns: in each round, every subject runs a block of runs at each setting.
Two sessions of ONNX Runtime that are alive at once spin against each other, so a block has a session of its own, which
is gone before the next subject's begins; runs that are not timed warm it up first.
"""

import contextlib
import ctypes
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from recipes.processes import same_modules
from zoo.errors import ZooError, one_line, shown
from zoo.kernels.event_layers import event_driven
from zoo.metrics.evaluation import without_tf32
from zoo.plugins import load_plugin, plugin_files

from .commands import Settings
from .run import CPU, bind, create_session, device_of

WARM_UP = 3
"""Runs of each block that are not timed, after a first one that allocates."""
_PROFILED = 10
"""Runs at most for a profile."""
_AROUND = {"If", "Loop", "Scan"}
"""Of files from elsewhere: their time is that of the nodes inside, which are counted themselves."""
_STATUS = Path("/proc/self/status")


class Input(NamedTuple):
    """An input of a graph; an axis of 0 is the batch."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def sizes(self, batch: int) -> list[int]:
        """Returns the shape at a batch size."""
        return [size or batch for size in self.shape]


class TimedGraph(NamedTuple):
    """A graph in ONNX Runtime, inputs and outputs on the provider's device (I/O binding).

    What is timed has a `name` for a table, a `device`, "cpu" or "cuda", and `ready`.
    """

    name: str
    data: bytes
    inputs: list[Input]
    """The first takes `images`, or else the same normal noise every time; the others zeros, as states begin with."""
    outputs: list[str]
    provider: str = CPU
    optimization: str = "all"
    images: NDArray[np.float32] | None = None
    precision: str = "fp32"

    @property
    def device(self) -> str:
        """Where it runs."""
        return device_of(self.provider)

    @contextlib.contextmanager
    def ready(self, batch: int, threads: int) -> Iterator[Callable[[], Any]]:
        """Loads it and runs it once: each call is a run on `batch` images. What it holds is gone at the end."""
        session = create_session(self.data, provider=self.provider, optimization=self.optimization, threads=threads)
        run: Any = bind(session, self.outputs, self.feeds(batch))
        try:
            yield run
        finally:
            del run, session

    def feeds(self, batch: int) -> dict[str, NDArray[Any]]:
        """Returns what one run is given; a batch repeats the images, if there are fewer."""
        first, *others = self.inputs
        if self.images is None:
            noise = np.random.default_rng(0).standard_normal(first.sizes(batch), dtype=np.float32)
            fed = {first.name: noise.astype(first.dtype)}
        else:
            fed = {first.name: np.ascontiguousarray(np.resize(self.images[:batch], (batch, *self.images.shape[1:])))}
        return fed | {other.name: np.zeros(other.sizes(batch), other.dtype) for other in others}


def graph_of(proto: onnx.ModelProto, name: str, **how: Any) -> TimedGraph:
    """Returns a graph of ours that is in no file, to be timed."""
    (value,) = proto.graph.input
    shape = [d.dim_value for d in value.type.tensor_type.shape.dim][1:]
    return TimedGraph(name, proto.SerializeToString(), [Input(value.name, "float32", (0, *shape))], ["logits"], **how)


class TimedNetwork(NamedTuple):
    """A network in PyTorch, eager or compiled, in float32, neurons in the fused kernel where there is one."""

    name: str
    model: nn.Module
    size: Sequence[int]
    device: str = "cpu"
    compiled: bool = False
    events: bool = False
    """Convolutions skip zeros (`zoo.event_driven`)."""
    images: NDArray[np.float32] | None = None
    """Noise otherwise."""

    @contextlib.contextmanager
    def ready(self, batch: int, threads: int) -> Iterator[Callable[[], Any]]:
        """See `TimedGraph`."""
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            skipping = event_driven(self.model) if self.events else contextlib.nullcontext()
            with torch.inference_mode(), without_tf32(), skipping:
                yield self._run(batch)
        finally:
            torch.set_num_threads(before)

    def _run(self, batch: int) -> Callable[[], Any]:
        model: Any = self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        run = torch.compile(model, dynamic=False) if self.compiled else model
        if self.images is None:
            fed = np.random.default_rng(0).standard_normal((batch, *self.size), dtype=np.float32)
        else:
            fed = np.resize(self.images[:batch], (batch, *self.size))
        x = torch.from_numpy(fed).to(self.device)
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)

        def once() -> None:
            run(x)
            if self.device == "cuda":
                torch.cuda.synchronize()

        try:
            once()
        except Exception as error:  # of the compiler that PyTorch needs for it
            if not self.compiled:
                raise
            raise ZooError(f"torch.compile does not work here: {one_line(error)}") from error
        return once


Subject = TimedGraph | TimedNetwork


def time_all(subjects: Sequence[Subject], asked: Settings) -> list[list[dict[str, Any]]]:
    """Measures the latency of each subject in every setting, all with the same warm-up.

    Returns:
        Rows as in `zoo.result.Latency`, a list for each subject, in the order of `Settings.pairs`.
    """
    times: list[list[list[float]]] = [[[] for _ in asked.pairs] for _ in subjects]
    rounds = min(asked.rounds, asked.runs)
    with tqdm(total=rounds * len(asked.pairs) * len(subjects), desc="latency", leave=False, disable=None) as bar:
        for turn in range(rounds):
            block = asked.runs // rounds + (turn < asked.runs % rounds)
            for j, (batch, threads) in enumerate(asked.pairs):
                for subject, found in zip(subjects, times, strict=True):
                    with subject.ready(batch, threads) as run:
                        found[j] += [_milliseconds(run) for _ in range(WARM_UP + block)][WARM_UP:]
                    bar.update()
    return [[row(*pair, ms) for pair, ms in zip(asked.pairs, found, strict=True)] for found in times]


def _milliseconds(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - begin)


def row(batch: int, threads: int, ms: Sequence[float]) -> dict[str, Any]:
    """Returns what the single times of a setting come to, and these."""
    p50, p90, p95, p99 = map(float, np.percentile(ms, (50, 90, 95, 99)))
    return {
        "batch": batch, "threads": threads, "p50_ms": p50, "p90_ms": p90, "p95_ms": p95, "p99_ms": p99,
        "images_per_second": 1000 * batch / p50, "runs": len(ms), "ms": [round(value, 4) for value in ms],
    }  # fmt: skip


def operators(graph: TimedGraph, asked: Settings) -> list[dict[str, Any]]:
    """Measures the operators as ONNX Runtime runs them, after it fused some: operator, nodes, ms (of a run), share (of
    all nodes).

    The profile costs time itself, above all where nodes are small: shares are to be read, not sums. On a GPU it is the
    time of the launches.
    """
    (batch, threads), runs = asked.pairs[0], min(asked.runs, _PROFILED)
    with tempfile.TemporaryDirectory() as folder:
        how: dict[str, Any] = {"provider": graph.provider, "optimization": graph.optimization, "threads": threads}
        session = create_session(graph.data, **how, profile=Path(folder) / "profile")
        run = bind(session, graph.outputs, graph.feeds(batch))  # one run of the warm-up
        for _ in range(WARM_UP - 1 + runs):
            run()
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    since = sorted(event["ts"] for event in events if event.get("name") == "model_run")[WARM_UP]
    times: dict[str, float] = defaultdict(float)
    nodes: dict[str, set[str]] = defaultdict(set)
    for event in events:
        node = event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= since
        if node and (kind := event["args"]["op_name"]) not in _AROUND:
            times[kind] += event["dur"] / 1000 / runs
            nodes[kind].add(event["name"])
    total = sum(times.values()) or 1.0
    found = sorted(times.items(), key=lambda item: -item[1])
    return [
        {"operator": kind, "nodes": len(nodes[kind]), "ms": round(ms, 6), "share": ms / total} for kind, ms in found
    ]


def peak_bytes(subjects: Sequence[Subject], pairs: Sequence[tuple[int, int]]) -> list[list[int | None]]:
    """Measures the most memory that a process needed beyond Python, its libraries and the bytes of a graph: to make a
    session or load a network, and to run it.

    Each setting has a process of its own, forked from one that has only the libraries.

    Returns:
        A list for each subject, in the order of `pairs` (batch and threads); None where the system does not tell (Linux
        does), for what runs on a GPU, which has memory of its own, or where that process fails, which is said.
    """
    nothing: list[list[int | None]] = [[None for _ in pairs] for _ in subjects]
    if not _STATUS.exists() or any(subject.device != "cpu" for subject in subjects):
        return nothing
    # Pickled one by one, as each comes to life in a process of its own, after the plugins that it may be made of.
    try:
        jobs = pickle.dumps((plugin_files(), [pickle.dumps(subject) for subject in subjects], pairs))
    except Exception as error:  # a network of a user's that holds a lambda, say
        print(f"peak memory was not measured: {one_line(error)}", file=sys.stderr)
        return nothing
    words = [sys.executable, "-c", f"import {__name__}; {__name__}.answer_peak_bytes()"]
    done = subprocess.run(words, input=jobs, capture_output=True, env=os.environ | same_modules())
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        print(f"peak memory was not measured: {shown(why)}", file=sys.stderr)
        return nothing
    found: list[list[int | None]] = json.loads(done.stdout)
    for subject, peaks in zip(subjects, found, strict=True):
        if None in peaks:
            print(f"peak memory of {subject.name} was not measured: its process failed", file=sys.stderr)
    return found


def answer_peak_bytes() -> None:
    """Reads what `peak_bytes` asks for from standard input, and writes the answer."""
    answer = os.dup(1)
    os.dup2(2, 1)  # what a plugin prints is no part of the answer
    plugins, subjects, pairs = pickle.load(sys.stdin.buffer)
    for file in plugins:
        load_plugin(file)
    found = [[_peak_of_fork(subject, *pair) for pair in pairs] for subject in subjects]
    with open(answer, "w") as out:
        json.dump(found, out)


def _peak_of_fork(pickled: bytes, batch: int, threads: int) -> int | None:
    """Measures in a fork, whose peak so far is what it has now."""
    out, into = os.pipe()
    if (child := os.fork()) == 0:
        os.close(out)
        try:
            os.write(into, str(_peak_here(pickled, batch, threads)).encode())
        finally:
            os._exit(0)
    os.close(into)
    with open(out) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return int(text) if text else None  # nothing from one that failed, or was killed


def _peak_here(pickled: bytes, batch: int, threads: int) -> int:
    with contextlib.suppress(OSError, AttributeError):  # of glibc: what is free would be taken without being counted
        ctypes.CDLL(None).malloc_trim(0)
    before, files = _memory("VmRSS"), _memory("RssFile")
    subject: Subject = pickle.loads(pickled)
    if isinstance(subject, TimedGraph):  # which is read from a file
        before = _memory("VmRSS")
    elif subject.images is not None:  # no part of a network
        before += subject.images.nbytes
    with subject.ready(batch, threads) as run:
        run()
        run()
        # A fork has none of the libraries' pages until it touches them.
        touched = _memory("RssFile") - files
    return _memory("VmHWM") - before - touched


def _memory(key: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return 1024 * int(line.split()[1])
