"""Finished stages of long trainings: runs whose files speak of the same weights, and of their own recipe."""

import pytest
from conftest import ROOT

from recipes.config import DEFAULTS, load_recipe
from zoo.checkpoint import read_config
from zoo.files import sha256_of
from zoo.record import read

STAGES = sorted((ROOT / "recipes" / "stages").iterdir())


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_is_a_run_of_its_recipe(stage):
    config, recipe = read_config(stage / "config.json"), load_recipe(stage.name)
    trained = recipe.settings
    assert {key: config["recipe"].get(key, DEFAULTS[key]) for key in trained} == trained
    assert f"{config['architecture']}.{recipe.tag}" == stage.name
    assert len((stage / "summary.csv").read_text().splitlines()) == 1 + recipe.epochs
    assert (stage / "recipe.yaml").exists()
    weights = stage / "model.safetensors"
    if recipe.test or weights.exists():  # the weights of one without are nowhere but in the stage after it
        result = read(stage / "result.json")
        assert config["weights_sha256"] == result["weights_sha256"] == sha256_of(weights)
        assert f"{result['model']}.{result['tag']}" == stage.name
        assert result["split"] == "test"
        assert result["images"] == 10_000
