"""The plan of an ablation, arms of recipe keys times seeds, and the results that it has so far."""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from zoo.data.registry import BUILTIN
from zoo.errors import ZooError
from zoo.files import read_yaml
from zoo.names import check_name
from zoo.plugins import changes_since, load_plugin
from zoo.result import Arm, read
from zoo.scaling.spec import resolve_scaling
from zoo.schema import Count, Model, parse

from .commands import find_plan
from .recipe import DEFAULTS, Recipe

Name = Annotated[str, Field(pattern="^[A-Za-z0-9_.-]+$")]
Pair = Annotated[list[str], Field(min_length=2, max_length=2)]


class _Keys(Model):
    """What the file of a plan holds."""

    question: Annotated[str, Field(min_length=1)] = ""
    seeds: list[Count] = Field(min_length=1)
    further_seeds: list[Count] = Field(default_factory=list, min_length=1)
    """Those that were added when results of `seeds` were known: what these alone say is reported, too."""
    recipe: dict[str, Any] = Field(min_length=1)
    """Keys of a recipe, for all arms."""
    arms: dict[Name, dict[str, Any]] = Field(min_length=1)
    """From the name of an arm to the keys in which it differs; the first is the baseline."""
    contrasts: list[Pair] = Field(default_factory=list, min_length=1)
    """Pairs [arm, arm it is compared to]; by default each with the first."""


class Run(NamedTuple):
    """One training run of a plan."""

    arm: str
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """The name of its files."""
        return f"{self.arm}.seed{self.seed}"


class Plan(NamedTuple):
    """Arms and seeds; the first arm is the baseline."""

    name: str
    question: str
    arms: list[str]
    seeds: list[int]
    further: list[int]
    """Those of the seeds that were added when results of the others were known."""
    contrasts: list[tuple[str, str]]
    """Pairs (arm, arm it is compared to)."""
    runs: list[Run]
    """Seed by seed, so that an unfinished ablation has whole pairs."""
    folder: Path
    """Where its results are."""

    def result_of(self, run: Run) -> dict[str, Any] | None:
        """Returns the result of a run, None if it has none yet; ZooError for no result, or of another recipe."""
        file = self.folder / f"{run.name}.json"
        if not file.exists():
            return None
        try:
            result = read(file, {"accuracy": Arm})
        except ZooError as error:
            raise ZooError(f"{error}; this is no result of an ablation: move it away") from error
        other = ""
        for key, value in run.recipe.settings.items():
            before = result["recipe"].get(key, DEFAULTS[key])
            if before != value and key != "test_reads":  # which grows with the seeds
                other = f"{key} = {before!r}, the plan says {value!r}"
        for name, was, now in changes_since(result.get("plugins")):
            other = f"{name} of sha256 {was}, now {now}"
        if other:
            fix = "give the changed plan another name, or move the file and its run (--work-dir) away"
            raise ZooError(f"{file} was made with {other}: {fix}")
        return result

    def results(self, arm: str) -> dict[int, dict[str, Any]]:
        """Returns the results of an arm so far, by seed."""
        found = {run.seed: self.result_of(run) for run in self.runs if run.arm == arm}
        return {seed: result for seed, result in found.items() if result}


def load_plan(path: str) -> Plan:
    """Reads a plan, a file or one of the project by its name; see `_Keys`.

    Raises:
        ZooError: no such file, an unknown key, or a run that could not be started.
    """
    file = find_plan(path)
    given = read_yaml(file)
    if file.suffix not in (".yaml", ".yml"):
        raise ZooError(f"a plan is called NAME.yaml, not {file.name}: its results go to the folder NAME beside it")
    keys = parse(_Keys, given, f"plan {file}")
    arms, seeds = list(keys.arms), keys.seeds + keys.further_seeds
    if len(set(seeds)) < len(seeds):
        raise ZooError(f"seeds of {file} must be different, not {seeds}")
    for pair in keys.contrasts:
        if pair[0] == pair[1] or not {*pair} <= {*arms}:
            raise ZooError(f"a contrast of {file} is a pair of two arms ({', '.join(arms)}), not {pair!r}")
    runs = [_run(file, keys, arm, seed, len(arms) * len(seeds)) for seed in seeds for arm in arms]
    for key in ("test", "dataset", "data_dir", "val_images", "img_size"):
        if len({getattr(run.recipe, key) for run in runs}) > 1:
            raise ZooError(f"arms of {file} must all be measured on the same images: set {key} in 'recipe' alone")
    contrasts = [(a, b) for a, b in keys.contrasts] or [(arm, arms[0]) for arm in arms[1:]]
    return Plan(file.stem, keys.question, arms, seeds, keys.further_seeds, contrasts, runs, file.with_suffix(""))


def _run(file: Path, keys: _Keys, arm: str, seed: int, reads: int) -> Run:
    values = keys.recipe | keys.arms[arm]
    if "seed" in values:
        raise ZooError(f"the plan {file} lists its seeds under 'seeds', not as a recipe key")
    recipe = Recipe(**{"comparison": f"ablation {file.stem}", "test_reads": reads} | values | {"seed": seed})
    # What only shows when a run starts, or ends, is better found before the first one does.
    # Those of others may have validation images of their own, which shows when they are loaded.
    if not recipe.test and not recipe.val_images and recipe.dataset in BUILTIN:
        raise ZooError(f"runs of {file} would measure nothing: set val_images, or test: true")
    for plugin in recipe.plugins:
        load_plugin(plugin)
    check_name(recipe.model)
    if recipe.scaling != "model":
        resolve_scaling(recipe.scaling)
    return Run(arm, seed, recipe)
