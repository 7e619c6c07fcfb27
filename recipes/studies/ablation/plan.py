"""The plan of an ablation, and the results that it has so far."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data.registry import BUILTIN
from zoo.errors import ZooError, one_of
from zoo.files import read_yaml, user_path
from zoo.load import check_name
from zoo.plugins import changes_since, load_plugin
from zoo.result import Arm, read
from zoo.scaling.spec import resolve_scaling

from ...recipe import DEFAULTS, Recipe

PLANS = Path(__file__).resolve().parent / "plans"
"""Those of the project, with their results beside them."""
_KEYS = {"question": str, "seeds": list, "further_seeds": list, "recipe": dict, "arms": dict, "contrasts": list}


class Run(NamedTuple):
    """One training run of a plan."""

    arm: str
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """Of its files."""
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
        """The result of a run, None if it has none yet.

        Raises:
            ZooError: the file is the result of another run or recipe, or none.
        """
        file = self.folder / f"{run.name}.json"
        if not file.exists():
            return None
        try:
            result = read(file, {"accuracy": Arm})
        except ZooError as error:
            raise ZooError(f"{error}; this is no result of an ablation: move it away") from error
        for key, value in (("arm", run.arm), ("seed", run.seed)):
            if result[key] != value:
                raise ZooError(f"{file} is a result of {key} {result[key]!r}, not of {value!r}: move it away")
        recorded, other = _recorded(result), ""
        for key, value in run.recipe.settings.items():
            before = recorded.get(key, DEFAULTS[key])
            if before != value and key != "test_reads":  # which grows with the seeds
                other = f"{key} = {before!r}, the plan says {value!r}"
        for name, was, now in changes_since(result.get("plugins")):
            other = f"{name} of sha256 {was}, now {now}"
        if other:
            fix = "give the changed plan another name, or move the file and its run (--work-dir) away"
            raise ZooError(f"{file} was made with {other}: {fix}")
        return result

    def results(self, arm: str) -> dict[int, dict[str, Any]]:
        """The results of an arm so far, by seed."""
        found = {run.seed: self.result_of(run) for run in self.runs if run.arm == arm}
        return {seed: result for seed, result in found.items() if result}


def load_plan(path: str) -> Plan:
    """Read a plan: `question`, `seeds`, `recipe` (keys of a recipe), `arms` (name: keys that differ), `contrasts`, and
    `further_seeds`, which were added when results of `seeds` were known: what these alone say is reported, too.

    Args:
        path: a file, or the name of a plan of the project.

    Raises:
        ZooError: no such file, an unknown key, or a run that could not be started.
    """
    file = _find(user_path(path))
    given = read_yaml(file)
    if file.suffix not in (".yaml", ".yml"):
        raise ZooError(f"a plan is called NAME.yaml, not {file.name}: its results go to the folder NAME beside it")
    if not isinstance(given, dict):
        raise ZooError(f"{file} is not a plan: expected the keys {', '.join(_KEYS)}")
    for key, value in given.items():
        if key not in _KEYS:
            raise one_of("key of a plan", key, list(_KEYS))
        if not isinstance(value, _KEYS[key]) or not value:
            raise ZooError(f"key {key} of {file} takes a non-empty {_KEYS[key].__name__}, not {value!r}")
    for key in ("seeds", "recipe", "arms"):
        if key not in given:
            raise ZooError(f"{file} says no {key}")
    further = given.get("further_seeds", [])
    arms, seeds = list(given["arms"]), given["seeds"] + further
    for i, seed in enumerate(seeds):
        if type(seed) is not int or seed < 0 or seed in seeds[:i]:
            raise ZooError(f"seeds of {file} must be different whole numbers from 0, not {seed!r}")
    for arm in arms:
        if not isinstance(arm, str) or not re.fullmatch(r"[A-Za-z0-9_.-]+", arm):
            form = "letters, digits, '_', '-' and '.', in quotes if YAML would read it as something else"
            raise ZooError(f"arm {arm!r} of {file} needs a name of {form}")
    contrasts = given.get("contrasts", [])
    for i, pair in enumerate(contrasts):
        if not isinstance(pair, list) or len(pair) != 2 or any(arm not in arms for arm in pair) or pair[0] == pair[1]:
            raise ZooError(f"a contrast of {file} is a pair of two arms ({', '.join(arms)}), not {pair!r}")
        if pair in contrasts[:i]:
            raise ZooError(f"the contrast {pair!r} of {file} stands twice")
    runs = [_run(file, given, arm, seed, len(arms) * len(seeds)) for seed in seeds for arm in arms]
    for key in ("test", "dataset", "data_dir", "val_images", "img_size"):
        if len({getattr(run.recipe, key) for run in runs}) > 1:
            raise ZooError(f"arms of {file} must all be measured on the same images: set {key} in 'recipe' alone")
    pairs = [(a, b) for a, b in contrasts] or [(arm, arms[0]) for arm in arms[1:]]
    return Plan(file.stem, given.get("question", ""), arms, seeds, further, pairs, runs, file.with_suffix(""))


def _recorded(result: dict[str, Any]) -> dict[str, Any]:
    """The recipe of a result; that of sresnet19 in the form of tdBN and TET may leave it out: once the default."""
    recipe: dict[str, Any] = result["recipe"]
    given = recipe.get("model_args") or {}
    width = re.fullmatch(r"sresnet19(?:_w(\d+))?(?:_gs)?", str(recipe.get("model")))
    if (
        width
        and isinstance(given, dict)
        and "lif_hidden" in (result["spikes_per_layer"] or {})
        and "hidden" not in given
    ):
        first = int(width[1] or 128)
        return recipe | {"model_args": given | {"stem": given.get("stem", first // 2), "hidden": 2 * first}}
    return recipe


def _find(path: Path) -> Path:
    """The file of a plan; results name the project's plans by where they were once, recipes/ablations/NAME.yaml."""
    if not path.is_file() and path.parent in (Path(), Path("recipes/ablations")):
        ours = PLANS / path.with_suffix(".yaml").name
        if ours.is_file():
            return ours
        if not path.suffix:
            raise one_of("plan", path.name, sorted(file.stem for file in PLANS.glob("*.yaml")))
    return path


def _run(file: Path, given: dict[str, Any], arm: str, seed: int, reads: int) -> Run:
    changes = given["arms"][arm]
    if not isinstance(changes, dict):
        raise ZooError(f"arm {arm!r} of {file} takes the recipe keys that it changes, not {changes!r}")
    values = given["recipe"] | changes
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
