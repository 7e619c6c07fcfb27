"""What a result must carry to have a place on the board, and why one is refused.

The schema says what a result's keys may hold; here is what they must say together. Nothing of this proves that somebody
measured anything: `verify` does, by measuring again.
"""

import math
import statistics
from pathlib import Path

from recipes.lineage import Ancestor, identity, known_runs, recipe_sha256
from zoo.errors import ZooError, quoted
from zoo.files import read_json
from zoo.metrics import energy
from zoo.record import GRAPH, MEASUREMENT, REQUIRED, SEAL, check, content_sha256

from .row import Result, name_of

_EXACT = 1e-6  # relative: sums of a few numbers in float64
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
        if (form := _form(part)) in forms:
            raise ZooError(f"{name}: a measurement has one part {form}, and it stands there already")
        forms.add(form)
        for key in ("model", "tag", "dataset", "weights_sha256", "images"):
            if part[key] != result[key]:
                raise ZooError(f"{name}: {key} is {quoted(part[key])}, that of the whole is {quoted(result[key])}")
    return result


def parts(origin: str, result: Result) -> dict[str, Result]:
    """The results in a file by where they stand: itself, or those in a measurement, which knows their recipe."""
    if result["kind"] != "measurement":
        return {origin: result}
    recipe = {key: result[key] for key in ("recipe", "recipe_sha256", "started_from")}
    found = {}
    for part in result["parts"]:
        found[f"{origin}, {_form(part)}"] = part | (recipe if part["kind"] == "accuracy" else {})
    return found


def forms_of(result: Result) -> list[str]:
    """What the parts of a measurement are of: "PyTorch", or precision and layout of a graph."""
    return [_form(part) for part in result["parts"]]


def _form(part: Result) -> str:
    return f"{part['precision']} {part['layout']}" if part["kind"] == "onnx" else "PyTorch"


def check_possible(result: Result, origin: str) -> None:
    """Raise ZooError, with the reason, for numbers that no network gives."""
    for place, part in parts(origin, result).items():
        total = part["spikes_per_image"]
        for key in ("spikes_per_layer", "spikes_per_step"):
            if part[key] is not None:
                values = part[key].values() if isinstance(part[key], dict) else part[key]
                if total is None or not math.isclose(math.fsum(values), total, rel_tol=_EXACT, abs_tol=_EXACT):
                    said = f"{key} sums to {math.fsum(values):,.4f}"
                    raise ZooError(f"{place}: impossible: {said}, spikes_per_image is {total}")
        if part.get("top5") is not None and part["top5"] < part["top1"]:
            raise ZooError(f"{place}: impossible: top5 {part['top5']} is less than top1 {part['top1']}")
        if part["images"] is not None and part["top1"] is not None:
            right = part["top1"] * part["images"] / 100
            if not math.isclose(right, round(right), abs_tol=1e-6 * part["images"]):
                raise ZooError(
                    f"{place}: impossible: top1 {part['top1']} is no whole number of {part['images']} images"
                )
        if total is not None and (updates := part.get("membrane_updates")) is not None:
            if total > updates * (1 + _EXACT):
                raise ZooError(f"{place}: impossible: {total:,.0f} spikes of {updates:,.0f} neurons and time steps")
            sparsity = part.get("activation_sparsity")
            if sparsity is not None and updates and not math.isclose(sparsity, 1 - total / updates, abs_tol=_EXACT):
                raise ZooError(
                    f"{place}: impossible: activation_sparsity {sparsity} of {total} spikes, {updates} places"
                )
        for entry in part.get("latency") or ():
            times = entry.get("ms")
            if times and not math.isclose(entry["p50_ms"], statistics.median(times), rel_tol=0.01, abs_tol=1e-3):
                raise ZooError(f"{place}: impossible: p50_ms {entry['p50_ms']} is not the median of its times")
        for counted in (part, part.get("products") or {}, part.get("stem") or {}):
            effective = sum(counted.get(key) or 0 for key in ("Effective_ACs", "Effective_MACs"))
            if counted.get("Dense") is not None and effective > counted["Dense"] * (1 + _EXACT):
                raise ZooError(f"{place}: impossible: {effective:,.0f} effective operations of {counted['Dense']:,.0f}")
        if (claimed := part.get("energy_uj")) is not None:
            cost = energy(part)
            if cost is None or not math.isclose(claimed, cost["total"], rel_tol=_EXACT):
                formula = "its operations are unknown" if cost is None else f"the formula gives {cost['total']}"
                raise ZooError(f"{place}: impossible: energy_uj is {claimed}, {formula}")


def check_evidence(result: Result, origin: str) -> None:
    """Raise ZooError, with the reason, for a result that was changed by hand, or does not say where it comes from.

    The seal shows a change by anybody who does not know of it; who does can seal the changed result again.
    """
    if result.get("partial"):
        raise ZooError(f"{origin}: {result['images']} images are a part of the test set: measure without --limit")
    if SEAL not in result:
        raise ZooError(f"{origin}: without evidence: it has no {SEAL}, as what `measure` and training write has")
    if result[SEAL] != content_sha256(result):
        raise ZooError(f"{origin}: edited by hand: its {SEAL} is not that of its content; measure again")
    for place, part in {origin: result, **parts(origin, result)}.items():
        for key in ("command", "commit", "weights_sha256"):
            if not part[key]:
                raise ZooError(f"{place}: without evidence: {key} is {part[key]!r}; measure in a checkout of the zoo")


def check_hashes(result: Result, origin: str, others: dict[str, Result]) -> None:
    """Raise ZooError for a result whose weights or recipe are not those that its name stands for.

    Args:
        others: the results that are on the board, by where they stand.
    """
    name = name_of(result)
    weights, recipe = result["weights_sha256"], result.get("recipe_sha256")
    if result["kind"] == "measurement":
        before = tuple(Ancestor(**ancestor) for ancestor in result["started_from"])
        if recipe != (by_content := recipe_sha256(result["recipe"], before)):
            wrong = f"recipe_sha256 is {quoted(recipe)}, that of its recipe is {quoted(by_content)}"
            raise ZooError(f"{origin}: wrong hash: {wrong}")
    own = next((run.config for run in known_runs().values() if run.name == name), None)
    if own and weights != own["weights_sha256"]:
        # Another seed of its recipe; a graph does not know its recipe, but what is here of its weights may.
        recipes = {other.get("recipe_sha256") for other in others.values() if other["weights_sha256"] == weights}
        if identity(own) not in recipes | {recipe}:
            theirs = own["weights_sha256"]
            raise ZooError(
                f"{origin}: wrong hash: {name} comes with the zoo, with other weights ({theirs[:12]}..., not "
                f"{weights[:12]}...), and this is no other seed of its recipe: give it a tag of its own"
            )
    run = known_runs().get(weights)
    if run and run.name != name:
        raise ZooError(f"{origin}: wrong hash: these are the weights of {run.name}, not of {name}")
    if run and recipe is not None and recipe != identity(run.config):
        raise ZooError(f"{origin}: wrong hash: these are the weights of {name}, and this is not its recipe")
    images = _images_of(result)
    for place, other in others.items():
        if other["dataset"] == result["dataset"] and (theirs := _images_of(other)) and images and images != theirs:
            other_set = f"{place} has {_said(theirs)}, here it is {_said(images)}"
            raise ZooError(f"{origin}: other images under the name {result['dataset']}: {other_set}")
        if other["weights_sha256"] == weights and (called := name_of(other)) != name:
            raise ZooError(f"{origin}: wrong hash: these are the weights of {called} ({place}), not of {name}")


def _images_of(result: Result) -> tuple[str, int] | None:
    """The sha256 and the number of the images that a result is of, where it says so."""
    of = parts("", result).values()
    return next(((found, part["images"]) for part in of if (found := part.get("data_sha256"))), None)


def _said(images: tuple[str, int]) -> str:
    return f"data_sha256 {images[0][:12]}... of {images[1]:,} images"


def counted_otherwise(accuracy: Result, graph: Result) -> int | None:
    """Spikes that a graph counts otherwise than PyTorch over the same images, by layer; None where either is unknown.

    Net of each layer: two flips in one layer, there and back, are none. So it is the least number of flips.
    """
    ours, theirs = accuracy["spikes_per_layer"], graph["spikes_per_layer"]
    if ours is None or theirs is None or ours.keys() != theirs.keys() or accuracy["images"] != graph["images"]:
        return None
    return round(sum(abs(ours[layer] - theirs[layer]) for layer in ours) * graph["images"])
