"""Differences between the arms of an ablation, seed by seed: means, intervals, tests."""

import statistics
from collections.abc import Collection
from typing import Any, NamedTuple

from scipy import stats

from zoo.errors import ZooError

from .plan import Plan

WIDE = 0.5
"""A 95 % interval with a larger half-width, in points of accuracy, says nothing: "inconclusive". Nor does a narrower
one without 0 inside, where the test that is corrected for all contrasts finds no difference."""


class Interval(NamedTuple):
    """A mean of n values and the half-width of its 95 % interval (Student's t), None where all are one value, not 0."""

    mean: float
    half: float | None
    p: float | None = None
    """Of the two-sided t-test that the mean is 0."""

    def __str__(self) -> str:
        return f"{self.mean:+.2f}" + ("" if self.half is None else f" ± {self.half:.2f}")


class Difference(NamedTuple):
    """An arm minus another, over the seeds that both have."""

    arm: str
    other: str
    pairs: int
    top1: Interval
    """In points."""
    spikes: Interval | None
    """In percent of the other's; of a network that never spiked there is no percentage."""
    top1_p: float | None
    spikes_p: float | None
    """Corrected by Holm's method (1979) over all contrasts of the plan, for each measure by itself; those that have no
    pair yet count as tests."""

    @property
    def verdict(self) -> str:
        """What it says of accuracy: a difference is one that the corrected test finds."""
        if self.top1.half is None or self.top1_p is None:
            return "one pair" if self.pairs == 1 else "no variance"
        if self.top1_p < 0.05:
            return "higher" if self.top1.mean > 0 else "lower"
        wide = self.top1.half > WIDE or abs(self.top1.mean) > self.top1.half
        return "inconclusive" if wide else "no difference"


def interval(values: list[float]) -> Interval:
    """Of the mean of some values."""
    if len(values) < 2:
        return Interval(values[0], None)
    mean, error = statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5
    freedom = len(values) - 1
    if mean and error < 1e-9 * abs(mean):  # all alike: without a variance no test can tell what chance does
        return Interval(mean, None)
    p = 2 * float(stats.t.sf(abs(mean) / error, freedom)) if error else 1.0
    return Interval(mean, float(stats.t.ppf(0.975, freedom) * error), p)


def differences(plan: Plan, seeds: Collection[int] | None = None) -> list[Difference]:
    """Those of a plan's contrasts that have a pair of runs, over all seeds or some."""
    _check_images(plan)
    among = plan.seeds if seeds is None else seeds
    found = [(arm, other, pair) for arm, other in plan.contrasts if (pair := _paired(plan, arm, other, among))]
    tests = len(plan.contrasts)
    top1_p = holm([top1.p for _, _, (_, top1, _) in found], tests)
    spikes_p = holm([spikes.p if spikes else None for _, _, (_, _, spikes) in found], tests)
    return [Difference(arm, other, *pair, *p) for (arm, other, pair), *p in zip(found, top1_p, spikes_p, strict=True)]


def _paired(plan: Plan, arm: str, other: str, among: Collection[int]) -> tuple[int, Interval, Interval | None] | None:
    a, b = plan.results(arm), plan.results(other)
    seeds = [seed for seed in a if seed in b and seed in among]
    if not seeds:
        return None
    for seed in seeds:
        if not _same_arithmetic(a[seed], b[seed]):
            names = f"{arm}.seed{seed}.json and {other}.seed{seed}.json"
            raise _not_alike(plan, names, "were trained in other arithmetic (train_precision, or the processor)")
    top1 = interval([a[s]["top1"] - b[s]["top1"] for s in seeds])
    if not all(b[s]["spikes_per_image"] for s in seeds):
        return len(seeds), top1, None
    return len(seeds), top1, interval([100 * (a[s]["spikes_per_image"] / b[s]["spikes_per_image"] - 1) for s in seeds])


def _check_images(plan: Plan) -> None:
    """Raise ZooError unless all results are of the same images."""
    first: dict[str, str] = {}
    for run in plan.runs:
        if result := plan.result_of(run):
            first.setdefault(result["data_sha256"], f"{run.name}.json")
            if len(first) > 1:
                raise _not_alike(plan, " and ".join(first.values()), "were measured on other images (data_sha256)")


def _not_alike(plan: Plan, names: str, why: str) -> ZooError:
    return ZooError(f"{plan.folder}: {names} {why}: move one away")


def _same_arithmetic(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two results were trained in one precision; where one does not say it, on one processor, which decides
    what `amp: auto` is."""
    if "train_precision" in a and "train_precision" in b:
        return bool(a["train_precision"] == b["train_precision"])
    places = [result["machine"]["gpu"] or result["machine"]["cpu"] for result in (a, b)]
    return bool(places[0] == places[1])


def holm(values: list[float | None], tests: int) -> list[float | None]:
    """p-values corrected for a number of tests by Holm's method (Scandinavian Journal of Statistics 6, 1979).

    Args:
        values: of the tests that were made so far, the others' may be larger; None stays.
        tests: how many there are in all.
    """
    order = sorted((p, i) for i, p in enumerate(values) if p is not None)
    corrected, largest = list(values), 0.0
    for rank, (p, i) in enumerate(order):
        largest = corrected[i] = max(largest, min(1.0, (tests - rank) * p))
    return corrected


def p_value(p: float | None) -> str:
    """For a table."""
    return "—" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
