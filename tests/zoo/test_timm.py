"""What timm's own train.py, validate.py, `save_for_hf` and `push_to_hf_hub` do with a network of each family."""

import functools
import inspect

import pytest
import timm
import torch
from conftest import assert_one_error, awake, run_module, small_families
from hub_client import TRY, loopback, outcomes
from minihub import TOKEN
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.models import load_checkpoint
from timm.models import resume_checkpoint as resume
from timm.optim import create_optimizer_v2
from timm.utils import CheckpointSaver, ModelEmaV3
from torch import nn
from torch.nn import functional as F

import zoo
from zoo.errors import ZooError
from zoo.names import BUNDLED

# As the scripts call it, whatever flags are given: what is None was not.
GIVEN = {
    **{"in_chans": 3, "num_classes": 4, "drop_rate": 0.0, "drop_path_rate": None, "drop_block_rate": None},
    **{"global_pool": None, "bn_momentum": None, "bn_eps": None, "scriptable": False, "checkpoint_path": ""},
}
create = functools.partial(timm.create_model, timesteps=2, pretrained=False)


def images(batch=4):
    return torch.randn(batch, 3, 32, 32)


@pytest.mark.parametrize("name", small_families())
def test_a_training_of_timms(name, tmp_path):
    """Head initialisation, checkpointing, moving average, layer-wise decay, AMP, its checkpoints, and resuming."""
    model = awake(create(name, **GIVEN | {"drop_rate": 0.1, "global_pool": "avg"}))
    assert model.dropout.p == model.model_args["dropout"] == 0.1
    head = model.get_classifier()
    with torch.no_grad():
        head.weight.mul_(2.0)
        head.bias.mul_(2.0)
    nn.init.constant_(head.bias, 0.1)
    model.set_grad_checkpointing(enable=True)
    model.to(device=torch.device("cpu"), dtype=None)
    model.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.7)
    ema = ModelEmaV3(model, decay=0.9)
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(model.train()(images()), torch.arange(4))
    loss.backward()
    optimizer.step()
    ema.update(model, step=1)
    saver = CheckpointSaver(model, optimizer, model_ema=ema, checkpoint_dir=tmp_path, recovery_dir=tmp_path)
    saver.save_checkpoint(0, metric=1.0)
    file = str(tmp_path / "last.pth.tar")
    other = create(name, **GIVEN)
    assert resume(other, file, create_optimizer_v2(other, opt="adamw", lr=1e-3, layer_decay=0.7)) == 1
    x = images()
    assert torch.equal(other.eval()(x), y := model.eval()(x))
    assert not torch.equal(y[0], y[1])
    load_checkpoint(other, file, use_ema=True)
    assert torch.equal(other(x), ema.module.eval()(x))


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(1800)
def test_a_checkpoint_in_timms_validation_has_the_accuracy_of_its_row(data_root):
    """As validate.py measures it, with timm's data set, transform and loader, on all images; loaded into the twin."""
    file = str(BUNDLED / "sresnet19_w16_gs.t2_cifar10" / "model.safetensors")
    model = timm.create_model("sresnet19_w16", num_classes=10, timesteps=2, checkpoint_path=file).eval()
    config = resolve_data_config({}, model=model)
    config = {key: config[key] for key in ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")}
    data = create_dataset("torch/cifar10", root=data_root, split="test")
    loader = create_loader(
        data, batch_size=250, num_workers=0, device=torch.device("cpu"), use_prefetcher=False, **config
    )
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in loader)
    assert right == pytest.approx(7578, abs=2)  # another processor rounds differently


def test_timms_names_of_keywords():
    model = zoo.create_model("sresnet19_w16", drop_rate=0.2)
    assert model.model_args["dropout"] == 0.2
    for where in (f"local-dir:{BUNDLED}/sresnet19_w16.t2_cifar10", "sresnet19_w16"):
        for make in (timm.create_model, zoo.create_model):
            assert make(where, pretrained=True, drop_rate=0.2).model_args["dropout"] == 0.2
    with pytest.raises(ZooError, match=r"drop_rate 0\.2 and dropout 0\.1"):
        zoo.create_model("sresnet19_w16", drop_rate=0.2, dropout=0.1)
    with pytest.raises(ZooError, match="global_pool must be 'avg', not 'max'"):
        zoo.create_model("sresnet19_w16", global_pool="max")


@pytest.mark.parametrize("make", [timm.create_model, zoo.create_model])
@pytest.mark.parametrize(
    ("name", "kwargs", "words"),
    [
        ("sresnet19_w16", {"timestep": 2}, "did you mean timesteps.*hidden, .*stem"),
        (f"local-dir:{BUNDLED}/sresnet19_w16.t2_cifar10", {"hiden": 2}, "did you mean hidden"),
        ("svgg9_w16", {"hiden": 2}, r"unknown keyword of svgg9_w16 'hiden' \(known"),  # hidden is what makes svgg9
        ("svgg9_w16", {"hidden": 2}, "hidden is what makes svgg9_w16 that network"),
        ("sresnet19_w16", {"drop_path_rate": 0.1}, "unknown keyword of sresnet19_w16 'drop_path_rate'"),
    ],
)
def test_misspelt_keywords(make, name, kwargs, words):
    with pytest.raises(ZooError, match=words):
        make(name, **kwargs)


def test_a_script_of_others_knows_the_names_of_the_zoo(tmp_path):
    (tmp_path / "beside.py").write_text("answer = 42")
    script = tmp_path / "script.py"
    script.write_text("import sys, timm, beside\nif __name__ == '__main__':\n"
                      "    print(timm.is_model('sresnet19_w16'), sys.argv, beside.answer)\n")  # fmt: skip
    arguments = ["--model", "sresnet19_w16", "--help", "x"]
    done = run_module("zoo.script", script, *arguments)
    assert done.stdout == f"True {[str(script), *arguments]} 42\n", done.stderr
    assert_one_error(run_module("zoo.script", tmp_path / "no.py"), "no.py")
    script.write_text("raise OSError('its own')")
    assert "Traceback" in run_module("zoo.script", script).stderr
    assert_one_error(run_module("zoo.script"), "script")


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
        assert again.weights_sha256  # which timm's config.json lacks


def test_what_timm_pushes_loads_again():
    server, client = loopback()
    server.faults.clear()
    name, repo = small_families()[0], "org/timms-push"
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
        assert tuple(again.pretrained_cfg["input_size"]) == (3, 48, 48)


def test_a_pickle_alone_is_refused_with_the_way_out(tmp_path):
    timm.models.save_for_hf(zoo.create_model("sresnet19_w16", timesteps=1), tmp_path)  # timm's default
    with pytest.raises(ZooError, match="safe_serialization=True"):
        zoo.create_model(f"local-dir:{tmp_path}")
