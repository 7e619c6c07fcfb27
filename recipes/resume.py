"""Whether a run may go on from what its directory holds, and what has changed since it last did."""

import sys
from pathlib import Path
from typing import Any

from zoo.checkpoint import CONFIG, WEIGHTS
from zoo.data import dataset_name
from zoo.errors import ZooError
from zoo.files import atomic_write, dump_yaml, read_json
from zoo.plugins import loaded_plugins, warn_of_changes

from .config import CHANGEABLE, DEFAULTS, PLACE, RECIPE, Recipe
from .state import has_state, last_state

RESULT = "result.json"
_ORIGIN = ("commit", "versions", "machine")


def saved_state(out: Path, recipe: Recipe, rank: int) -> dict[str, Any] | None:
    """The state to go on from, None for a new run.

    Raises:
        ZooError: there is a run that is not to be resumed, or one of another recipe.
    """
    if has_state(out) and not recipe.resume:
        raise ZooError(f"{out} already holds a run: --resume goes on with it, --out names another directory")
    if not has_state(out):
        if made := [name for name in (WEIGHTS, RESULT) if (out / name).exists()]:
            what = f"{out} holds a {made[0]} and no training state to go on from"
            raise ZooError(f"{what}: name another directory (--out); --init {out} starts from its weights")
        if rank == 0 and recipe.resume:
            print(f"nothing to resume in {out}: starting from the beginning", flush=True)
        return None
    saved = last_state(out, rank)
    for key, value in recipe.to_dict().items():
        before = saved["recipe"].get(key, DEFAULTS[key])
        if key == "dataset" and dataset_name(before) == dataset_name(value):  # a folder may move
            continue
        if before != value and key not in PLACE | CHANGEABLE:
            raise ZooError(f"{out} was started with {key} = {before!r}, not {value!r}: cannot resume")
    return saved


def check_fits(saved: dict[str, Any], out: Path, about: dict[str, Any], total: int) -> None:
    """Raise ZooError unless a state is of this number of processes, of these images and at most at the last step."""
    if saved["world"] != about["world"]:
        raise ZooError(f"{out} was started with {saved['world']} process(es), not {about['world']}: cannot resume")
    if saved["step"] > total:
        raise ZooError(f"{out} is at step {saved['step']} of {total}: its training state is of another run")
    if saved.get("data_sha256", about["data_sha256"]) != about["data_sha256"]:
        data = dataset_name(about["recipe"]["dataset"])
        raise ZooError(f"{out} was started on other images of {data} than there are now: cannot resume")


def complete(out: Path, recipe: Recipe) -> dict[str, Any]:
    """The result of a run that has ended.

    Raises:
        ZooError: its weights are stored in another type than the recipe says.
    """
    stored = read_json(out / CONFIG)["recipe"].get("weights", DEFAULTS["weights"])
    if stored != recipe.weights:
        end = f"{out} is complete, with weights = {stored!r}, not {recipe.weights!r}, and its test set is read"
        raise ZooError(f"{end}: name another directory (--out), or leave weights as it is")
    print(f"nothing left to do in {out}: the run is complete", flush=True)
    return dict(read_json(out / RESULT))


def note_changes(before: dict[str, Any], now: dict[str, Any], out: Path, *, say: bool) -> None:
    """Add to the origin of a run what is another since it last went on: plugins, code, versions, machine.

    Args:
        before: its origin, as the state has it; changed in place.
        now: see `zoo.provenance.provenance`.
        say: tell the user, too.
    """
    known = before.get("plugins") or []
    warn_of_changes(known, str(out))
    later = [plugin for plugin in loaded_plugins() or [] if plugin not in known]
    before["plugins"] = [*known, *later] or None  # it was trained with both
    starts = [before, *before.get("resumed_with", [])]
    changed = [key for key in _ORIGIN if starts[-1].get(key) != now[key]]
    if not changed:
        return
    before["resumed_with"] = [*starts[1:], {key: now[key] for key in _ORIGIN}]
    if say:
        what = f"goes on with another {', another '.join(changed)} than before: perhaps not bit for bit the same run"
        print(f"{out} {what}; its result will say so (resumed_with)", file=sys.stderr)


def write_recipe(out: Path, recipe: Recipe, saved: dict[str, Any] | None) -> None:
    """Write recipe.yaml for a new run, and where a key changes that may; the run says which."""
    before = {key: saved["recipe"].get(key, DEFAULTS[key]) for key in sorted(CHANGEABLE)} if saved else {}
    changed = {key: value for key, value in before.items() if value != getattr(recipe, key)}
    for key, value in changed.items():
        print(f"{out} was started with {key} = {value!r}: from now on {getattr(recipe, key)!r}", file=sys.stderr)
    if changed or not saved:
        atomic_write(out / RECIPE, dump_yaml(recipe.to_dict()))
