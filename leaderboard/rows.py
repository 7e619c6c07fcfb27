"""From results to rows: merge what is one run, average what is one recipe."""

import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean, median, stdev
from typing import Any

from recipes.lineage import ancestors_of, is_of_this_project, known_runs
from zoo.errors import ZooError, shown
from zoo.result import Costs, when

from .row import Graph, Row
from .store import Result, Results, parts

# Training facts: a later validation of the same weights may not know them, so they come from the older file.
_TRAINING = ("train_images", "epochs", "seed", "scaling", "train_seconds")
_RECIPE = ("recipe_sha256", "started_from", "recipe")
# A mean over runs that differ in one of these would mean nothing.
_ALIKE = ("train_images", "epochs", "images", "scaling")
# Nor over files of the same weights: run for more time steps they are another network.
_NETWORK = ("timesteps", "params")
# Means over runs: from a row's field to the key of a result.
_MEANS = {
    "effective_acs": "Effective_ACs", "effective_macs": "Effective_MACs", "dense": "Dense",
    **{key: key for key in ("spikes_per_image", "energy_uj", "activation_sparsity", "membrane_updates")},
    **{key: key for key in ("footprint_bytes", "connection_sparsity")},
}  # fmt: skip
_TOLERANCE = 0.5  # points of top-1 between two measurements of the same weights


def rows(results: Results) -> list[Row]:
    """Makes a row for each dataset, model and tag that was measured on a test split: by dataset, then best top-1 first.

    Measurements of the same weights are one run: the one over most images counts, of these the newest. Measurements
    that disagree, a seed that was trained twice, a part of a test set of which others have more and an ONNX measurement
    without a row are reported on stderr.

    Raises:
        ZooError: files that would share a row differ in one of `_NETWORK`, or runs in one of `_ALIKE`; or results
            of one data set are of different images.
    """
    groups: dict[tuple[str, str, str], dict[str, Result]] = defaultdict(dict)
    graphs: dict[str, Result] = {}
    most: dict[str, int] = defaultdict(int)  # from data set to the most test images of a result
    for origin, result in (item for file, whole in results.items() for item in parts(file, whole).items()):
        if result["kind"] == "onnx":
            graphs[origin] = result
        elif result["split"] == "test":
            groups[result["dataset"], result["model"], result["tag"]][origin] = result
            most[result["dataset"]] = max(most[result["dataset"]], result["images"])
    everything = {origin: result for group in groups.values() for origin, result in group.items()}
    for dataset in most:
        same_name = {origin: result for origin, result in everything.items() if result["dataset"] == dataset}
        _check_alike(same_name, ("data_sha256",), f"results of {dataset}")
    # Earlier stages of a training, which come with the code, may have no place on the board.
    reads = _test_reads([*everything.values(), *(run.result for run in known_runs().values() if run.result)])
    table = [_row(group, graphs, reads) for group in groups.values()]
    shown = {origin for row in table for origin, _ in row.evidence}
    for origin in sorted(graphs.keys() - shown):
        _warn(f"{origin} is in no row: no test result in the table has its weights, dataset and timesteps")
    for row in table:
        if (row.images or 0) < most[row.dataset]:
            _warn(f"{row.path} is left out: {row.images} test images, where others have {most[row.dataset]}")
    kept = [row for row in table if row.images == most[row.dataset]]
    return sorted(kept, key=lambda row: (row.dataset, -row.top1, row.name))


Reads = dict[tuple[str, str], tuple[str, int]]


def _test_reads(results: Iterable[Result]) -> Reads:
    """Returns the comparison of some weights and how often it read a test set, by data set and weights: as often as its
    results state, or as many as there are where these are more; of two names of the same weights, that with more."""
    weights: dict[tuple[str, str], set[str]] = defaultdict(set)
    stated: dict[tuple[str, str], int] = defaultdict(int)
    for result in results:
        if result["split"] == "test":
            key = result["dataset"], result["comparison"]
            weights[key].add(result["weights_sha256"])
            stated[key] = max(stated[key], result["test_reads"] or 0)
    found: Reads = {}
    for (dataset, comparison), measured in sorted(weights.items()):
        reads = max(stated[dataset, comparison], len(measured))
        for sha256 in measured:
            if reads > found.get((dataset, sha256), ("", 0))[1]:
                found[dataset, sha256] = comparison, reads
    return found


def _row(group: dict[str, Result], all_graphs: Results, reads: Reads) -> Row:
    _check_alike(group, _NETWORK)
    runs = _one_per_weights(group)
    _check_alike(runs, ("recipe_sha256",))  # first, or of two recipes the newer would go for the seed trained again
    runs = _one_per_seed(runs)
    _check_alike(runs, _ALIKE)
    first = next(iter(runs.values()))
    top1 = [run["top1"] for run in runs.values()]
    weights = {run["weights_sha256"] for run in runs.values()}
    graphs = {
        origin: graph
        for origin, graph in all_graphs.items()
        if graph["weights_sha256"] in weights
        and graph["dataset"] in (None, first["dataset"])
        and graph["timesteps"] == first["timesteps"]  # the same weights, unrolled further, are another network
    }
    # Of a run, every file: the newest gives the numbers, the oldest is often the one with the training command.
    files = {origin: result for origin, result in group.items() if result["weights_sha256"] in weights}
    evidence = (*files.items(), *graphs.items())
    reference: Result = next((found for _, result in evidence if (found := result.get("reference"))), {})
    chains = [(run, *(ancestor.model_dump() for ancestor in run["started_from"])) for run in runs.values()]
    epochs, seconds = ([_total(chain, key) for chain in chains] for key in ("epochs", "train_seconds"))
    stages = {(first["dataset"], part["weights_sha256"]) for chain in chains for part in chain}
    read_by = {reads[stage] for stage in stages if stage in reads}
    return Row(
        dataset=first["dataset"],
        model=first["model"],
        tag=first["tag"],
        tier="measured" if _is_ours(runs) else "checkpoint",
        top1=fmean(top1),
        runs=len(runs),
        images=first["images"],
        top1_std=stdev(top1) if len(top1) > 1 else None,
        timesteps=first["timesteps"],
        params=first["params"],
        scaling=_reduce(max, runs, "scaling"),
        comparison=first["comparison"],
        test_reads=sum(count for _, count in read_by),
        recipe_sha256=first["recipe_sha256"],
        recipe=first["recipe"],
        started_from=first["started_from"],
        epochs=max((total for total in epochs if total is not None), default=None),
        train_seconds=median(known) if (known := [total for total in seconds if total is not None]) else None,
        least_firing_rate=_reduce(_least, runs, "firing_rates"),
        **{field: _reduce(fmean, runs, key) for field, key in _MEANS.items()},
        graphs=_best_graphs(graphs, runs),
        commits=tuple(sorted({commit for result in files.values() for commit in _commits(result)})),
        dirty=any(commit.endswith("-dirty") for _, result in evidence for commit in _commits(result)),
        evidence=evidence,
        published_top1=reference.get("top1"),
        published_spikes_per_image=reference.get("spikes_per_image"),
        published_citation=reference.get("citation"),
    )


def _one_per_weights(group: Results) -> dict[str, Result]:
    """Makes one run of a training and its later validations: training facts from all, the measurement from the best."""
    same: dict[str, list[str]] = defaultdict(list)
    for origin in sorted(group, key=lambda origin: (group[origin]["images"], when(group[origin]), origin)):
        same[group[origin]["weights_sha256"]].append(origin)
    runs = {}
    for origins in same.values():
        kept = origins[-1]
        top1 = [group[origin]["top1"] for origin in origins]
        if max(top1) - min(top1) > _TOLERANCE:
            _warn(f"{' and '.join(origins)} measure the same weights, yet top1 is {' and '.join(map(str, top1))}")
        runs[kept] = dict(group[kept])
        runs[kept]["first_measured"] = min(when(group[origin]) for origin in origins)
        # What an operation count of the same images left out, an older one may have.
        same_images = [origin for origin in origins if group[origin]["images"] == group[kept]["images"]]
        for keys, known in ((_TRAINING + _RECIPE, origins), (tuple(Costs.model_fields), same_images)):
            for key in keys:
                values = (group[origin].get(key) for origin in reversed(known))
                runs[kept][key] = next((value for value in values if value is not None), None)
        runs[kept]["scaling"] = (runs[kept]["scaling"] or {}).get("name")
        runs[kept]["started_from"] = ancestors_of(runs[kept])
    return runs


def _one_per_seed(runs: Results) -> dict[str, Result]:
    """Counts a seed that was trained again once, or a mean over seeds would weigh it twice: the run whose first
    measurement, that of its training, is newer."""
    by_seed: dict[object, str] = {}
    for origin in sorted(runs, key=lambda origin: (runs[origin]["first_measured"], origin)):
        seed = runs[origin]["seed"]
        if seed is not None and seed in by_seed:
            _warn(f"{by_seed[seed]} is left out: {origin} is a newer run of seed {seed}")
        by_seed[origin if seed is None else seed] = origin
    return {origin: runs[origin] for origin in sorted(by_seed.values())}


def _is_ours(runs: Results) -> bool:
    """Says whether a recipe of this repository trained all of these.

    The result of a training that does not tell its recipe is of a command of this repository, before it did.
    """
    return all(
        is_of_this_project(run["recipe_sha256"]) if run["recipe_sha256"] else run["train_seconds"] is not None
        for run in runs.values()
    )


def _commits(result: Result) -> list[str]:
    """Returns what a result was made with, and where a training went on with other code, that too."""
    return [found for part in (result, *result.get("resumed_with", ())) if (found := part["commit"])]


def _best_graphs(graphs: Results, runs: Results) -> tuple[Graph, ...]:
    """Chooses a measurement for each precision and layout: one of as many images as the run's before one of fewer, one
    with a latency at batch 1 on one CPU thread before one without, a newer before an older."""
    by_weights = {run["weights_sha256"]: run for run in runs.values()}
    best: dict[tuple[str, str], tuple[Any, Graph]] = {}
    for origin, graph in graphs.items():
        on_cpu = graph["provider"] == "CPUExecutionProvider" and graph["optimization"] == "all"  # as users run them
        times = [entry["p50_ms"] for entry in graph["latency"] if on_cpu and entry["batch"] == entry["threads"] == 1]
        run = by_weights[graph["weights_sha256"]]
        # Of several seeds a graph is of one: its accuracy would stand beside their mean.
        whole = len(runs) == 1 and graph["dataset"] == run["dataset"] and graph["images"] == run["images"]
        seen: dict[str, Any] = {key: graph[key] if whole else None for key in ("top1", "spikes_per_image")}
        precision, layout = graph["precision"], graph["layout"]
        rank = whole, bool(times), when(graph), origin
        # Without the marks and words that every name of a processor has.
        cpu = re.sub(r"\(R\)|\(TM\)| Processor", "", graph["machine"]["cpu"] or "") or None
        if cpu and (instructions := graph["machine"].get("instruction_set")):
            cpu = f"{cpu} ({instructions})"
        if (precision, layout) not in best or rank > best[precision, layout][0]:
            found = Graph(
                precision, layout, **seen, bytes=graph["onnx_bytes"], p50_ms=times[0] if times else None,
                cpu=cpu, sha256=graph["onnx_sha256"],
            )  # fmt: skip
            best[precision, layout] = rank, found
    order = {"fp32": 0, "flat": 0}
    return tuple(best[key][1] for key in sorted(best, key=lambda key: [(order.get(word, 1), word) for word in key]))


def _check_alike(runs: Results, keys: Iterable[str], whose: str = "runs of one model and tag") -> None:
    for key in keys:
        # What is not known may be anything; but an unknown recipe is another one than a known.
        seen = {run[key]: origin for origin, run in runs.items() if run[key] is not None or key == "recipe_sha256"}
        if len(seen) > 1:
            values = ", ".join(f"{value!r} in {origin}" for value, origin in seen.items())
            raise ZooError(f"{whose} must agree in {key}: {values}")


def _reduce(function: Any, runs: Results, key: str) -> Any:
    values = [run[key] for run in runs.values() if run[key] is not None]
    return function(values) if values else None


def _total(chain: Iterable[Result], key: str) -> Any:
    """Returns the sum over a training and all that it started from; unknown where a part of it is."""
    values = [part[key] for part in chain]
    return None if None in values else sum(values)


def _least(rates: list[dict[str, float]]) -> float | None:
    """Returns the mean firing rate, over runs, of the layer that fires least."""
    return min((fmean(run[layer] for run in rates if layer in run) for layer in rates[0]), default=None)


def _warn(message: str) -> None:
    print(f"warning: {shown(message, 1000)}", file=sys.stderr)
