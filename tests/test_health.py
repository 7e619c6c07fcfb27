"""Short trainings that show whether a network learns and all of its layers spike."""

from __future__ import annotations

import pytest
import torch
from conftest import assert_one_error, run_module, tiny

import zoo
from recipes import health
from zoo.errors import ZooError


def test_firing_rates_are_spikes_per_neuron_and_step():
    model = tiny(timesteps=3).train()
    seen = {}
    for name, layer in zoo.SpikeCounter(model).layers.items():
        layer.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o.mean().item()}))
    rates = health.firing_rates(model, torch.randn(4, 3, 8, 8))
    assert rates == pytest.approx(seen)
    assert len(rates) == len(seen) == 8
    assert all(0 < rate < 1 for rate in rates.values())


def test_a_silenced_layer_is_found():
    model = tiny().train()
    torch.nn.init.constant_(model.stages[1][0].bn1.bias, -9.0)
    rates = health.firing_rates(model, torch.randn(4, 3, 8, 8))
    result = {"train_loss": [2.0, 1.0], "rates_start": rates, "rates_end": dict.fromkeys(rates, 0.1)}
    assert health.faults(result) == ["silent at the start: stages.1.0.lif1"]


@pytest.mark.parametrize(("last", "found"), [(1.9, 0), (1.97, 1), (2.1, 1), (float("nan"), 1)])
def test_a_loss_that_does_not_fall_is_found(last, found):
    result = {"train_loss": [2.0, last], "rates_start": {"lif1": 0.2}, "rates_end": {"lif1": 0.2}}
    assert len(health.faults(result)) == found


def test_the_small_forms_are_one_a_family():
    names = health.small_forms()
    assert all(name.endswith("_gs") for name in names)
    kinds = [type(zoo.create_model(name)) for name in names]
    assert set(kinds) == {type(zoo.create_model(name)) for name in zoo.list_models("*_gs")}
    assert len(kinds) == len(set(kinds)) == 10


def test_a_network_is_examined():
    result = health.examine("sresnet19_w16_gs", steps=32, batch=16, timesteps=1, lr=2e-3, dataset="digits")
    assert health.faults(result) == []
    assert len(result["train_loss"]) == 4
    assert result["rates_start"].keys() == result["rates_end"].keys()
    assert result["rates_start"] != result["rates_end"]
    with pytest.raises(ZooError, match="multiple of 4, not 6"):
        health.examine("sresnet19_w16_gs", steps=6, batch=16, timesteps=1, lr=2e-3, dataset="digits")


def test_bad_requests_and_sick_networks_end_in_one_error(monkeypatch):
    assert_one_error(run_module("recipes.health", "sresnet91", "--dataset", "digits"), "sresnet91")
    result = {"model": "x", "train_loss": [1.0, 2.0], "rates_start": {"a": 0.0}, "rates_end": {"a": 0.2}}
    monkeypatch.setattr(health, "examine", lambda model, **_: result)
    with pytest.raises(ZooError, match="not healthy: x"):
        health.main(["x"])


def test_the_page_is_what_its_files_say():
    health.main(["--check"])
