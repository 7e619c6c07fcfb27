"""From result files to rows: read, check the layout, merge what is one run, average what is one recipe."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from zoo.errors import ZooError, shown
from zoo.files import TEXT_LIMIT, read_bytes, sha256_of
from zoo.record import read, when

Result = dict[str, Any]
Results = Mapping[str, Result]  # from the path below the results folder to the content

# Training facts: a later validation of the same weights may not know them, so they come from the older file.
_TRAINING = ("train_images", "epochs", "seed", "scaling", "train_seconds", "test_reads")
# A mean over runs that differ in one of these would mean nothing.
_ALIKE = ("timesteps", "params", "train_images", "epochs", "images", "scaling")
_TOLERANCE = 0.5  # points of top-1 between two measurements of the same weights


@dataclass(frozen=True)
class Row:
    """One recipe on one dataset: the mean over its seeds. None where nothing was measured."""

    dataset: str
    model: str
    tag: str
    runs: int  # seeds
    images: int  # test images
    top1: float  # percent, mean over runs
    top1_std: float | None  # points, sample standard deviation over runs; None for a single run
    spikes_per_image: float | None  # all spikes of all layers and timesteps, mean over images and runs
    timesteps: int
    params: int
    epochs: int | None
    scaling: str | None  # gradient-scaling rule
    train_seconds: float | None  # median over runs
    test_reads: int  # runs of the comparison that read the test set: as stated, or as counted where that is more
    onnx_latency_ms: float | None  # p50, batch 1, one CPU thread
    onnx_bytes: int | None
    onnx_top1: float | None  # percent, on the graph that onnx_latency_ms times
    commits: tuple[str, ...]
    published_top1: float | None  # percent; a published number, never ours
    published_spikes_per_image: float | None
    published_citation: str | None
    evidence: tuple[tuple[str, Result], ...]  # (file, content): all files of its runs, then ONNX measurements

    @property
    def name(self) -> str:
        """`<model>.<tag>`, as in the recipe, the folder and the Hub repository."""
        return _name(self.model, self.tag)

    @property
    def path(self) -> str:
        """`<dataset>/<name>`: its folder below the results, and its place in the page."""
        return f"{self.dataset}/{self.name}"


def folder_of(result: Result) -> str:
    """Where a result belongs below the results folder: `<dataset>/<model>.<tag>`; without a dataset, `none/...`."""
    return f"{result['dataset'] or 'none'}/{_name(result['model'], result['tag'])}"


def load_results(folder: Path) -> dict[str, Result]:
    """Read and check every `*.json` below a folder, by path below it; a folder that does not exist holds no results.

    Raises:
        ZooError: a file is malformed, breaks the schema, or lies in a folder that does not agree with its content.
    """
    results = {}
    for path in sorted(folder.rglob("*.json")):
        relative = path.relative_to(folder)
        result = read(path)
        if relative.parent.as_posix() != folder_of(result):
            raise ZooError(f"{path}: lies in {relative.parent.as_posix()!r}, its content says {folder_of(result)!r}")
        results[relative.as_posix()] = result
    return results


def read_additions(files: Iterable[Path], folder: Path) -> dict[str, tuple[Result, bytes]]:
    """Read and check files to be added: content and raw bytes by path below `folder`, without what is already there.

    Raises:
        ZooError: a file is missing, malformed or breaks the schema.
    """
    additions = {}
    for file in files:
        result, raw = read(file), read_bytes(file, TEXT_LIMIT)
        home = folder_of(result)
        if all(read_bytes(known, TEXT_LIMIT) != raw for known in (folder / home).glob("*.json")):
            # Kind, seed and weights for people; the start of the content's hash because one run can be measured often.
            seed = f"_seed{result['seed']}" if result.get("seed") is not None else ""
            name = f"{result['kind']}{seed}_{result['weights_sha256'][:8]}_{sha256_of(raw)[:8]}.json"
            additions[f"{home}/{name}"] = (result, raw)
    return additions


def rows(results: Results) -> list[Row]:
    """One row for each dataset, model and tag that was measured on a test split: by dataset, then best top-1 first.

    Measurements of the same weights are one run: the one over most images counts, of these the newest. Measurements
    that disagree, a seed that was trained twice and an ONNX measurement without a row are reported on stderr.

    Raises:
        ZooError: runs that would share a row differ in one of `_ALIKE`.
    """
    groups: dict[tuple[str, str, str], dict[str, Result]] = defaultdict(dict)
    graphs: dict[str, Result] = {}
    reads: dict[str, set[str]] = defaultdict(set)  # from comparison to the weights that read the test set
    for origin, result in results.items():
        if result["kind"] == "onnx":
            graphs[origin] = result
        elif result["split"] == "test":
            groups[result["dataset"], result["model"], result["tag"]][origin] = result
            reads[result["comparison"]].add(result["weights_sha256"])
    table = [_row(group, graphs, reads) for group in groups.values()]
    shown = {origin for row in table for origin, _ in row.evidence}
    for origin in sorted(graphs.keys() - shown):
        _warn(f"{origin} is in no row: no test result in the table has its weights, dataset and timesteps")
    return sorted(table, key=lambda row: (row.dataset, -row.top1, row.name))


def _row(group: dict[str, Result], all_graphs: Results, reads: Mapping[str, set[str]]) -> Row:
    runs = _one_per_seed(_one_per_weights(group))
    _check_alike(runs)
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
    graph, latency = _best_graph(graphs)
    # Of a run, every file: the newest gives the numbers, the oldest is often the one with the training command.
    files = {origin: result for origin, result in group.items() if result["weights_sha256"] in weights}
    counted = [len(reads[result["comparison"]]) for result in files.values()]
    evidence = (*files.items(), *graphs.items())
    reference: Result = next((found for _, result in evidence if (found := result.get("reference"))), {})
    return Row(
        dataset=first["dataset"],
        model=first["model"],
        tag=first["tag"],
        runs=len(runs),
        images=first["images"],
        top1=fmean(top1),
        top1_std=stdev(top1) if len(top1) > 1 else None,
        spikes_per_image=_reduce(fmean, runs, "spikes_per_image"),
        timesteps=first["timesteps"],
        params=first["params"],
        epochs=_reduce(max, runs, "epochs"),
        scaling=_reduce(max, runs, "scaling"),
        train_seconds=_reduce(median, runs, "train_seconds"),
        test_reads=max(_reduce(max, runs, "test_reads") or 0, *counted),
        onnx_latency_ms=latency,
        onnx_bytes=graph.get("onnx_bytes"),
        onnx_top1=graph.get("top1"),
        commits=tuple(sorted({result["commit"] for result in files.values() if result["commit"]})),
        published_top1=reference.get("top1"),
        published_spikes_per_image=reference.get("spikes_per_image"),
        published_citation=reference.get("citation"),
        evidence=evidence,
    )


def _one_per_weights(group: Results) -> dict[str, Result]:
    """A training run and its later validations are one run: training facts from all, the measurement from the best."""
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
        for key in _TRAINING:
            known = (group[origin].get(key) for origin in reversed(origins))
            runs[kept][key] = next((value for value in known if value is not None), None)
        runs[kept]["scaling"] = (runs[kept]["scaling"] or {}).get("name")
    return runs


def _one_per_seed(runs: Results) -> dict[str, Result]:
    """A seed that was trained again counts once, or a mean over seeds would weigh it twice."""
    by_seed: dict[object, str] = {}
    for origin in sorted(runs, key=lambda origin: (when(runs[origin]), origin)):
        seed = runs[origin]["seed"]
        if seed is not None and seed in by_seed:
            _warn(f"{by_seed[seed]} is left out: {origin} is a newer run of seed {seed}")
        by_seed[origin if seed is None else seed] = origin
    return {origin: runs[origin] for origin in sorted(by_seed.values())}


def _best_graph(graphs: Results) -> tuple[Result, float | None]:
    """The newest ONNX measurement with a latency at batch 1 on one CPU thread, else the newest; {} without any."""
    newest = sorted(graphs, key=lambda origin: (when(graphs[origin]), origin), reverse=True)
    for origin in newest:
        for entry in graphs[origin]["latency"]:
            if graphs[origin]["provider"] == "CPUExecutionProvider" and entry["batch"] == entry["threads"] == 1:
                return graphs[origin], entry["p50_ms"]
    return (graphs[newest[0]], None) if newest else ({}, None)


def _check_alike(runs: Results) -> None:
    for key in _ALIKE:
        seen = {value: origin for origin, run in runs.items() if (value := run[key]) is not None}
        if len(seen) > 1:
            values = ", ".join(f"{value!r} in {origin}" for value, origin in seen.items())
            raise ZooError(f"runs of one model and tag must agree in {key}: {values}")


def _reduce(function: Any, runs: Results, key: str) -> Any:
    values = [run[key] for run in runs.values() if run[key] is not None]
    return function(values) if values else None


def _name(model: str, tag: str) -> str:
    return f"{model}.{tag}" if tag else model


def _warn(message: str) -> None:
    print(f"warning: {shown(message, 1000)}", file=sys.stderr)
