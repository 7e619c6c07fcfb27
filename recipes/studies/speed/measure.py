"""How a step is timed and weighed: alternating runs, bytes that autograd keeps, the processor's matrix-product peak."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

Step = Callable[[], Any]


def alternate(steps: Mapping[str, Step], runs: int, warmup: int, device: torch.device) -> dict[str, dict[str, Any]]:
    """Time several steps in turn, so that a change in the machine's speed meets them alike.

    Returns:
        For each: `ms` of every timed run in order, median_ms, p10_ms, p90_ms, and first_step_ms: of the very first run,
        which also builds and tunes kernels.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in tqdm(range(warmup + runs), desc="bench", unit="round", disable=None, leave=False):
        for name, step in steps.items():
            times[name].append(_time(step, device))
    result = {}
    for name, ms in times.items():
        timed = sorted(ms[warmup:])
        cuts = statistics.quantiles(timed, n=10, method="inclusive") if len(timed) > 1 else timed * 9
        median = statistics.median(timed)
        row: dict[str, Any] = {"median_ms": median, "p10_ms": cuts[0], "p90_ms": cuts[8], "first_step_ms": ms[0]}
        result[name] = row | {"ms": [round(value, 3) for value in ms[warmup:]]}
    return result


def _time(step: Step, device: torch.device) -> float:
    """Milliseconds of one run: by CUDA's own events there, by the clock elsewhere."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        step()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end)
    begun = time.perf_counter()
    step()
    return 1e3 * (time.perf_counter() - begun)


def saved_bytes(forward: Step, weights: list[Tensor]) -> int:
    """Bytes that a forward pass keeps for its backward, each memory counted once; the weights themselves left out."""
    known = {weight.untyped_storage().data_ptr() for weight in weights}
    seen: dict[int, int] = {}
    keep = []

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in known:
            # What is saved of a view that repeats its memory is the memory.
            seen[storage.data_ptr()] = storage.nbytes()
            keep.append(x)  # no address may be used twice while we count
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        forward()
    return sum(seen.values())


def peak_bytes(step: Step, device: torch.device) -> int:
    """The most memory that tensors hold at once during a step, beyond what they held before it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as trace:
        step()
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def operations(step: Step) -> int:
    """Floating-point operations of the convolutions and matrix products of one step, two a multiply-add."""
    counter = FlopCounterMode(display=False)
    with counter:
        step()
    return int(counter.get_total_flops())


def matrix_peak(dtype: torch.dtype, device: torch.device) -> float:
    """Floating-point operations a second of the fastest of ten large matrix products in PyTorch on that device."""
    n = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n**3 / min(_time(lambda: a @ b, device) for _ in range(10)) * 1e3
