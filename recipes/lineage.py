"""Which recipe a checkpoint is of, and what it started from.

A recipe is known by a hash of what it computes: seed, place and the names it goes by play no part, a value that is the
key's default counts as left out (so a key that is added later changes no hash), and where it starts from other weights
(`init`), their recipe's hash stands for them. So two seeds of one recipe have one hash, and a fine-tuned and a
from-scratch run never do.
"""

import contextlib
import csv
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import zoo
from zoo.checkpoint import CONFIG
from zoo.checkpoint.memoryless import WithoutMemory
from zoo.errors import ZooError, quoted
from zoo.files import read_json, read_text, sha256_of, user_path
from zoo.load import BUNDLED, find_checkpoint
from zoo.plugins import is_plugins
from zoo.result import Ancestor as StartedFrom
from zoo.schema import Count, Number, Sha256, fits

from .config import DEFAULTS, PLACE, list_recipes, load_recipe

STAGES = Path(__file__).resolve().parent / "stages"
"""Checkpoints that others were started from, beside those in zoo/weights."""
# No part of what a run computes, beside its place: which run of several it is, what it is called, what it runs on.
_NO_PART = (PLACE - {"plugin"}) | {"seed", "tag", "comparison", "test_reads", "device", "kernel", "channels_last"}
_NO_PART |= {"grad_checkpointing"}
_SPECS = ("neuron", "surrogate", "scaling")


class Ancestor(NamedTuple):
    """A checkpoint that a training started from; None for what is not known of it."""

    name: str
    """`architecture.tag`, or what the recipe calls it."""
    weights_sha256: str
    epochs: int | None
    """Of its own training, like its seconds: what came before that is an ancestor of its own."""
    train_seconds: float | None
    recipe_sha256: str | None


class Run(NamedTuple):
    """A run directory as it was left: its config.json, and how long it trained and its result.json, where it tells."""

    config: dict[str, Any]
    train_seconds: float | None = None
    result: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """`architecture.tag`."""
        return ".".join(filter(None, (self.config["architecture"], self.config["pretrained_cfg"].get("tag"))))


@cache
def known_runs() -> dict[str, Run]:
    """The runs that come with the code, by the sha256 of their weights: as a bundled one where it is both."""
    folders = [file.parent for place in (STAGES, BUNDLED) for file in sorted(place.glob(f"*/{CONFIG}"))]
    return {run.config["weights_sha256"]: run for run in map(read_run, folders)}


def is_own(sha256: str) -> bool:
    """Whether the recipe with this hash is one of this repository: a file here, or what trained one of its runs."""
    made = {lineage(run)[0].recipe_sha256 for run in known_runs().values()}
    return sha256 in made or sha256 in _recipe_files()


@cache
def _recipe_files() -> set[str | None]:
    """The hashes of the recipes in this folder, but for those that start from weights that are not here."""
    runs, found = {run.name: run for run in known_runs().values()}, set()
    for recipe in map(load_recipe, list_recipes()):
        parent = runs.get(Path(recipe.init or "").name)
        if recipe.init and not parent:
            continue
        said = {key: value for key in _SPECS if (value := getattr(recipe, key)) != "model"}
        with WithoutMemory():
            network = zoo.create_model(recipe.model, **said)
        config: dict[str, Any] = {"recipe": recipe.settings, "model_args": network.model_args}
        if parent:
            config["started_from"] = [ancestor._asdict() for ancestor in lineage(parent)]
        found.add(identity(config))
    return found


def read_run(folder: Path, config: dict[str, Any] | None = None) -> Run:
    """What a run directory says of itself; a result of other weights is none of it.

    Args:
        config: its config.json, where that was read already.
    """
    config = config or read_json(folder / CONFIG)
    if not (file := folder / "result.json").is_file():  # as it left the test set alone
        seconds = _last_seconds(folder / "summary.csv")
        return Run(config, seconds if fits(Number, seconds) else None)
    result = read_json(file)
    if not isinstance(result, dict) or result.get("weights_sha256") != config["weights_sha256"]:
        return Run(config)
    told = result.get("train_seconds")
    return Run(config, told if fits(Number, told) else None, result)


def _last_seconds(log: Path) -> float | None:
    """From the last row of a log."""
    if log.is_file():
        with contextlib.suppress(ValueError, csv.Error):
            *_, last = [{}, *csv.DictReader(read_text(log).splitlines())]
            return float(last.get("seconds") or "")
    return None


def started_from(config: Mapping[str, Any]) -> tuple[Ancestor, ...]:
    """The checkpoints that one goes back to, nearest first; of one that is not at hand, the name and the hash alone.

    Args:
        config: the content of its config.json.

    Raises:
        ZooError: what it says of them is malformed.
    """
    if "started_from" in config:
        if not fits(list[StartedFrom], config["started_from"]):
            said = quoted(config["started_from"])
            raise ZooError(f"started_from is {said}, expected a list of {{{', '.join(Ancestor._fields)}}}")
        return remembered(config["started_from"])
    recipe = config.get("recipe") or {}
    init, parent = recipe.get("init"), config.get("init_sha256")
    if not init or not isinstance(init, str) or not isinstance(parent, str) or not fits(Sha256, parent):
        return ()
    run = known_runs().get(parent)
    return lineage(run) if run else (Ancestor(init, parent, None, None, None),)


def remembered(ancestors: Iterable[Mapping[str, Any]]) -> tuple[Ancestor, ...]:
    """Ancestors as a file tells of them; those that come with the code under their present name, with their seconds."""
    return tuple(_now(Ancestor(**ancestor)) for ancestor in ancestors)


def _now(told: Ancestor) -> Ancestor:
    run = known_runs().get(told.weights_sha256)
    if not run:
        return told
    seconds = run.train_seconds if told.train_seconds is None else told.train_seconds
    return told._replace(name=run.name, train_seconds=seconds)


def find_run(source: str) -> Run:
    """The run behind what `zoo.load` takes; of one from a Hub, its config.json alone.

    Raises:
        ZooError: see `zoo.load`.
    """
    config, folder = find_checkpoint(source).config, user_path(source.removeprefix("local-dir:"))
    folder = folder.parent if folder.is_file() else folder
    if (folder / CONFIG).is_file():
        return read_run(folder, config)
    return known_runs().get(config["weights_sha256"]) or Run(config)


def lineage(run: Run) -> tuple[Ancestor, ...]:
    """A run as an ancestor, and its own."""
    config, seconds, _ = run
    epochs = (config.get("recipe") or {}).get("epochs")  # which may hold anything
    own = Ancestor(
        run.name, config["weights_sha256"], epochs if fits(Count, epochs) else None, seconds, identity(config)
    )
    return (own, *started_from(config))


def written(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The recipe of a checkpoint as it is recorded: what its network was to decide (`model`) is written out, as names
    may mean something else one day, and plugins have their sha256. None where it does not say.

    Args:
        config: the content of its config.json.
    """
    recipe, plugins = config.get("recipe"), config.get("plugins")
    if not recipe:
        return None
    specs = {key: config["model_args"].get(key) for key in _SPECS}
    return {**recipe, **specs, **({"plugin": plugins} if plugins else {})}


def identity(config: Mapping[str, Any]) -> str | None:
    """`recipe_sha256` of a checkpoint by its config.json."""
    return recipe_sha256(written(config), started_from(config))


def recipe_sha256(recipe: Mapping[str, Any] | None, before: tuple[Ancestor, ...] = ()) -> str | None:
    """The hash by which a recipe is known, None for no recipe.

    Args:
        recipe: its keys, see `written`.
        before: what it starts from, see `started_from`.
    """
    if not recipe:
        return None
    said = {key: value for key, value in recipe.items() if key not in _NO_PART and value != DEFAULTS.get(key)}
    if before:
        said["init"] = before[0].recipe_sha256 or before[0].weights_sha256
    if is_plugins(plugins := recipe.get("plugin")) and plugins:  # what they hold, whatever they are called
        said["plugin"] = sorted(plugin["sha256"] for plugin in plugins)
    return sha256_of(json.dumps(said, sort_keys=True).encode())
