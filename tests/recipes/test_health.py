"""Short trainings that show whether a network learns and all of its layers spike."""

from __future__ import annotations

import pytest
import torch
from pictures import CLASSES, make_pictures

import zoo
from recipes import health
from recipes.commands import parse_health
from zoo.data import load_dataset, normalise, split
from zoo.errors import ZooError


def examined(data, steps, batch, timesteps, *words):
    numbers = {"--steps": steps, "--batch": batch, "--timesteps": timesteps, "--dataset": data}
    words = [str(word) for pair in numbers.items() for word in pair] + list(words)
    return health.examine("svgg11_w8_gs", load_dataset(data), parse_health(words))


@pytest.mark.parametrize(
    ("last", "rate", "found"),
    [
        (1.9, 0.001, ""),
        (1.97, 0.2, "does not fall"),
        (float("nan"), 0.2, "does not fall"),
        (1.9, 0.0005, "silent at the end: lif1"),
    ],
)
def test_a_loss_that_does_not_fall_and_a_layer_that_hardly_spikes_are_found(last, rate, found):
    result = {"train_loss": [2.0, last], "rates_start": {"lif1": 0.001}, "rates_end": {"lif1": rate}}
    assert found in "".join(health.faults(result))
    assert len(health.faults(result)) == bool(found)


def test_the_small_forms_are_one_a_family():
    names = health.small_forms()
    assert all(name.endswith("_gs") for name in names)
    with torch.device("meta"):
        kinds = [type(zoo.create_model(name)) for name in names]
        assert set(kinds) == {type(zoo.create_model(name)) for name in zoo.list_models("*_gs")}
    assert len(kinds) == len(set(kinds)) == 10


def test_a_network_is_examined():
    result = examined("digits", 32, 16, 2, "--lr", "0.005")
    assert health.faults(result) == []
    assert len(result["train_loss"]) == 4
    assert result["rates_start"].keys() == result["rates_end"].keys()
    assert result["rates_start"] != result["rates_end"]


def test_rates_are_of_what_is_trained_over_held_out_images(monkeypatch):
    seen, rates = [], health.firing_rates
    monkeypatch.setattr(
        health, "firing_rates", lambda model, x: seen.append((model.state_dict(), x)) or rates(model, x)
    )
    data = load_dataset("digits")
    examined("digits", 4, 8, 1, "--lr", "0")
    expected = normalise(data.train_images[split(data, 0, 400)[1]][:100], data.mean, data.std)
    for state, x in seen:
        assert torch.equal(state["conv1.weight"], seen[0][0]["conv1.weight"])
        assert torch.equal(x, expected)
    assert len(seen) == 2


def test_validation_images_of_a_folder_are_the_held_out_ones(tmp_path):
    folder = f"folder:{make_pictures(tmp_path / 'flowers', ('train', 'val', 'test'), count=4)}"
    result = examined(folder, 8, 8, 2)
    assert (result["dataset"], result["images"], len(result["train_loss"])) == ("flowers", 4 * len(CLASSES), 4)


def test_sick_networks_do_not_stop_the_others(monkeypatch, capsys):
    well = {"train_loss": [2.0, 1.0], "rates_start": {"a": 0.2}, "rates_end": {"a": 0.2}}
    found = {"sresnet19": well, "sresnet18": well | {"train_loss": [2.0, 2.0]}, "sresnet20": well}

    def examine(model, *_, **__):
        if model == "sresnet34":
            raise ZooError("the loss is nan in epoch 1")
        return found[model]

    monkeypatch.setattr(health, "examine", examine)
    with pytest.raises(ZooError, match=r"not healthy: sresnet34, sresnet18$"):
        health.main(["sresnet19", "sresnet34", "sresnet18", "sresnet20", "--dataset", "digits", "--steps", "100"])
    lines = capsys.readouterr().out
    assert "sresnet34: the loss is nan" in lines
    assert "sresnet20: loss 2.000 to 1.000; every layer spikes" in lines
    with pytest.raises(ZooError, match="digits has 1437 training images, 400 steps of 32 take 3600: lower --steps"):
        health.main(["sresnet19", "--dataset", "digits"])
