"""A checkpoint on a whole test set: PyTorch, then its graphs in ONNX Runtime, one record of it all."""

import glob
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

import zoo
from export.bench import benchmark, read_file
from export.images import load_images, normalise, training_images
from export.to_onnx import to_onnx
from recipes.lineage import Run, ancestors_of, known_runs, recipe_sha256_of, recorded_recipe
from recipes.processes import pick_device
from recipes.validate import validate
from zoo.data import dataset_name, normalisation
from zoo.data.folder import check_folder
from zoo.data.images import data_form
from zoo.errors import ZooError, text_table
from zoo.load import find_checkpoint
from zoo.provenance import provenance

from .store import Result, flips, form_of, name_of

_CALIBRATION = 256  # training images
_GATE = 32  # test images that an export is verified on


def measure(
    source: str,
    dataset: str | None = None,
    data_dir: str | None = None,
    *,
    precisions: Sequence[str] = ("fp32", "int8", "int16"),
    limit: int | None = None,
    runs: int = 50,
    batch_size: int = 256,
    device: str = "auto",
) -> Result:
    """Measures a checkpoint, or a graph of one.

    Accuracy and all of `zoo.metrics` in PyTorch in one pass; then for every precision an export (layout flat), verified
    against PyTorch, its accuracy and its own spike counts in ONNX Runtime, and its latency at batch 1 on one thread.

    Args:
        source: see `zoo.load`; or an .onnx file of `python -m export`, which is measured by itself.
        dataset: see `zoo.data.load_dataset`; that of the training by default.
        limit: the first so many test images, None for all; the record says so, and the board takes no part of a set.

    Returns:
        A record of kind "measurement", see `zoo.result.Measurement`.
    """
    graph = read_file(source).ours() if Path(source).suffix == ".onnx" else None
    origin = provenance(gpu=graph is None and pick_device(device).type == "cuda")
    run = known_runs().get(graph.weights_sha256) if graph else Run(find_checkpoint(source).config)
    config = run.config if run else {}
    if not dataset:
        dataset = (config.get("recipe") or {}).get("dataset")
        if not isinstance(dataset, str) or not dataset:
            raise ZooError(f"{source} does not tell what it was trained on: name a data set with --dataset")
        check_folder(dataset, "--dataset")
    told = () if graph else (config["pretrained_cfg"], config["model_args"], config.get("recipe"))
    whole = load_images(dataset, data_dir, None, graph.cfg if graph else data_form(*told))
    if whole.dataset is None or whole.labels is None:
        raise ZooError(f"{dataset} is no data set with a name, which a record is of: see --help")
    some = whole._replace(images=whole.images[:limit], labels=whole.labels[:limit])
    if graph:
        found = [benchmark(source, **some._asdict(), runs=runs)]
    else:
        with tempfile.TemporaryDirectory() as folder:
            # Before the whole test set, as what cannot be exported is said here.
            graphs = [
                _graph(source, Path(folder), precision, whole.images, dataset, data_dir) for precision in precisions
            ]
            found = [validate(source, dataset, data_dir, limit=limit, batch_size=batch_size, device=device)]
            found += [benchmark(graph, **some._asdict(), runs=runs) for graph in graphs]
    first = found[0]
    counted = {form_of(graph): spikes for graph in found[1:] if (spikes := flips(first, graph)) is not None}
    chain = [ancestor.model_dump() for ancestor in ancestors_of(config)]
    return {
        "schema": 1, "kind": "measurement", **{key: first[key] for key in ("model", "tag", "dataset")},
        "weights_sha256": first["weights_sha256"], "images": first["images"],
        "partial": len(some.images) < len(whole.images), "recipe": recorded_recipe(config),
        "recipe_sha256": recipe_sha256_of(config), "started_from": chain, "spikes_differ": counted,
        "parts": [part | {"commit": origin["commit"]} for part in found], **origin,  # that of the code that was loaded
    }  # fmt: skip


def _graph(source: str, folder: Path, precision: str, images: NDArray[Any], dataset: str, data_dir: str | None) -> Path:
    """Exports a graph of a checkpoint to `folder`, verified on the first of these images."""
    model, file, scales = zoo.load(source), folder / f"{precision}.onnx", None
    if model.encoding == "rate":
        why = f"graphs of rate encoding take a frame for each time step, and {dataset} has images"
        raise ZooError(f"{why}: measure PyTorch alone, which is --precision without a value")
    if precision == "int8":
        scales = training_images(model, dataset, data_dir, _CALIBRATION)
    gate = normalise(images[:_GATE], *normalisation(model))
    to_onnx(model, file, precision=precision, calibration=scales, images=gate)
    return file


def record_name(name: str, weights_sha256: str, forms: Sequence[str]) -> str:
    """Returns the name of the file of a record, of a network's name, its weights, and what its parts are of."""
    words = [form.replace(" flat", "").replace(" ", "-").lower() for form in forms]
    return "_".join([name, weights_sha256[:8], *words]) + ".json"


def record_pattern(source: str, dataset: str | None, out: Path, precisions: Sequence[str]) -> str:
    """Returns the pattern of the record of a checkpoint in these forms below `out`, of any data set for None."""
    run = Run(find_checkpoint(source).config)
    forms = ["PyTorch", *(f"{precision} flat" for precision in precisions)]
    name = record_name(run.name, run.config["weights_sha256"], forms)
    folder = "*" if dataset is None else glob.escape(dataset_name(dataset))
    return f"{glob.escape(str(out))}/{folder}/{glob.escape(name)}"


def table(result: Result) -> str:
    """Returns a measurement for people."""
    part = ", a part of the test set" if result["partial"] else ""
    head = ("", "top-1 %", "spikes/image", "ACs/image", "MACs/image", "uJ/image", "bytes", "p50 ms")
    rows = []
    for entry in result["parts"]:
        graph = entry["kind"] == "onnx"
        values = [
            entry["top1"], entry["spikes_per_image"], entry.get("Effective_ACs"), entry.get("Effective_MACs"),
            entry.get("energy_uj"), entry["onnx_bytes" if graph else "footprint_bytes"],
            entry["latency"][0]["p50_ms"] if graph else None,
        ]  # fmt: skip
        forms = (".2f", ",.0f", ",.0f", ",.0f", ",.2f", ",.0f", ",.2f")
        cells = ["-" if value is None else format(value, form) for value, form in zip(values, forms, strict=True)]
        rows.append([form_of(entry), *cells])
    lines = [f"{name_of(result)} on {result['images']:,} images of {result['dataset']}{part}"]
    lines.append(text_table(head, rows, range(1, 8)))
    lines += [f"{form}: layers count {n:,} spikes otherwise, net" for form, n in result["spikes_differ"].items()]
    return "\n".join(lines)
