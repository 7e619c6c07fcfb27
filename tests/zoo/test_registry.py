"""`create_model`, the zoo's and timm's: keywords, layouts, counting spikes, bad requests."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from timm.models import PretrainedCfg

import zoo
from zoo.errors import ZooError
from zoo.neurons.surrogate import Surrogate


@pytest.mark.parametrize("off", [None, "none"])
def test_scaling_can_be_switched_off(off):
    model = zoo.create_model("sresnet19_w16_gs", scaling=off)
    assert model.model_args["scaling"] == "none"
    assert not [m for m in model.modules() if getattr(m, "scaling", None)]


@pytest.mark.parametrize(
    ("name", "kwargs", "words"),
    [
        ("sresnet91", {}, "sresnet19"),
        ("resnet18", {}, "resnet18"),
        ("sresnet19", {"timestep": 2}, "timestep"),
        ("sresnet19", {"timesteps": 0}, "timesteps must be an integer from 1 to"),
        ("sresnet19", {"scaling": "causal"}, "causal_trace"),
        ("sresnet19", {"dropout": 1.0}, "dropout"),
        ("sresnet19", {"in_chans": 2.5}, "in_chans"),
        ("sresnet19", {"pretrained": True}, "no published weights"),
        ("max_resnet18_w16", {"pretrained": True}, "without a tag: take max_resnet18_w16.t8_i2e_cifar10$"),
        (
            "sresnet20_gs.t4_cifar10",
            {"pretrained": True},
            "no published weights.*recipes.train families.t4_cifar10 --model sresnet20_gs",
        ),
    ],
)
def test_bad_requests_are_named(name, kwargs, words):
    with pytest.raises(ZooError, match=words):
        zoo.create_model(name, **kwargs)


@pytest.mark.parametrize("overlay", [{}, {"input_size": (1, 28, 28)}])
def test_a_network_of_one_channel_has_one_mean(overlay):
    cfg = zoo.create_model("sresnet19_w16", in_chans=1, pretrained_cfg_overlay=overlay).pretrained_cfg
    assert cfg["input_size"] == (1, *overlay.get("input_size", (3, 32, 32))[1:])
    assert len(cfg["mean"]) == len(cfg["std"]) == 1


def test_numbers_and_paths_are_those_that_people_have(tmp_path):
    numbers = {"num_classes": np.int64(3), "in_chans": torch.tensor(1), "timesteps": np.uint8(2)}
    model = zoo.create_model(Path("svgg11_w8"), **numbers)
    assert json.loads(json.dumps(model.model_args))["timesteps"] == 2
    model.reset_classifier(np.int32(4))
    assert json.dumps(model.pretrained_cfg["num_classes"]) == "4"
    with pytest.raises(ZooError, match="timesteps must be an integer"):
        zoo.create_model("svgg11_w8", timesteps=torch.ones(2))
    assert zoo.load_dataset(Path("digits")).name == "digits"
    assert str(zoo.load_dataset("digits")) == "digits: 1,437 training and 360 test images"
    assert zoo.list_models("svgg5*", exclude_filters="*_gs") == ["svgg5"]


def test_weights_from_elsewhere_are_named_as_nobodys(tmp_path):
    name, file = "sresnet19_w16.t2_cifar10", tmp_path / "other.safetensors"
    other = zoo.create_model("sresnet19_w16", timesteps=2)
    safetensors.torch.save_model(other, str(file))
    model = zoo.create_model(name, pretrained=True, checkpoint_path=str(file))
    assert torch.equal(model.fc.weight, other.fc.weight)
    assert model.weights_sha256 is None
    (tmp_path / "short.safetensors").write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ZooError, match=r"short\.safetensors is not a valid safetensors file"):
        zoo.create_model("sresnet19_w16", checkpoint_path=str(tmp_path / "short.safetensors"))
    with pytest.raises(ZooError, match="checkpoint_path takes a "):
        zoo.create_model("sresnet19_w16", checkpoint_path="x")
    for others in ({"checkpoint_path": str(file)}, {"pretrained_cfg_overlay": {"file": str(file)}}):
        with pytest.raises(ZooError, match=f"load takes the weights of {name}: "):
            zoo.load(name, **others)
    for create in (zoo.create_model, timm.create_model):
        for cfg in ({"file": "x.pth"}, PretrainedCfg(file="x.pth")):
            with pytest.raises(ZooError, match="pretrained_cfg takes a tag"):
                create("sresnet19_w16", pretrained=True, pretrained_cfg=cfg)
        for source in ({"url": "https://x.example/x.pth"}, {"hf_hub_id": "a/b"}, {"file": "x.pth"}):
            with pytest.raises(ZooError, match=rf"pretrained_cfg_overlay names weights by {next(iter(source))}"):
                create("sresnet19_w16", pretrained=True, pretrained_cfg_overlay=source)


@pytest.mark.parametrize("other", [{"num_classes": 5}, {"features_only": True}, {"num_classes": 0}, {}])
def test_all_weights_but_the_classifiers_are_the_checkpoints(other):
    """timm does not look where it replaces the classifier; other neurons have weights that the file lacks."""
    name = "sresnet19_w16.t2_cifar10"
    for create in (zoo.load, functools.partial(zoo.create_model, pretrained=True)):
        create(name, **other)
        for wrong in ({"neuron": "psn"}, {"norm": "tebn"}):
            with pytest.raises(ZooError, match=r"do(es)? not fit"):
                create(name, **other, **wrong)
    with pytest.raises(ZooError, match=r"no tensor 'fc_hidden\.0\.lif\.w' \(give neuron, norm"):
        zoo.load("plif_net_w32", num_classes=5, neuron="if")


def test_a_network_says_what_it_is_and_nobody_else():
    for make in (zoo.create_model, timm.create_model):
        with pytest.raises(ZooError, match="unknown keyword of ms_resnet19_w16 'own_args'"):
            make("ms_resnet19_w16", own_args={"timesteps": 1})
    model = zoo.create_model("sresnet19_w16_gs", surrogate=Surrogate("triangle", 2.0))
    assert json.loads(json.dumps(model.model_args))["surrogate"] == {"name": "triangle", "width": 2.0}
    again = zoo.create_model("sresnet19_w16_gs", **json.loads(json.dumps(model.model_args)))
    assert again.lif1.surrogate == model.lif1.surrogate
    model.model_args["scaling"]["alpha"] = 0.1  # one's own, not that of all that are built later
    assert zoo.create_model("sresnet19_w16_gs").model_args["scaling"]["alpha"] == 0.5


def test_a_new_classifier_has_no_labels_and_no_origin():
    model = zoo.load("sresnet19_w16.t2_cifar10")
    assert model.weights_sha256
    learnt = {"tag", "label_names"}  # what nobody trained has not
    assert learnt <= model.pretrained_cfg.keys()
    assert not learnt & zoo.create_model("sresnet19_w16", timesteps=2).pretrained_cfg.keys()
    model.reset_classifier(5)
    assert model.pretrained_cfg["num_classes"] == 5
    assert not learnt & model.pretrained_cfg.keys()
    assert model.weights_sha256 is model.training_args is None
