"""Result files of every kind as the board reads them, and what is inside a measurement."""

from pathlib import Path

from zoo.errors import ZooError, quoted
from zoo.files import read_json
from zoo.record import GRAPH, MEASUREMENT, REQUIRED, check

from .row import Result

RECORDS = REQUIRED | MEASUREMENT
_PARTS = REQUIRED | {"onnx": REQUIRED["onnx"] | {key: GRAPH[key] for key in ("precision", "layout")}}


def read_record(path: Path) -> Result:
    """A result file of any kind, checked against its schema, each part of a measurement against its own.

    Raises:
        ZooError: see `zoo.record.read`; or a part is of another checkpoint, data set or number of images.
    """
    result = check(read_json(path), str(path), RECORDS)
    forms: set[str] = set()
    for place, part in enumerate(result.get("parts", ()), 1):
        name = f"{path}, part {place}"
        check(part, name, _PARTS)
        if (form := form_of(part)) in forms:
            raise ZooError(f"{name}: a measurement has one part {form}, and it stands there already")
        forms.add(form)
        for key in ("model", "tag", "dataset", "weights_sha256", "images"):
            if part[key] != result[key]:
                raise ZooError(f"{name}: {key} is {quoted(part[key])}, that of the whole is {quoted(result[key])}")
        if (steps := part["timesteps"]) != (before := result["parts"][0]["timesteps"]):
            raise ZooError(f"{name}: timesteps is {steps}, that of part 1 is {before}")
    return result


def parts(origin: str, result: Result) -> dict[str, Result]:
    """The results in a file by where they stand: itself, or those in a measurement, which knows their recipe."""
    if result["kind"] != "measurement":
        return {origin: result}
    recipe = {key: result[key] for key in ("recipe", "recipe_sha256", "started_from")}
    found = {}
    for part in result["parts"]:
        found[f"{origin}, {form_of(part)}"] = part | (recipe if part["kind"] == "accuracy" else {})
    return found


def form_of(part: Result) -> str:
    """What a part of a measurement is of: "PyTorch", or precision and layout of a graph."""
    return f"{part['precision']} {part['layout']}" if part["kind"] == "onnx" else "PyTorch"


def differences(measured: list[Result]) -> dict[str, int]:
    """Spikes that each graph of a measurement counts otherwise than PyTorch, where that is known, by its form.

    Args:
        measured: the parts of a measurement, PyTorch before its graphs, or one graph alone.
    """
    first, *graphs = measured
    counted = {form_of(graph): counted_otherwise(first, graph) for graph in graphs}
    return {form: spikes for form, spikes in counted.items() if spikes is not None}


def counted_otherwise(accuracy: Result, graph: Result) -> int | None:
    """Spikes that a graph counts otherwise than PyTorch over the same images, by layer; None where either is unknown.

    Net of each layer: two flips in one layer, there and back, are none. So it is the least number of flips.
    """
    ours, theirs = accuracy["spikes_per_layer"], graph["spikes_per_layer"]
    if ours is None or theirs is None or ours.keys() != theirs.keys() or accuracy["images"] != graph["images"]:
        return None
    return round(sum(abs(ours[layer] - theirs[layer]) for layer in ours) * graph["images"])
