"""What timm's own `save_for_hf` and `push_to_hf_hub` write of our networks loads again, through every door."""

from __future__ import annotations

import inspect

import pytest
import timm
import torch
from conftest import awake, small_families
from hub_client import TRY, loopback, outcomes
from minihub import TOKEN

import zoo
from zoo.errors import ZooError

MAKE = f"from torch import nn\n{inspect.getsource(awake)}"  # for the processes behind the Hub


def doors(where):
    return timm.create_model(where, pretrained=True).eval(), zoo.create_model(where), zoo.load(where)


@pytest.mark.parametrize("name", small_families())
def test_what_timm_saves_of_a_family_loads_again(name, tmp_path):
    neuron = {"name": "lif", "decay": 0.25}
    model = awake(zoo.create_model(f"{name}_gs", timesteps=1, num_classes=5, neuron=neuron, norm="tdbn"))
    model.set_timesteps(2)
    model.reset_classifier(3)
    timm.models.save_for_hf(model, tmp_path, safe_serialization="both")
    x = torch.randn(2, 3, 32, 32)
    for again in doors(f"local-dir:{tmp_path}"):
        assert torch.equal(again(x), model(x))
        assert again.model_args == model.model_args


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if i < 2 else pytest.mark.slow) for i, name in enumerate(small_families())],
)
def test_what_timm_pushes_of_a_family_loads_again(name):
    server, client = loopback()
    server.faults.clear()
    repo = f"org/timms-{name}"
    code = f"""
model = awake(zoo.create_model({name!r}, timesteps=2, num_classes=5))
timm.models.push_to_hf_hub(model, {repo!r})
for create in (zoo.create_model, zoo.load, lambda where: timm.create_model(where, pretrained=True)):
    again = create("hf-hub:{repo}")
    print(torch.equal(logits(again), logits(model)), again.timesteps, again.num_classes)
"""
    assert outcomes(client.run(TRY + MAKE + code, token=TOKEN))[-3:] == ["True 2 5"] * 3
    assert {"config.json", "model.safetensors", "README.md"} <= server.files(repo).keys()


def test_what_timm_saves_of_a_checkpoint_has_the_arguments_of_the_checkpoint(tmp_path):
    model = timm.create_model("sresnet19_w16_gs.t2_cifar100", pretrained=True, drop_rate=0.1).eval()
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    x = torch.randn(2, 3, 32, 32)
    for again in doors(f"local-dir:{tmp_path}"):
        assert torch.equal(again(x), model(x))
        assert (again.timesteps, again.num_classes) == (2, 100)
        assert again.pretrained_cfg["label_names"] == model.pretrained_cfg["label_names"]
        assert again.pretrained_cfg["mean"] == model.pretrained_cfg["mean"]


def test_images_of_another_size_are_saved_with_a_network_that_needs_them(tmp_path):
    model = timm.create_model("plif_net_w16", img_size=48, timesteps=1).eval()
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    x = torch.randn(1, 3, 48, 48)
    for again in doors(f"local-dir:{tmp_path}"):
        assert torch.equal(again(x), model(x))
        assert again.pretrained_cfg["input_size"] == (3, 48, 48)


def test_a_pickle_alone_is_refused_with_the_way_out(tmp_path):
    timm.models.save_for_hf(zoo.create_model("sresnet19_w16", timesteps=1), tmp_path)  # timm's default
    with pytest.raises(ZooError, match="safe_serialization=True"):
        zoo.create_model(f"local-dir:{tmp_path}")
