"""What a training starts from: initial weights, the part of them that is frozen, and the checkpoints they go back to.

A recipe is known by a hash of what it computes: seed, place and the names it goes by play no part, a value that is the
key's default counts as left out (so a key that is added later changes no hash), and where it starts from other weights
(`init`), their recipe's hash stands for them. So two seeds of one recipe have one hash, and a fine-tuned and a
from-scratch run never do.
"""

import contextlib
import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

import zoo
from zoo.checkpoint import CONFIG
from zoo.checkpoint.weights import WithoutMemory
from zoo.data import DataSet
from zoo.errors import ZooError, quoted
from zoo.files import read_json, read_text, sha256_of, user_path
from zoo.load import find_checkpoint
from zoo.models._resnet import ResNet
from zoo.names import BUNDLED, plain_name
from zoo.network import SpikingNetwork
from zoo.plugins import Plugins
from zoo.result import Ancestor
from zoo.schema import Count, Number, fits

from .recipe import DEFAULTS, PLACE, Recipe, list_recipes, load_recipe

STAGES = Path(__file__).resolve().parent / "stages"
"""Checkpoints that others were started from, beside those in zoo/weights."""
# Beside its place: which run of several it is, what it is called, what it runs on.
_NOT_COMPUTED = (PLACE - {"plugin"}) | {
    *("seed", "tag", "comparison", "test_reads", "device", "kernel", "channels_last", "grad_checkpointing"),
}
_SPECS = ("neuron", "surrogate", "scaling")


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
    """Returns the runs that come with the code, by the sha256 of their weights: as a bundled one where it is both."""
    folders = [file.parent for place in (STAGES, BUNDLED) for file in sorted(place.glob(f"*/{CONFIG}"))]
    return {run.config["weights_sha256"]: run for run in map(read_run, folders)}


def is_of_this_project(sha256: str) -> bool:
    """Returns whether a hash is of a recipe of this repository: of a file here, or of what trained one of its runs."""
    made = {line_of(run)[0].recipe_sha256 for run in known_runs().values()}
    return sha256 in made or sha256 in _recipe_files()


@cache
def _recipe_files() -> set[str | None]:
    """Returns the hashes of the recipes in this folder, but for those that start from weights that are not here."""
    runs, found = {run.name: run for run in known_runs().values()}, set()
    for recipe in map(load_recipe, list_recipes()):
        parent = runs.get(Path(recipe.init or "").name)
        if recipe.init and not parent:
            continue
        with WithoutMemory():
            network = zoo.create_model(recipe.model, **_said(recipe))
        config: dict[str, Any] = {"recipe": recipe.settings, "model_args": network.model_args}
        if parent:
            config["started_from"] = [ancestor.model_dump() for ancestor in line_of(parent)]
        found.add(recipe_sha256_of(config))
    return found


def read_run(folder: Path, config: dict[str, Any] | None = None) -> Run:
    """Reads what a run directory says of itself; a result of other weights is none of it.

    Args:
        config: its config.json, where that was read already.
    """
    config = config or read_json(folder / CONFIG)
    if not (file := folder / "result.json").is_file():  # as it left the test set alone
        seconds = None
        if (log := folder / "summary.csv").is_file():
            with contextlib.suppress(ValueError, csv.Error):
                *_, last = [{}, *csv.DictReader(read_text(log).splitlines())]
                seconds = float(last.get("seconds") or "")
        return Run(config, seconds if fits(Number, seconds) else None)
    result = read_json(file)
    if not isinstance(result, dict) or result.get("weights_sha256") != config["weights_sha256"]:
        return Run(config)
    told = result.get("train_seconds")
    return Run(config, told if fits(Number, told) else None, result)


def ancestors_of(config: Mapping[str, Any]) -> tuple[Ancestor, ...]:
    """Returns the checkpoints that one goes back to, by its config.json; nearest first. ZooError for malformed ones."""
    found = config.get("started_from") or []
    if not fits(list[Ancestor], found):
        raise ZooError(f"started_from is {quoted(found)}, not a list of {{{', '.join(Ancestor.model_fields)}}}")
    return tuple(Ancestor(**ancestor) for ancestor in found)


def find_run(source: str) -> Run:
    """Returns the run behind what `zoo.load` takes; of one from a Hub, its config.json alone."""
    config, folder = find_checkpoint(source).config, user_path(source.removeprefix("local-dir:"))
    folder = folder.parent if folder.is_file() else folder
    if (folder / CONFIG).is_file():
        return read_run(folder, config)
    return known_runs().get(config["weights_sha256"]) or Run(config)


def line_of(run: Run) -> tuple[Ancestor, ...]:
    """Returns a run as an ancestor, followed by its own ancestors."""
    config, epochs = run.config, (run.config.get("recipe") or {}).get("epochs")  # which may hold anything
    own = Ancestor.model_construct(
        name=run.name, weights_sha256=config["weights_sha256"], epochs=epochs if fits(Count, epochs) else None,
        train_seconds=run.train_seconds, recipe_sha256=recipe_sha256_of(config),
    )  # fmt: skip
    return (own, *ancestors_of(config))


def recorded_recipe(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the recipe of a checkpoint as its config.json records it, None where it does not say: what its network
    was to decide (`model`) is written out, as names may mean something else one day, and plugins have their sha256."""
    recipe, plugins = config.get("recipe"), config.get("plugins")
    if not recipe:
        return None
    specs = {key: config["model_args"].get(key) for key in _SPECS}
    if "unregistered" in config:
        specs["scaling"] = config["unregistered"]
    return {**recipe, **specs, **({"plugin": plugins} if plugins else {})}


def recipe_sha256_of(config: Mapping[str, Any]) -> str | None:
    """Returns the `recipe_sha256` of a checkpoint by its config.json."""
    return recipe_sha256(recorded_recipe(config), ancestors_of(config))


def recipe_sha256(recipe: Mapping[str, Any] | None, before: tuple[Ancestor, ...] = ()) -> str | None:
    """Returns the hash by which a recipe (`recorded_recipe`) is known, with what it starts from (`ancestors_of`)."""
    if not recipe:
        return None
    said = {key: value for key, value in recipe.items() if key not in _NOT_COMPUTED and value != DEFAULTS.get(key)}
    if before:
        said["init"] = before[0].recipe_sha256 or before[0].weights_sha256
    if (plugins := recipe.get("plugin")) and fits(Plugins, plugins):  # what they hold, whatever they are called
        said["plugin"] = sorted(plugin["sha256"] for plugin in plugins)
    return sha256_of(json.dumps(said, sort_keys=True).encode())


# -- the network that a run starts with


@dataclass
class InitialWeights:
    """The weights that a run starts from, none by default."""

    sha256: str | None = None
    """The sha256 of the weights that `init` names."""
    chain: tuple[Ancestor, ...] = ()
    """Their checkpoint, and those that it goes back to."""
    taken: dict[str, Any] = field(default_factory=dict)
    """Keywords of that checkpoint's network that this one takes over."""
    source: SpikingNetwork | None = None
    """That network; None where a training state has what became of it."""

    @classmethod
    def load(cls, recipe: Recipe) -> Self:
        """Loads those of a new run, see `zoo.load`."""
        if not recipe.init:
            return cls()
        source = zoo.load(recipe.init)
        return cls(source.weights_sha256, line_of(find_run(recipe.init)), _taken_over(recipe, source), source)

    @classmethod
    def remembered(cls, saved: dict[str, Any]) -> Self:
        """Returns those of a run that goes on, by its state: where `init` points may hold something else by now."""
        return cls(saved["sha256"], ancestors_of({"started_from": saved["chain"]}), saved["taken"])

    def to_dict(self) -> dict[str, Any]:
        """Returns what a training state keeps."""
        return {"sha256": self.sha256, "chain": [a.model_dump() for a in self.chain], "taken": self.taken}

    def load_into(self, model: SpikingNetwork, recipe: Recipe, *, say: bool) -> None:
        """Takes over the weights; a classifier of another number of classes starts anew, a narrower ResNet is widened.

        Args:
            say: print what was taken over.

        Raises:
            ZooError: they are those of another network, or of this one in another form.
        """
        if self.source is None:
            return
        source, taken, init = self.source, self.taken, recipe.init
        ours, theirs = model.model_args, source.model_args
        state, classifier = source.state_dict(), f"{model.pretrained_cfg['classifier']}."
        anew = source.num_classes != model.num_classes
        if anew:
            state = {key: value for key, value in state.items() if not key.startswith(classifier)}
        shapes = model.state_dict()
        if widths := _widths(source, model):
            state = widened(state, model, torch.Generator().manual_seed(recipe.seed))
        wrong = [key for key in shapes if key not in state and not key.startswith(classifier)]
        wrong += [key for key, value in state.items() if key not in shapes or shapes[key].shape != value.shape]
        if wrong and plain_name(source.pretrained_cfg["architecture"]) != plain_name(recipe.model):
            raise ZooError(f"{init} is another network, with other layers: {', '.join(wrong[:3])} ...")
        if wrong:  # the rest have no part in it, or only where nothing else has
            rest = ("scaling", "surrogate", "dropout", "timesteps")
            differing = [key for key in theirs if key not in rest and ours.get(key) != theirs[key]] or ["timesteps"]
            said = ", ".join(f"{key} {ours.get(key)!r} instead of {theirs[key]!r}" for key in differing)
            raise ZooError(f"the weights of {init} do not fit {recipe.model} with {said}: give what the checkpoint has")
        model.load_state_dict(state, strict=False)
        if say:
            new = f"a new head for {model.num_classes} classes, in place of {source.num_classes}"
            values = ", ".join(f"{key} {value}" for key, value in taken.items())
            form = f"; taken over, as the recipe is silent: {values}" if taken else ""
            form += f"; widened from {widths[0]} channels to {widths[1]}" if widths else ""
            print(f"started from {init}, with {new if anew else 'its head'}{form}", flush=True)


def _widths(source: SpikingNetwork, model: SpikingNetwork) -> tuple[int, int] | None:
    """Returns the channels of both first stages, where the one network is the other times a whole number wide."""
    if type(source) is not type(model) or not isinstance(model, ResNet):
        return None
    narrow, wide = (network.feature_info[0]["num_chs"] for network in (source, model))
    return (narrow, wide) if wide > narrow and wide % narrow == 0 else None


def widened(state: Mapping[str, Tensor], model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """Returns the weights of a narrower network for a wider one that computes the same (Net2WiderNet, Chen et al.,
    ICLR 2016, arXiv 1511.05641): every channel several times, and each weight that reads it shared out among the copies
    in random parts, so that training tells them apart.

    Args:
        state: of the narrower one, where its convolutions and linear layers have [O, I, ...] of [k*O, k*I, ...].
        model: the wider one; tensors whose sizes are no multiples are left as they are.
    """
    reading = {f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    result, shapes = dict(state), {key: value.shape for key, value in model.state_dict().items() if key in state}
    for key, shape in shapes.items():
        value = state[key]
        if len(shape) != value.dim() or any(new % old for new, old in zip(shape, value.shape, strict=True)):
            continue
        times = [new // old for new, old in zip(shape, value.shape, strict=True)]
        result[key] = value.repeat(times)
        if key in reading:
            parts = torch.empty(shape[0], times[1], value.shape[1]).exponential_(generator=generator)
            parts = (parts / parts.sum(1, keepdim=True)).flatten(1)
            result[key] *= parts.reshape(*parts.shape, *(1 for _ in shape[2:]))
    return result


def create(recipe: Recipe, data: DataSet, taken: dict[str, Any]) -> SpikingNetwork:
    """Builds the network of a recipe, with what `InitialWeights` takes over; one that is built for a size of images
    gets that of the data by default, and one for event frames their channels."""
    own = taken | _said(recipe)
    of_data: dict[str, Any] = size_keyword(recipe.model, data.size, **own)
    if data.timesteps is not None:
        of_data |= {"encoding": "frames", "in_chans": data.input_size[0]}
    return zoo.create_model(
        recipe.model, num_classes=len(data.classes), timesteps=recipe.timesteps, dropout=recipe.dropout,
        kernel=recipe.kernel, **of_data | own,
    )  # fmt: skip


def size_keyword(name: str, size: int, **own: Any) -> dict[str, int]:
    """Returns the keyword that builds a network for a size of images, of one that is for no other; else nothing."""
    with WithoutMemory():
        return {"img_size": size} if "img_size" in zoo.create_model(name, **own).model_args else {}


def _taken_over(recipe: Recipe, source: SpikingNetwork) -> dict[str, Any]:
    """Returns keywords in which the network that a run starts from is no default one, where the recipe is silent.

    Not those that a recipe always says (time steps, dropout) or its data set does, nor the scaling: names decide that.
    """
    with WithoutMemory():
        if type(zoo.create_model(recipe.model)) is not type(source):
            return {}
        by_name = zoo.create_model(source.pretrained_cfg["architecture"]).model_args
    decided = {"timesteps", "dropout", "in_chans", "img_size", "scaling", *_said(recipe)}
    return {key: value for key, value in source.model_args.items() if key not in decided and value != by_name.get(key)}


def _said(recipe: Recipe) -> dict[str, Any]:
    """Returns what a recipe itself says of the network."""
    return {key: value for key in _SPECS if (value := getattr(recipe, key)) != "model"} | (recipe.model_args or {})


def freeze(model: SpikingNetwork, stages: int) -> list[nn.Module]:
    """Takes the stem and so many stages out of training, up to all: then the head alone learns. 0 freezes nothing.

    Returns:
        The frozen modules: to be kept in evaluation mode while the others train, so that the running statistics of
        their batch normalisation stay as well.
    """
    if not stages:
        return []
    if stages > len(model.stages):
        architecture = model.pretrained_cfg["architecture"]
        raise ZooError(f"cannot freeze {stages} stages: {architecture} has {len(model.stages)}")
    stem = re.compile(model.group_matcher(coarse=True)["stem"])
    frozen = [module for name, module in model.named_children() if stem.match(name) and module.state_dict()]
    frozen += model.stages[:stages]
    for module in frozen:
        module.requires_grad_(False)
    return frozen
