"""The network that a run starts with: built from its recipe, with the weights that `init` names."""

from dataclasses import dataclass, field
from typing import Any, Self

import zoo
from zoo.checkpoint.memoryless import WithoutMemory
from zoo.data import DataSet
from zoo.errors import ZooError
from zoo.family import plain_name
from zoo.network import SpikingNetwork

from .config import Recipe
from .lineage import Ancestor, find_run, lineage, remembered


@dataclass
class Beginning:
    """The weights that a run starts from, none by default."""

    sha256: str | None = None
    """Of the weights that `init` names."""
    chain: tuple[Ancestor, ...] = ()
    """Their checkpoint, and those that it goes back to."""
    taken: dict[str, Any] = field(default_factory=dict)
    """Keywords of its network that this one takes over."""
    source: SpikingNetwork | None = None
    """Its network; None where a training state has what became of it."""

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """That of a new run.

        Raises:
            ZooError: see `zoo.load`.
        """
        if not recipe.init:
            return cls()
        source = zoo.load(recipe.init)
        return cls(source.weights_sha256, lineage(find_run(recipe.init)), _taken_over(recipe, source), source)

    @classmethod
    def again(cls, saved: dict[str, Any]) -> Self:
        """That of a run that goes on, by its training state: where `init` points may hold something else by now."""
        return cls(saved["sha256"], remembered(saved["chain"]), saved["taken"])

    def to_dict(self) -> dict[str, Any]:
        """For a training state."""
        chain = [ancestor._asdict() for ancestor in self.chain]
        return {"sha256": self.sha256, "chain": chain, "taken": self.taken}

    def load_into(self, model: SpikingNetwork, recipe: Recipe, *, say: bool) -> None:
        """Take over the weights; a classifier of another number of classes starts anew.

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
        wrong = [key for key in shapes if key not in state and not key.startswith(classifier)]
        wrong += [key for key, value in state.items() if key not in shapes or shapes[key].shape != value.shape]
        if wrong:
            # Which have no part in it, or only where nothing else has.
            rest = ("scaling", "surrogate", "dropout", "timesteps")
            differing = [key for key in theirs if key not in rest and ours.get(key) != theirs[key]] or ["timesteps"]
            if plain_name(source.pretrained_cfg["architecture"]) != plain_name(recipe.model):
                raise ZooError(f"{init} is another network, with other layers: {', '.join(wrong[:3])} ...")
            said = ", ".join(f"{key} {ours.get(key)!r} instead of {theirs[key]!r}" for key in differing)
            raise ZooError(f"the weights of {init} do not fit {recipe.model} with {said}: give what the checkpoint has")
        model.load_state_dict(state, strict=False)
        if say:
            new = f"a new head for {model.num_classes} classes, in place of {source.num_classes}"
            values = ", ".join(f"{key} {value}" for key, value in taken.items())
            form = f"; taken over, as the recipe is silent: {values}" if taken else ""
            print(f"started from {init}, with {new if anew else 'its head'}{form}", flush=True)


def create(recipe: Recipe, data: DataSet, taken: dict[str, Any]) -> SpikingNetwork:
    """The network of a recipe; one that is built for a size of images for that of the data, unless the recipe says.

    Args:
        taken: see `Beginning`.

    Raises:
        ZooError: the network does not take what the recipe says of it.
    """
    own = taken | _said(recipe)
    with WithoutMemory():
        has_size = "img_size" in zoo.create_model(recipe.model, **own).model_args
    return zoo.create_model(
        recipe.model, num_classes=len(data.classes), timesteps=recipe.timesteps, dropout=recipe.dropout,
        kernel=recipe.kernel, **({"img_size": data.size} if has_size else {}) | own,
    )  # fmt: skip


def _taken_over(recipe: Recipe, source: SpikingNetwork) -> dict[str, Any]:
    """Keywords in which the network that a run starts from is no default one of its name, where the recipe is silent.

    Not those that a recipe always says (time steps, dropout) or its data set does, nor the scaling: names decide that.
    """
    if plain_name(source.pretrained_cfg["architecture"]) != plain_name(recipe.model):
        return {}
    with WithoutMemory():
        by_name = zoo.create_model(recipe.model).model_args
    decided = {"timesteps", "dropout", "in_chans", "img_size", "scaling", *_said(recipe)}
    return {key: value for key, value in source.model_args.items() if key not in decided and value != by_name.get(key)}


def _said(recipe: Recipe) -> dict[str, Any]:
    """What a recipe itself says of the network."""
    specs = {key: getattr(recipe, key) for key in ("neuron", "surrogate", "scaling")}
    return {key: value for key, value in specs.items() if value != "model"} | (recipe.model_args or {})
