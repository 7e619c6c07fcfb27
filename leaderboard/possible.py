"""Numbers that no network gives: what the numbers of a result must say of each other."""

import math
import statistics
from collections.abc import Iterator

from zoo.errors import ZooError
from zoo.metrics import energy

from .records import differences, parts
from .row import Result

_EXACT = 1e-6  # relative: sums of a few numbers in float64


def check_possible(result: Result, origin: str) -> None:
    """Raise ZooError, with the reason, for numbers that no network gives."""
    for place, part in parts(origin, result).items():
        for rule in (_spikes, _accuracy, _latency, _operations):
            for reason in rule(part):
                raise ZooError(f"{place}: impossible: {reason}")
    if result["kind"] == "measurement" and (said := result["spikes_differ"]) != (now := differences(result["parts"])):
        raise ZooError(f"{origin}: impossible: spikes_differ is {said}, by the spikes of its parts it is {now}")


def _spikes(part: Result) -> Iterator[str]:
    total = part["spikes_per_image"]
    for key in ("spikes_per_layer", "spikes_per_step"):
        if (values := part[key]) is not None:
            spikes = math.fsum(values.values() if isinstance(values, dict) else values)
            if total is None or not math.isclose(spikes, total, rel_tol=_EXACT, abs_tol=_EXACT):
                yield f"{key} sums to {spikes:,.4f}, spikes_per_image is {total}"
    if total is not None and (updates := part.get("membrane_updates")) is not None:
        if total > updates * (1 + _EXACT):
            yield f"{total:,.0f} spikes of {updates:,.0f} neurons and time steps"
        sparsity = part.get("activation_sparsity")
        if sparsity is not None and updates and not math.isclose(sparsity, 1 - total / updates, abs_tol=_EXACT):
            yield f"activation_sparsity {sparsity} of {total} spikes, {updates} places"


def _accuracy(part: Result) -> Iterator[str]:
    shares = {key: share for key in ("top1", "top5") if (share := part.get(key)) is not None}
    if shares.get("top5", 100) < shares.get("top1", 0):
        yield f"top5 {shares['top5']} is less than top1 {shares['top1']}"
    for key, share in shares.items() if (images := part["images"]) else ():
        right = share * images / 100
        if not math.isclose(right, round(right), abs_tol=1e-6 * images):
            yield f"{key} {share} is no whole number of {images} images"


def _latency(part: Result) -> Iterator[str]:
    for entry in part.get("latency") or ():
        times = entry.get("ms")
        if times and not math.isclose(entry["p50_ms"], statistics.median(times), rel_tol=0.01, abs_tol=1e-3):
            yield f"p50_ms {entry['p50_ms']} is not the median of its times"


def _operations(part: Result) -> Iterator[str]:
    for counted in (part, part.get("products") or {}, part.get("stem") or {}):
        effective = sum(counted.get(key) or 0 for key in ("Effective_ACs", "Effective_MACs"))
        if counted.get("Dense") is not None and effective > counted["Dense"] * (1 + _EXACT):
            yield f"{effective:,.0f} effective operations of {counted['Dense']:,.0f}"
    if (claimed := part.get("energy_uj")) is not None:
        cost = energy(part)
        if cost is None or not math.isclose(claimed, cost["total"], rel_tol=_EXACT):
            formula = "its operations are unknown" if cost is None else f"the formula gives {cost['total']}"
            yield f"energy_uj is {claimed}, {formula}"
