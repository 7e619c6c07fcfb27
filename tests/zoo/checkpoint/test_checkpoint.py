"""Checkpoints: what is written is what is read; what is broken is refused, and nothing is half-written."""

import copy
import json
import re
import shutil

import pytest
import safetensors.torch
import timm
import torch
from conftest import awake, run_code
from timm.utils import ModelEmaV3

import zoo
from recipes.lineage import recorded_recipe
from zoo.errors import ZooError
from zoo.files import atomic_write
from zoo.load import find_checkpoint

DATA_CFG = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "label_names": list("abcde")}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A network and its checkpoint, for each test to copy."""
    torch.manual_seed(0)
    neuron = {"name": "lif", "decay": 0.25}
    model = awake(zoo.create_model("sresnet19_w16_gs", timesteps=2, num_classes=5, neuron=neuron))
    folder = tmp_path_factory.mktemp("saved") / "run"
    zoo.save_checkpoint(folder, model, tag="t2_test", data_cfg=DATA_CFG, recipe={"seed": 3})
    return model, folder


@pytest.fixture
def model(saved):
    return copy.deepcopy(saved[0])


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved[1], tmp_path / "run")


def test_round_trip_through_zoo_and_timm(model, folder):
    x = torch.randn(2, 3, 32, 32)
    for again in (
        zoo.load_checkpoint(folder),
        zoo.load_checkpoint(folder / "model.safetensors"),
        zoo.create_model(f"local-dir:{folder}"),
        timm.create_model(f"local-dir:{folder}", pretrained=True).eval(),
    ):
        assert torch.equal(again(x), model(x))
        assert again.model_args["neuron"] == {"name": "lif", "decay": 0.25}
        assert again.pretrained_cfg["mean"] == [0.1, 0.2, 0.3] or again.pretrained_cfg["mean"] == (0.1, 0.2, 0.3)
        assert list(again.pretrained_cfg["label_names"]) == list("abcde")
        assert again.pretrained_cfg["tag"] == "t2_test"


def test_a_checkpoint_says_its_size_and_its_name_is_no_folder(tmp_path, monkeypatch):
    """Also of a network that is told the side of squares, and in a folder where another one lies under its name."""
    other = zoo.create_model("sresnet19_w16_gs", timesteps=2)
    zoo.save_checkpoint(tmp_path / "sresnet19_w16_gs.t2_cifar10", other, tag="t2_cifar10", data_cfg={})
    model = zoo.create_model("svgg11_w8", img_size=64, in_chans=2)
    zoo.save_checkpoint(tmp_path / "run", model, tag="t4_own", data_cfg={"input_size": (2, 48, 64)})
    monkeypatch.chdir(tmp_path)
    assert tuple(zoo.load("run").pretrained_cfg["input_size"]) == (2, 48, 64)
    assert tuple(zoo.load("run", img_size=32).pretrained_cfg["input_size"]) == (2, 32, 32)
    bundled = zoo.create_model("sresnet19_w16_gs.t2_cifar10", pretrained=True)
    assert not torch.equal(bundled.fc.weight, other.fc.weight)
    assert torch.equal(zoo.load("sresnet19_w16_gs.t2_cifar10").fc.weight, other.fc.weight)


def test_new_weights_are_not_under_the_license_of_those_they_started_from(model, tmp_path):
    model.pretrained_cfg["license"] = "cc-by-nc-4.0"
    for name, given in (("unsaid", {}), ("said", {"license": "mit"})):
        zoo.save_checkpoint(tmp_path / name, model, tag="x", data_cfg=DATA_CFG | given)
        cfg = json.loads((tmp_path / name / "config.json").read_text())["pretrained_cfg"]
        assert cfg.get("license") == given.get("license")


def test_another_class_count_channels_or_timesteps(folder):
    model = zoo.load_checkpoint(folder, num_classes=7, in_chans=1, timesteps=3)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 7)
    assert model.timesteps == 3
    assert [model.pretrained_cfg[key] for key in ("mean", "std")] == [pytest.approx((0.2,)), pytest.approx((0.5,))]
    assert model.weights_sha256 is None  # the checksum names weights that it no longer has all of
    assert "tag" not in model.pretrained_cfg  # as does the tag
    assert zoo.load_checkpoint(folder, timesteps=3).weights_sha256
    original = safetensors.torch.load_file(folder / "model.safetensors")
    assert torch.equal(model.stages[2][1].conv2.weight, original["stages.2.1.conv2.weight"])
    assert torch.allclose(model.conv1.weight, original["conv1.weight"].sum(1, keepdim=True))


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_weights_that_are_not_finite_are_not_saved(model, tmp_path):
    model.fc.weight.data[0, 0] = float("inf")
    with pytest.raises(ZooError, match=r"fc\.weight"):
        zoo.save_checkpoint(tmp_path / "x", model, tag="x", data_cfg=DATA_CFG)
    model.fc.weight.data[0, 0] = 1e5
    with pytest.raises(ZooError, match=r"float16: tensor 'fc\.weight'"):
        zoo.save_checkpoint(tmp_path / "x", model, tag="x", data_cfg=DATA_CFG, dtype=torch.float16)
    assert not (tmp_path / "x").exists()


def replace_classifier(model):
    model.fc = torch.nn.Linear(64, 7)


def silence(model):
    model.lif1 = torch.nn.Identity()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (replace_classifier, r"tensor 'fc.weight' has shape \[7, 64\].*reset_classifier"),
        (lambda model: setattr(model.lif1, "threshold", 0.8), "lif1 has threshold 0.8, built again it would have 1.0"),
        (lambda model: setattr(model.stages[1][0].lif2, "decay", 0.9), "stages.1.0.lif2 has decay 0.9"),
        (lambda model: setattr(model.lif1, "soft_reset", True), "lif1 has soft_reset True"),
        (silence, "lif1 has threshold None"),
        (lambda model: torch.nn.utils.parametrizations.weight_norm(model.fc), "lacks the tensor 'fc.weight'"),
    ],
)
def test_what_could_not_be_rebuilt_is_not_saved(model, change, words, tmp_path):
    change(model)
    with pytest.raises(ZooError, match=f"changed after 'sresnet19_w16_gs' was built.* {words}"):
        zoo.save_checkpoint(tmp_path / "x", model, tag="x", data_cfg=DATA_CFG)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"means": [0.5] * 3}, "unknown key of pretrained_cfg 'means'; did you mean mean?"),
        ({"mean": torch.zeros(3)}, "config.json takes JSON values"),
        ({"mean": [float("inf")] * 3}, "the config.json of this checkpoint as JSON: inf is no number that is finite"),
    ],
)
def test_a_config_that_could_not_be_read_is_not_written(model, changes, words, tmp_path):
    with pytest.raises(ZooError, match=f"could not be read again: {re.escape(words)}|{words}"):
        zoo.save_checkpoint(tmp_path / "x", model, tag="x", data_cfg=DATA_CFG | changes)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("wrap", [torch.compile, torch.nn.DataParallel, ModelEmaV3])
def test_a_wrapped_network_is_saved_as_itself(model, folder, wrap, tmp_path):
    zoo.save_checkpoint(tmp_path / "x", wrap(model), tag="t2_test", data_cfg=DATA_CFG, recipe={"seed": 3})
    assert (tmp_path / "x" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert (tmp_path / "x" / "config.json").read_bytes() == (folder / "config.json").read_bytes()


def test_a_network_without_a_name_is_not_saved(tmp_path):
    with pytest.raises(ZooError, match="this SpikingNetwork has no name: register the class"):
        zoo.save_checkpoint(tmp_path / "x", zoo.SpikingNetwork(), tag="x", data_cfg=DATA_CFG)


@pytest.mark.parametrize("left_out", [(), ("neuron", "norm", "encoding")])
def test_a_network_that_computes_otherwise_is_not_the_checkpoint(folder, left_out):
    """What a file leaves out is what its network has by itself."""
    args = json.loads((folder / "config.json").read_text())["model_args"]
    edit(folder, model_args={key: value for key, value in args.items() if key not in left_out})
    assert zoo.load(folder, norm="bn", encoding="direct").weights_sha256
    for same in ({}, {"timesteps": 3}, {"surrogate": "arctan"}, {"pretrained": True}):
        again = zoo.load(folder, **same)
        assert (again.pretrained_cfg["tag"], again.training_args) == ("t2_test", {"seed": 3})
    other = zoo.load(folder, neuron={"name": "lif", "decay": 0.9})
    assert (other.pretrained_cfg.get("tag"), other.training_args, other.weights_sha256) == (None, None, None)
    with pytest.raises(ZooError, match="load gives trained networks"):
        zoo.load(folder, pretrained=False)


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """A file-size limit of the operating system stands in for a full disk: the write fails midway."""
    target = tmp_path / "file"
    atomic_write(target, b"old")
    code = (
        "import resource, signal\n"
        "from zoo.errors import run_command\n"
        "from zoo.files import atomic_write\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        f"run_command(lambda argv: atomic_write({str(target)!r}, b'x' * 100_000))\n"
    )
    done = run_code(code)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot write {target}: ")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_checkpoint_keeps_the_rule_that_it_was_trained_with():
    """Not the default of its architecture, which may have changed since."""
    model = zoo.create_model("sresnet19_w32_gs.t2_cifar10", pretrained=True)
    assert model.model_args["scaling"] == {"name": "channel", "alpha": 0.5, "rank": 1}
    assert model.model_args["scaling"] != zoo.create_model("sresnet19_w32_gs").model_args["scaling"]
    fresh = zoo.create_model("sresnet19_w32_gs.t2_cifar10", pretrained=True, scaling="window")
    assert fresh.model_args["scaling"] == "window"
    assert zoo.load("sresnet19_w32_gs.t2_cifar10", scaling=None).model_args["scaling"] == "none"


def test_a_rule_that_is_not_registered_here(model, folder):
    """A plugin's: a warning, and the plain twin, through every door; a name of one's own is still an error."""
    config = json.loads((folder / "config.json").read_text())
    for scaling in ("my_rule", {"name": "permuted", "of": "my_rule"}):
        edit(folder, model_args=config["model_args"] | {"scaling": scaling})
        x = torch.randn(2, 3, 32, 32)
        for load in (
            lambda: zoo.load_checkpoint(folder),
            lambda: zoo.create_model(f"local-dir:{folder}"),
            lambda: timm.create_model(f"local-dir:{folder}", pretrained=True).eval(),
        ):
            with pytest.warns(UserWarning, match="my_rule.*not registered here"):
                again = load()
            assert torch.equal(again(x), model(x))
            assert again.model_args["scaling"] == "none"
        edit(folder, recipe={"model": "sresnet19_w16", "epochs": 1})
        with pytest.warns(UserWarning, match="my_rule"):
            config = find_checkpoint(folder).config
        assert recorded_recipe(config)["scaling"] == scaling
    with pytest.raises(ZooError, match="unknown scaling 'other'"), pytest.warns(UserWarning, match="my_rule"):
        zoo.load_checkpoint(folder, scaling="other")
