"""Finished stages of long trainings: each a whole run whose files speak of the same weights."""

import pytest
from conftest import ROOT

from recipes.config import DEFAULTS, load_recipe
from zoo.checkpoint import read_config
from zoo.files import sha256_of
from zoo.record import read

STAGES = sorted((ROOT / "recipes" / "stages").iterdir())


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_is_a_whole_run(stage):
    config, result = read_config(stage / "config.json"), read(stage / "result.json")
    assert config["weights_sha256"] == result["weights_sha256"] == sha256_of(stage / "model.safetensors")
    assert f"{result['model']}.{result['tag']}" == stage.name
    assert result["split"] == "test"
    assert result["images"] == 10_000
    trained = load_recipe(stage.name).settings
    assert {key: config["recipe"].get(key, DEFAULTS[key]) for key in trained} == trained
    log = (stage / "summary.csv").read_text().splitlines()
    assert len(log) == 1 + result["epochs"]
    assert (stage / "recipe.yaml").exists()
