"""Result files: where they lie below the results folder, how they are read, and what is inside a measurement."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.files import sha256_of
from zoo.result import read

Result = dict[str, Any]
Results = Mapping[str, Result]
"""From where a result lies, below the results folder, to its content."""


def name_of(result: Result) -> str:
    """Returns `<model>.<tag>`, or `<model>` without a tag."""
    return f"{result['model']}.{result['tag']}" if result["tag"] else str(result["model"])


def folder_of(result: Result) -> str:
    """Returns where a result belongs: `<dataset>/<model>.<tag>`, and `none/<model>.<tag>` without a data set."""
    return f"{result['dataset'] or 'none'}/{name_of(result)}"


def file_name(result: Result, raw: bytes) -> str:
    """Names the file of a result: kind, seed and weights for people, and the start of the hash of its bytes, as one run
    can be measured often."""
    seed = next(iter(parts("", result).values()))["seed"]
    words = [result["kind"], *([] if seed is None else [f"seed{seed}"]), result["weights_sha256"][:8]]
    return "_".join([*words, sha256_of(raw)[:8]]) + ".json"


def load_results(folder: Path) -> dict[str, Result]:
    """Reads and checks every `*.json` below a folder, by path below it; a folder that does not exist holds no results.

    Raises:
        ZooError: a file is malformed, breaks the schema, or lies in a folder that does not agree with its content.
    """
    results = {}
    for path in sorted(folder.rglob("*.json")):
        result, place = read(path), path.relative_to(folder)
        if place.parent.as_posix() != folder_of(result):
            raise ZooError(f"{path}: lies in {place.parent.as_posix()!r}, its content says {folder_of(result)!r}")
        results[place.as_posix()] = result
    return results


def parts(origin: str, result: Result) -> dict[str, Result]:
    """Returns the results in a file by where they stand: itself, or those in a measurement, with its recipe."""
    if result["kind"] != "measurement":
        return {origin: result}
    recipe = {key: result[key] for key in ("recipe", "recipe_sha256", "started_from")}
    return {
        f"{origin}, {form_of(part)}": part | (recipe if part["kind"] == "accuracy" else {}) for part in result["parts"]
    }


def form_of(part: Result) -> str:
    """Names what a part of a measurement is of: "PyTorch", or precision and layout of a graph."""
    return f"{part['precision']} {part['layout']}" if part["kind"] == "onnx" else "PyTorch"


def flips(accuracy: Result, graph: Result) -> int | None:
    """Returns the spikes that a graph counts otherwise than PyTorch over the same images; None where either is unknown.

    The count is net of each layer: two flips in one layer, there and back, are none. So it is the least number.
    """
    ours, theirs = accuracy["spikes_per_layer"], graph["spikes_per_layer"]
    if ours is None or theirs is None or ours.keys() != theirs.keys() or accuracy["images"] != graph["images"]:
        return None
    return round(sum(abs(ours[layer] - theirs[layer]) for layer in ours) * graph["images"])
