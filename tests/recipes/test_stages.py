"""Finished stages of long trainings: runs whose files speak of the same weights, and of their own recipe."""

from pathlib import Path

import pytest
from conftest import ROOT

from recipes.recipe import DEFAULTS, load_recipe
from zoo.checkpoint.config import read_config
from zoo.files import sha256_of
from zoo.names import BUNDLED
from zoo.result import read

STAGES = sorted(file for file in (ROOT / "recipes" / "stages").iterdir() if file.is_dir())


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_is_a_run_of_its_recipe(stage):
    config, recipe = read_config(stage / "config.json"), load_recipe(stage.name)
    trained = {key: value for key, value in recipe.settings.items() if key != "init"}
    assert {key: config["recipe"].get(key, DEFAULTS[key]) for key in trained} == trained
    if recipe.init:  # which may have moved since: what counts are its weights
        name = Path(recipe.init).name.removesuffix("-seed0")
        [before] = [folder / name for folder in (BUNDLED, STAGES[0].parent) if (folder / name).exists()]
        assert config["init_sha256"] == read_config(before / "config.json")["weights_sha256"]
    assert f"{config['architecture']}.{recipe.tag}" == stage.name
    assert len((stage / "summary.csv").read_text().splitlines()) == 1 + recipe.epochs
    assert (stage / "recipe.yaml").exists()
    weights = stage / "model.safetensors"
    if recipe.test or weights.exists():  # the weights of others are nowhere but in the stage after them
        assert config["weights_sha256"] == sha256_of(weights)
    if recipe.test:
        result = read(stage / "result.json")
        assert result["weights_sha256"] == config["weights_sha256"]
        assert f"{result['model']}.{result['tag']}" == stage.name
        assert result["split"] == "test"
        assert result["images"] == 10_000
