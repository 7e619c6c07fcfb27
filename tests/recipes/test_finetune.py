"""From a trained network to one for images of one's own: freezing, layer-wise learning rates, a new head; and all of it
by the command line, up to a Hub and back."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from conftest import ROOT, assert_one_error, run_module
from hub_client import TRY, loopback, outcomes
from minihub import TOKEN
from pictures import CLASSES, make_pictures, make_shapes
from timm.optim import create_optimizer_v2

import zoo
from recipes.commands import parse_finetune, parse_train
from recipes.finetune import recipe_for
from recipes.lineage import InitialWeights, create, freeze, widened
from recipes.recipe import Recipe, load_recipe
from recipes.train import train
from recipes.validate import validate
from zoo.data import load_dataset
from zoo.errors import ZooError
from zoo.files import read_json
from zoo.names import OWN_DATASETS

INIT = "sresnet19_w16_gs.t2_cifar10"
SHORT = {"epochs": 1, "batch_size": 16, "lr": 0.01}


def finetune(folder: Path, out: Path, **more) -> dict:
    return train(load_recipe(INIT, {"dataset": f"folder:{folder}", "init": INIT, "out": str(out)} | SHORT | more))


@pytest.fixture(scope="module")
def flowers(tmp_path_factory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("own") / "flowers", ("train", "val", "test"))


def assert_validates(run: Path, data: str) -> None:
    """`validate` measures what the run did."""
    again, result = validate(str(run), data, device="cpu"), read_json(run / "result.json")
    assert {key: again[key] for key in ("top1", "data_sha256")} == {key: result[key] for key in ("top1", "data_sha256")}


def said(done) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_recipe_follows_from_the_images(tmp_path):
    whole = make_pictures(tmp_path / "x", ("train",), 30) / "train"  # 60 a class, 143 in all to train on
    recipe = recipe_for(INIT, f"folder:{whole}", {})
    assert (recipe.batch_size, recipe.epochs, recipe.val_images, recipe.img_size) == (16, 26, 0, 32)  # 208 steps
    assert (recipe.model, recipe.init, recipe.timesteps) == ("sresnet19_w16_gs", INIT, 2)
    recipe = recipe_for(INIT, "digits", {})
    assert (recipe.batch_size, recipe.epochs, recipe.val_images, recipe.img_size) == (32, 6, 143, 32)
    assert recipe.lr == pytest.approx(0.01)
    said = {"batch_size": 100, "lr": 0.5, "epochs": 2, "train_images": 300}
    recipe = recipe_for(INIT, "digits", said)
    assert {key: getattr(recipe, key) for key in said} == said
    assert recipe.val_images == 0
    with pytest.raises(ZooError, match="batch_size 200 is more than the 143 training images"):
        train(recipe_for(INIT, f"folder:{whole}", {"batch_size": 200, "out": str(tmp_path / "run")}))


@pytest.mark.slow
def test_one_command_tells_three_kinds_of_shapes_apart(tmp_path):
    """180 pictures of mixed sizes, default settings: 95 % of 60 new ones."""
    root, new = make_shapes(tmp_path / "shapes", 60), make_shapes(tmp_path / "new", 20, seed=1)
    text = said(run_module("recipes.finetune", "sresnet19_w16.t2_cifar10", root, "--out", tmp_path / "run"))
    assert "top-5" not in text
    found = json.loads(said(run_module("recipes.predict", tmp_path / "run", new, "--json")))
    right = sum(result["top"][0]["label"] == Path(result["image"]).parent.name for result in found)
    assert len(found) == 60
    assert right >= 57


@pytest.mark.slow
def test_a_folder_of_pictures_from_training_to_a_hub_and_back(tmp_path):
    root, out = make_pictures(tmp_path / "somewhere" / "my flowers", count=4), tmp_path / "run"
    data = f"folder:{root}"
    words = ["--init", INIT, "--dataset", data, "--epochs", 12, "--batch-size", 12, "--lr", 0.01, "--img-size", 24]
    text = said(run_module("recipes.train", INIT, *words, "--out", out))
    assert "a new head for 3 classes, in place of 10" in text
    assert f"{INIT.split('.')[0]}.t2_my_flowers on 24 images of my_flowers" in text
    result = read_json(out / "result.json")
    assert (result["dataset"], result["split"], result["images"]) == ("my_flowers", "test", 12)
    assert result["top1"] > 80
    for file in ("config.json", "result.json"):
        assert "somewhere" not in (out / file).read_text()

    assert_validates(out, data)
    pictures = sorted((root / "val").glob("*/0[01].*"))
    text = said(run_module("recipes.predict", out, *pictures, "--top", 1))
    assert set(re.findall(r"%  (\w+)", text)) <= set(CLASSES)
    assert [str(path) in text for path in pictures] == [True] * 6

    onnx = tmp_path / "model.onnx"
    assert "(12 images, given images)" in said(run_module("export", out, "-o", onnx, "--data", data))
    said(run_module("export.bench_ort", onnx, "--data", data, "--runs", 2, "--json", tmp_path / "onnx.json"))
    measured = read_json(tmp_path / "onnx.json")
    assert (measured["dataset"], measured["top1"]) == ("my_flowers", pytest.approx(result["top1"], abs=9))

    _, client = loopback()
    extra = ["--onnx", onnx, "--result", tmp_path / "onnx.json"]
    said(client.hub("push", out, "--repo", "me/flowers", *extra, token=TOKEN))
    said(client.hub("pull", "me/flowers", "-o", tmp_path / "pulled"))
    card = (tmp_path / "pulled" / "README.md").read_text()
    assert "trained on my_flowers" in card
    assert "somewhere" not in card
    here, there = (zoo.load(tmp_path / name) for name in ("run", "pulled"))
    assert there.pretrained_cfg["label_names"] == CLASSES
    x = torch.randn(2, 3, 24, 24)
    assert torch.equal(here(x), there(x))
    assert "%" in said(run_module("recipes.predict", tmp_path / "pulled", pictures[0]))
    ok = client.run(TRY + "attempt(lambda: zoo.load('hf-hub:me/flowers'))", token=TOKEN)
    assert outcomes(ok) == [f"ok {result['weights_sha256']}"]


def test_a_frozen_part_stays_as_it_was_statistics_and_all(flowers, tmp_path):
    finetune(flowers, tmp_path / "x", freeze=2, weight_decay=0.5, ema=0.9)
    before, after = zoo.load(INIT).state_dict(), safetensors.torch.load_file(tmp_path / "x" / "model.safetensors")
    frozen = [key for key in before if re.match(r"conv1|bn1|stages\.[01]\.", key)]
    assert len(frozen) > 50
    for key in frozen:
        assert torch.equal(before[key].half(), after[key].half()), key
    moved = [key for key in before if key.startswith("stages.2.") and not torch.equal(before[key], after[key].float())]
    assert {key.split(".")[-1] for key in moved} >= {"weight", "bias", "running_mean", "running_var"}


@pytest.mark.parametrize(
    "name", ["sresnet19_w16_gs", "ms_resnet18_w16", "plif_net_w16", "svgg9_w16", "sdt_2_64", "qkformer_3_64"]
)
def test_all_stages_frozen_leave_the_head(name):
    model = zoo.create_model(name, neuron="plif")  # whose neurons learn, too
    freeze(model, len(model.stages))
    learning = {key for key, value in model.named_parameters() if value.requires_grad}
    head = {key for key, _ in model.named_parameters() if re.match("fc|lif_hidden|final", key)}
    assert learning == head


@pytest.mark.parametrize("name", ["sresnet19_w16", "plif_net_w16", "svgg9_w16", "sdt_2_64", "maxformer_3_64"])
def test_layers_learn_the_slower_the_nearer_they_are_to_the_image(name):
    model = zoo.create_model(name, neuron="plif")
    optimizer = create_optimizer_v2(model, opt="sgd", lr=1.0, layer_decay=0.5)
    names = {id(value): key for key, value in model.named_parameters()}
    rates = {names[id(p)]: group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    assert {rate for key, rate in rates.items() if re.match("fc|lif_hidden|final", key)} == {1.0}
    stem = {rate for key, rate in rates.items() if key.startswith(("conv1", "bn1", "lif1"))}
    assert stem == {min(rates.values())}
    blocks = {}
    for key, rate in rates.items():
        if block := re.match(r"stages\.(\d+)\.(\d+)", key):
            blocks.setdefault(tuple(map(int, block.groups())), set()).add(rate)
    assert [len(of_block) for of_block in blocks.values()] == [1] * len(blocks)
    assert [max(blocks[key]) for key in sorted(blocks)] == sorted(max(of_block) for of_block in blocks.values())


@pytest.mark.parametrize("name", ["sresnet19", "sew_resnet19", "ms_resnet19", "max_resnet18"])
def test_a_narrower_network_widened_computes_the_same(name):
    narrow, wide = (zoo.create_model(f"{name}_w{width}", neuron="plif", num_classes=5) for width in (16, 32))
    assert {len(network(torch.rand(2, 3, 32, 32))[0]) for network in (narrow, wide)} == {5}  # statistics of their own
    narrow, wide = (network.double().eval() for network in (narrow, wide))
    state = widened(narrow.state_dict(), wide, torch.Generator().manual_seed(0))
    wide.load_state_dict(state)
    x = torch.rand(4, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected, found = narrow(x), wide(x)
    assert expected.std() > 0
    torch.testing.assert_close(found, expected)
    head = wide.get_classifier().weight  # which reads every copy with a weight of its own
    assert head.unique().numel() == head.numel()


def test_a_run_starts_from_a_narrower_network(flowers, tmp_path, capfd):
    finetune(flowers, tmp_path / "x", model="sresnet19_w32_gs", model_args={"stem": 32, "hidden": 0})
    assert "a new head for 3 classes, in place of 10; widened from 16 channels to 32" in capfd.readouterr().out
    assert read_json(tmp_path / "x" / "config.json")["init_sha256"] == zoo.load(INIT).weights_sha256
    assert zoo.load(tmp_path / "x").feature_info[0]["num_chs"] == 32
    with pytest.raises(ZooError, match=f"{re.escape(INIT)} is another network, with other layers"):
        finetune(flowers, tmp_path / "y", model="ms_resnet19_w32", model_args=None)


def test_a_wider_network_takes_over_the_form_of_the_narrower(tmp_path):
    form = {"neuron": {"name": "lif", "decay": 0.9, "threshold": 0.5}, "surrogate": "sigmoid", "hidden": 20}
    narrow = zoo.create_model("sresnet19_w16", timesteps=2, **form).eval()
    zoo.save_checkpoint(tmp_path / "a", narrow, tag="t2_test", data_cfg={})
    recipe = Recipe(model="sresnet19_w32", init=str(tmp_path / "a"), dataset="digits", timesteps=2)
    initial = InitialWeights.load(recipe)
    assert initial.taken == form
    wide = create(recipe, load_dataset("digits"), initial.taken).eval()
    initial.load_into(wide, recipe, say=False)
    x = torch.rand(4, 3, 32, 32)
    assert narrow(x).std() > 0
    torch.testing.assert_close(wide(x), narrow(x))


def test_a_network_for_larger_images(flowers, tmp_path):
    args = {"stem": 16, "hidden": 0, "stem_stride": 2}
    more = {"img_size": 64, "model_args": args, "phases": [{"epochs": 1, "size": 48}], "epochs": 2, "freeze": 1}
    finetune(flowers, tmp_path / "x", **more)
    model = zoo.load(tmp_path / "x")
    assert (tuple(model.pretrained_cfg["input_size"]), model.stem_stride) == ((3, 64, 64), 2)
    assert_validates(tmp_path / "x", f"folder:{flowers}")


def test_own_validation_images_are_what_an_epoch_is_validated_on(flowers, tmp_path):
    result = finetune(flowers, tmp_path / "x", test=False)
    assert (result["split"], result["images"], result["train_images"]) == ("validation", 24, 48)
    (row,) = csv.DictReader((tmp_path / "x" / "summary.csv").read_text().splitlines())
    assert float(row["val_spikes_per_image"]) > 0


def test_a_run_goes_on_where_its_folder_went_but_not_on_other_images(flowers, tmp_path):
    first, second = tmp_path / "a" / "flowers", tmp_path / "b" / "flowers"
    shutil.copytree(flowers, first)
    finetune(first, tmp_path / "x")
    shutil.move(first, second)
    again = {"dataset": f"folder:{second}", "resume": True}
    finetune(second, tmp_path / "x", **again)
    (tmp_path / "x" / "result.json").unlink()
    finetune(second, tmp_path / "x", **again)
    (second / "train" / "rose" / "00.jpg").unlink()
    finetune(second, tmp_path / "y")
    (second / "train" / "rose" / "01.png").unlink()
    with pytest.raises(ZooError, match="was started on other images of flowers than there are now"):
        finetune(second, tmp_path / "y", **again)


def test_mistakes_are_one_error(flowers, tmp_path, monkeypatch):
    for more, words in (
        ({"freeze": 4}, "cannot freeze 4 stages: sresnet19_w16_gs has 3"),
        ({"freeze": 1, "init": None}, "give init, or freeze 0"),
        ({"val_images": 5}, "24 validation images of its own"),
        ({"img_size": 5}, "img_size must be an integer from 8 to 1024, not 5"),
        ({"img_size": 48, "phases": [{"epochs": 1, "size": 64}]}, "size of a phase .* at most 48, not 64"),
        ({"layer_decay": 2}, "layer_decay.* equal to 1, not 2"),
    ):
        with pytest.raises(ZooError, match=words):
            finetune(flowers, tmp_path / "x", **more)
        assert not (tmp_path / "x").exists(), more
    assert finetune(flowers, tmp_path / "x", train_images=16)["train_images"] == 16
    other = make_pictures(tmp_path / "other", count=2)
    for part in ("train", "val"):
        (other / part / "rose").rename(other / part / "poppy")
    with pytest.raises(ZooError, match=r"'rose'.*'poppy'"):
        validate(str(tmp_path / "x"), f"folder:{other}")
    with pytest.raises(ZooError, match="no such folder: ''"):
        parse_train([INIT, "--dataset", "folder:"])
    with pytest.raises(ZooError, match="--optimizer sgd needs --lr and --weight-decay"):
        recipe_for(INIT, "digits", {"optimizer": "sgd", "lr": 0.1})
    phases = json.dumps([{"epochs": 120, "size": 48}])  # which may fit the checkpoint and the images
    asked = parse_finetune([INIT, "digits", "--momentum", "0", "--phases", phases])
    with pytest.raises(ZooError, match="size of a phase"):
        recipe_for(*asked)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZooError, match=r"train max_resnet18.t1_cifar10_full2` trains it.*root of a checkout"):
        parse_train(["max_resnet18_gs.t4_cifar10", "--dataset", "digits"])
    with pytest.raises(ZooError, match="x is a run directory: --resume x goes on"):
        parse_train(["x"])


@pytest.mark.usefixtures("registered_here_only")
def test_a_network_for_event_frames_takes_those_of_a_plugin():
    """Their number and how they are cut are the network's."""
    frames, labels = torch.ones(8, 8, 2, 32, 32, dtype=torch.uint8), torch.arange(8) % 2
    part = {"train_images": frames, "train_labels": labels, "test_images": frames, "test_labels": labels}
    zoo.register_dataset("ones", lambda root: {"classes": ["a", "b"]} | part)
    recipe = recipe_for("max_resnet18_w16.t8_i2e_cifar10", "ones", {"val_images": 0})
    assert (recipe.timesteps, recipe.img_size, recipe.slices) == (8, None, "number")  # whose size nobody changes


def test_a_data_set_in_a_plugin_trains_in_its_own_size(tmp_path):
    text = (ROOT / "recipes" / "examples" / "dataset.py").read_text().replace("32, 32", "40, 40")
    (tmp_path / "shades.py").write_text(text)
    words = ["--plugin", tmp_path / "shades.py", "--dataset", "shades", "--batch-size", 40, "--epochs", 2]
    said(run_module("recipes.train", "quickstart", *words, "--out", tmp_path / "x"))
    result = read_json(tmp_path / "x" / "result.json")
    assert (result["dataset"], result["tag"], result["images"]) == ("shades", "t2_shades", 80)
    cfg = read_json(tmp_path / "x" / "config.json")["pretrained_cfg"]
    assert (cfg["input_size"], cfg["label_names"]) == ([3, 40, 40], ["dark", "bright"])
    larger = run_module("recipes.train", "quickstart", *words, "--phases", "[{epochs: 1, size: 48}]")
    assert_one_error(larger, "size of a phase must be at most 40, not 48")
    (tmp_path / "shades").mkdir()  # no data: names go before folders
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setitem(OWN_DATASETS, "shades", None)
        assert parse_finetune([INIT, "shades"]).dataset == "shades"
        assert parse_finetune([INIT, "./shades"]).dataset == "folder:./shades"
