"""Differences between the arms of an ablation, seed by seed: means, intervals, tests."""

import statistics
from collections import defaultdict
from collections.abc import Collection
from typing import Any, NamedTuple

from scipy import stats

from zoo.errors import ZooError

from .plan import Plan

WIDE = 0.5
"""Points of accuracy: there is "no difference" where all of the 95 % interval is nearer to 0. One that reaches further
says nothing, "inconclusive". Nor does one without 0 inside, where the test that is corrected for all contrasts finds no
difference."""


Pair = tuple[dict[str, Any], dict[str, Any]]
"""Results of one seed, of two arms."""


class Interval(NamedTuple):
    """A mean of n values and the half-width of its 95 % interval (Student's t), None where all are one value, not 0."""

    mean: float
    half: float | None
    p: float | None = None
    """The two-sided t-test's, that the mean is 0."""

    def __str__(self) -> str:
        return f"{self.mean:+.2f}" + ("" if self.half is None else f" ± {self.half:.2f}")


class Difference(NamedTuple):
    """An arm minus another, over the seeds that both have."""

    arm: str
    other: str
    pairs: int
    across: int
    """How many of the pairs are of two processors."""
    top1: Interval
    """In points."""
    spikes: Interval | None
    """In percent of the other's; for a network that never spiked there is no percentage."""
    top1_p: float | None
    spikes_p: float | None
    """Corrected by Holm's method (1979) over all contrasts of the plan, for each measure by itself; those that have no
    pair yet count as tests."""

    @property
    def cells(self) -> list[Any]:
        """What a table has of it: arm, other arm, pairs, top-1 and verdict, its p, spikes, their p."""
        top1 = (self.top1, self.verdict, p_value(self.top1_p))
        return [self.arm, self.other, self.pairs, *top1, self.spikes or "—", p_value(self.spikes_p)]

    @property
    def verdict(self) -> str:
        """What it says of accuracy: a difference is one that the corrected test finds."""
        if self.top1.half is None or self.top1_p is None:
            return "one pair" if self.pairs == 1 else "no variance"
        if self.top1_p < 0.05:
            return "higher" if self.top1.mean > 0 else "lower"
        wide = abs(self.top1.mean) + self.top1.half > WIDE or abs(self.top1.mean) > self.top1.half
        return "inconclusive" if wide else "no difference"


def interval(values: list[float]) -> Interval:
    """Returns the mean of some values with its interval."""
    if len(values) < 2:
        return Interval(values[0], None)
    mean, error = statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5
    freedom = len(values) - 1
    if mean and error < 1e-9 * abs(mean):  # all alike: without a variance no test can tell what chance does
        return Interval(mean, None)
    p = 2 * float(stats.t.sf(abs(mean) / error, freedom)) if error else 1.0
    return Interval(mean, float(stats.t.ppf(0.975, freedom) * error), p)


def differences(plan: Plan, seeds: Collection[int] | None = None, one_processor: bool = False) -> list[Difference]:
    """Returns the differences of a plan's contrasts that have a pair of runs: of these seeds, of one processor.

    Raises:
        ZooError: results are not of the same images, initial weights or arithmetic.
    """
    _check_images(plan)
    among = plan.seeds if seeds is None else seeds
    pairs = {(arm, other): _pairs(plan, arm, other, among, one_processor) for arm, other in plan.contrasts}
    points = {names: interval([a["top1"] - b["top1"] for a, b in of]) for names, of in pairs.items() if of}
    found = {names: (top1, _percent(pairs[names])) for names, top1 in points.items()}
    top1_p = holm([top1.p for top1, _ in found.values()], len(pairs))
    spikes_p = holm([spikes.p if spikes else None for _, spikes in found.values()], len(pairs))
    return [
        Difference(*names, len(pairs[names]), sum(not _on_one(*pair) for pair in pairs[names]), *both, *p)
        for (names, both), *p in zip(found.items(), top1_p, spikes_p, strict=True)
    ]


def processors(result: dict[str, Any]) -> list[str]:
    """Returns the GPU of a run, or its CPU; several where it was resumed elsewhere."""
    machines = [part["machine"] for part in (result, *result.get("resumed_with", ()))]
    return list(dict.fromkeys(str(machine["gpu"] or machine["cpu"]) for machine in machines))


def _on_one(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Returns whether one processor ran both."""
    return len({*processors(a), *processors(b)}) == 1


def _pairs(plan: Plan, arm: str, other: str, among: Collection[int], one_processor: bool) -> list[Pair]:
    a, b = plan.results(arm), plan.results(other)
    pairs = []
    for seed in (seed for seed in a if seed in b and seed in among):
        asked_alike = a[seed]["recipe"].get("amp") == b[seed]["recipe"].get("amp")
        if asked_alike and not _same_arithmetic(a[seed], b[seed]):
            names = f"{arm}.seed{seed}.json and {other}.seed{seed}.json"
            raise _not_alike(plan, names, "were trained in other arithmetic (train_precision, or the processor)")
        if not one_processor or _on_one(a[seed], b[seed]):
            pairs.append((a[seed], b[seed]))
    return pairs


def _percent(pairs: list[Pair]) -> Interval | None:
    spikes = [(a["spikes_per_image"], b["spikes_per_image"]) for a, b in pairs]
    return interval([100 * (x / y - 1) for x, y in spikes]) if all(y for _, y in spikes) else None


def _check_images(plan: Plan) -> None:
    """Raises ZooError unless all results are of the same images, and those that start from one checkpoint of the same
    weights."""
    images: dict[str, str] = {}
    weights: dict[str | None, dict[str, str]] = defaultdict(dict)
    for run in plan.runs:
        if not (result := plan.result_of(run)):
            continue
        images.setdefault(result["data_sha256"], f"{run.name}.json")
        if len(images) > 1:
            raise _not_alike(plan, " and ".join(images.values()), "were measured on other images (data_sha256)")
        if before := result.get("started_from"):
            of = weights[run.recipe.init]
            of.setdefault(before[0]["weights_sha256"], f"{run.name}.json")
            if len(of) > 1:
                raise _not_alike(plan, " and ".join(of.values()), f"started from other weights of {run.recipe.init}")


def _not_alike(plan: Plan, names: str, why: str) -> ZooError:
    return ZooError(f"{plan.folder}: {names} {why}: move one away")


def _same_arithmetic(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Returns whether two results were trained in one precision; where one does not say it, on one processor, which
    decides what `amp: auto` is."""
    if "train_precision" in a and "train_precision" in b:
        return bool(a["train_precision"] == b["train_precision"])
    return _on_one(a, b)


def holm(values: list[float | None], tests: int) -> list[float | None]:
    """Corrects p-values for a number of tests by Holm's method (Scandinavian Journal of Statistics 6, 1979); those of
    tests that were not made yet may be larger, and None stays."""
    order = sorted((p, i) for i, p in enumerate(values) if p is not None)
    corrected, largest = list(values), 0.0
    for rank, (p, i) in enumerate(order):
        largest = corrected[i] = max(largest, min(1.0, (tests - rank) * p))
    return corrected


def p_value(p: float | None) -> str:
    """Returns a p-value as tables have it."""
    return "—" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
