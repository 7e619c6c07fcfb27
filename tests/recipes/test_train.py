"""Training end to end on the embedded data set: results, resuming, several processes, bad input."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from conftest import ROOT, run_module, train_and_stop
from PIL import Image
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import recipes.augment
import recipes.train
import zoo
from recipes import start, validate
from recipes.augment import augmented
from recipes.commands import parse_train, tell_least
from recipes.lineage import create
from recipes.predict import predict
from recipes.recipe import Recipe, load_recipe, parse_command_line
from recipes.run import STATE, Interrupt, RunState, load_state
from recipes.start import pick
from recipes.train import Trainer, firing_rates, forward, train
from zoo.data import load_dataset, normalisation, normalise, split
from zoo.data.images import Preparation
from zoo.errors import ZooError
from zoo.files import read_json, sha256_of
from zoo.metrics import evaluate
from zoo.network import SpikingNetwork
from zoo.provenance import provenance
from zoo.registry import GS
from zoo.result import Costs, check

SHORT = {
    "model": "svgg11_w8_gs", "dataset": "digits", "device": "cpu", "timesteps": 2, "train_images": 160,
    "batch_size": 32, "epochs": 2, "hflip": False, "crop": 2, "amp": "off",
}  # fmt: skip
FEW_STEPS = SHORT | {"model": "svgg11_w8", "timesteps": 1, "train_images": 4, "batch_size": 2, "test": False}


def flags(out: Path, **overrides) -> list[str]:
    values = SHORT | {"out": str(out)} | overrides
    return [
        item for key, value in values.items() for item in (f"--{key.replace('_', '-')}", json.dumps(value).strip('"'))
    ]


def trained(out: Path, **changes) -> dict:
    return train(Recipe(**SHORT | {"out": str(out)} | changes))


def weights(out: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(out / "model.safetensors")


def log_of(out: Path) -> list[list[str]]:
    """The rows of summary.csv without their titles."""
    return [row.split(",") for row in (out / "summary.csv").read_text().splitlines()[1:]]


def alike(*runs: Path) -> bool:
    """Whether runs have the same weights, bit for bit, and logs that differ in the seconds alone."""
    first, second = map(weights, runs)
    logs = [[row[:-1] for row in log_of(out)] for out in runs]
    return all(torch.equal(value, second[key]) for key, value in first.items()) and logs[0] == logs[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One short run with everything on, shared by the tests that look at what a run leaves."""
    out = tmp_path_factory.mktemp("run") / "all"
    extra = {
        "val_images": 100, "ema": 0.9, "mixup": 0.2, "cutmix": 1.0, "mix_prob": 0.5, "label_smoothing": 0.1,
        "auto_augment": "randaugment", "randaugment_ops": 2, "cutout": 4, "erasing": 0.2, "clip_grad": 1.0,
        "loss": "tet", "tet_lambda": 0.1, "optimizer": "adamw", "lr": 1e-3, "min_lr": 1e-5, "dropout": 0.1,
        "grad_checkpointing": True, "amp": "auto",  # bf16 where the processor computes in it
    }  # fmt: skip
    return out, trained(out, **extra)


def test_a_run_leaves_a_result_in_the_schema(run):
    out, result = run
    assert read_json(out / "result.json") == result
    check(result, "result.json")
    assert (result["plugins"], result["started_from"]) == (None, [])
    assert result["versions"]["kernel"] in ("cpp", "reference")
    assert result.keys() >= Costs.model_fields.keys()
    assert result["images"] == 360
    assert result["split"] == "test"
    assert result["weights_sha256"] == sha256_of(out / "model.safetensors")
    rows = (out / "summary.csv").read_text().splitlines()
    assert len(rows) == 3
    assert rows[0] == "epoch,lr,train_loss,train_top1,val_loss,val_top1,val_top5,val_spikes_per_image,seconds"


def test_the_keys_of_a_recipe_arrive_where_they_act(tmp_path, monkeypatch):
    said = {}

    def heard(name, real, *args, **named):
        said[name] = args, named
        return real(*args, **named)

    for place, name in (
        *((recipes.train, name) for name in ("create_optimizer_v2", "create_scheduler_v2", "Mixup")),
        (nn.utils, "clip_grad_norm_"),
    ):
        monkeypatch.setattr(place, name, functools.partial(heard, name, getattr(place, name)))
    optimizer = {"lr": 0.03, "weight_decay": 0.07, "momentum": 0.8, "layer_decay": 0.0}
    schedule = {"warmup_epochs": 0.75, "min_lr": 0.002}
    mixing = {"mixup": 0.3, "cutmix": 0.6, "mix_prob": 0.4, "label_smoothing": 0.15}
    trained(tmp_path / "x", **FEW_STEPS | optimizer | schedule | mixing, clip_grad=1.7, dropout=0.25)
    assert log_of(tmp_path / "x")[1][1] != "0"  # the rate of the head, which alone learns at layer_decay 0
    assert said["create_optimizer_v2"][1] == optimizer | {"opt": "sgd"}
    expected = schedule | {"warmup_lr": pytest.approx(0.0003), "num_epochs": 2, "updates_per_epoch": 2}
    assert {key: said["create_scheduler_v2"][1][key] for key in expected} == expected
    assert said["Mixup"] == ((0.3, 0.6), {"prob": 0.4, "label_smoothing": 0.15, "num_classes": 10})
    assert said["clip_grad_norm_"][0][1] == 1.7
    assert read_json(tmp_path / "x" / "config.json")["model_args"]["dropout"] == 0.25


def test_validation_measures_the_averaged_weights_on_the_images_that_are_held_out(tmp_path, monkeypatch):
    updates, measured = [], []
    update = ModelEmaV3.update

    def updated(ema, model, step=None):
        updates.append((ema.module, step))
        update(ema, model, step)

    def evaluated(*args, **how):
        measured.append(args[:3])
        return evaluate(*args, **how)

    monkeypatch.setattr(ModelEmaV3, "update", updated)
    monkeypatch.setattr("recipes.train.evaluate", evaluated)
    result = trained(tmp_path / "x", **FEW_STEPS, val_images=7, ema=0.9)
    assert [step for _, step in updates] == [1, 2, 3, 4]  # its warm-up goes by them
    digits = load_dataset("digits")
    _, held_out = split(digits, 4, 7)
    assert len(measured) == 3  # each epoch, and the result
    for model, images, labels in measured:
        assert model is updates[0][0]
        assert torch.equal(images, digits.train_images[held_out])
        assert torch.equal(labels, digits.train_labels[held_out])
    assert (result["split"], result["images"]) == ("validation", 7)


def test_a_row_of_the_summary_is_the_mean_of_its_own_epoch(tmp_path, monkeypatch):
    """Of losses that count the steps, and of a network that says 3 to every image."""
    three, steps, right = nn.functional.one_hot(torch.tensor(3), 10), itertools.count(1), []

    def loss_of(logits, target, recipe):
        right.append((target.argmax(1) == 3).double().mean().item())
        return logits.sum() * 0 + next(steps)

    monkeypatch.setattr("recipes.train.forward", lambda *args: forward(*args) * 0 + three)
    monkeypatch.setattr("recipes.train.loss_of", loss_of)
    trained(tmp_path / "x", **FEW_STEPS | {"train_images": 50, "batch_size": 20})
    rows = log_of(tmp_path / "x")
    assert [float(row[2]) for row in rows] == [1.5, 3.5]
    assert [float(row[3]) for row in rows] == pytest.approx([50 * sum(right[:2]), 50 * sum(right[2:])])
    assert min(right) > 0


def test_each_process_augments_its_images_in_a_way_of_its_own(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "recipes.train.augmented", lambda *args: drawn.append(torch.rand(()).item()) or augmented(*args)
    )

    class Alone(DistributedDataParallel):
        def __new__(cls, model, **_):
            return model

    monkeypatch.setattr("recipes.train.DistributedDataParallel", Alone)
    for rank in (0, 1):
        monkeypatch.setattr("recipes.train.start_processes", lambda _, rank=rank: (rank, 2, torch.device("cpu")))
        trained(tmp_path / str(rank), **FEW_STEPS | {"batch_size": 4})
    assert len(set(drawn)) == len(drawn) == 4


def test_a_state_is_saved_whenever_the_minutes_of_the_recipe_have_passed(tmp_path, monkeypatch):
    """Steps of 50 seconds, and two minutes from one state to the next."""
    now, saved = [0.0], []

    def step(*args):
        now[0] += 50
        return forward(*args)

    save = RunState.save
    monkeypatch.setattr(recipes.train.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr("recipes.train.forward", step)
    monkeypatch.setattr(RunState, "save", lambda run, out: saved.append(run.step) or save(run, out))
    trained(tmp_path / "x", **FEW_STEPS | {"train_images": 16, "epochs": 1, "checkpoint_minutes": 2})
    assert saved == [3, 6, 8]  # the last at the end of the epoch


def test_validate_measures_what_the_run_reported(run, tmp_path):
    out, result = run
    validate.main([str(out), "--dataset", "digits", "--device", "cpu", "--json", str(tmp_path / "v.json")])
    again = check(read_json(tmp_path / "v.json"), "v.json")
    assert "partial" not in again
    assert again.keys() >= Costs.model_fields.keys()
    keys = "top1 top5 spikes_per_image spikes_per_layer spikes_per_step weights_sha256 data_sha256 seed"
    for key in keys.split():
        assert again[key] == pytest.approx(result[key]), key
    some = validate.validate(str(out), "digits", limit=8, device="cpu")
    assert (some["images"], some["partial"]) == (8, True)
    shutil.copytree(out, tmp_path / "ruled")  # of a rule that is not registered here
    config = read_json(out / "config.json")
    config["model_args"]["scaling"] = config["recipe"]["scaling"] = "my_rule"
    (tmp_path / "ruled" / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="my_rule"):
        ruled = validate.validate(str(tmp_path / "ruled"), "digits", limit=8, device="cpu")
    assert ruled["scaling"] == {"name": "my_rule"}


def test_tensorboard_events_are_written(tmp_path):
    pytest.importorskip("tensorboard")
    trained(tmp_path / "x", **FEW_STEPS, tensorboard=True)
    assert list((tmp_path / "x").rglob("events.out.tfevents.*"))


def test_predict_agrees_with_the_network(run, tmp_path):
    out, _ = run
    model, data = zoo.load_checkpoint(out), load_dataset("digits")
    for i in range(3):
        Image.fromarray(data.test_images[i].permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    expected = model((data.test_images[:3].float() / 255 - mean) / std).softmax(1)
    got = predict(model, [str(tmp_path / f"{i}.png") for i in range(3)], top=10)
    for entry, row in zip(got, expected, strict=True):
        for item in entry["top"]:
            assert item["probability"] == pytest.approx(row[item["class"]].item(), abs=1e-4)
            assert item["label"] == str(item["class"])
    model.train()  # of no consequence, and left so
    again = predict(model, (file for file in sorted(tmp_path.glob("?.png"))), top=10)
    assert again == got
    assert model.training
    assert predict(model, tmp_path / "0.png", top=10) == predict(model, str(tmp_path / "0.png"), top=10) == got[:1]
    Image.new("RGB", (64, 48)).save(tmp_path / "large.png")
    (tmp_path / "text.png").write_text("not an image")
    for name, words in (("text.png", "not an image"), ("none.png", "no such file")):
        with pytest.raises(ZooError, match=words):
            predict(model, [str(tmp_path / name)])
    (found,) = predict(model, tmp_path / "large.png", spikes=True)  # of any size
    with zoo.SpikeCounter(model.eval()) as counter:
        pixels = Preparation(model.pretrained_cfg)(tmp_path / "large.png")
        model(normalise(pixels[None], data.mean, data.std))
    assert {name: sum(steps) for name, steps in found["spikes"].items()} == counter.summary()["spikes_per_layer"]
    (tmp_path / "text.png").unlink()
    assert [found["image"] for found in predict(model, tmp_path)] == sorted(map(str, tmp_path.glob("*.png")))
    (tmp_path / "hidden" / ".thumbs").mkdir(parents=True)
    shutil.copy(tmp_path / "0.png", tmp_path / "hidden" / ".thumbs")
    with pytest.raises(ZooError, match="holds nothing to classify"):
        predict(model, tmp_path / "hidden")
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "0.png", tmp_path / "elsewhere")
    (tmp_path / "hidden" / "link").symlink_to(tmp_path / "elsewhere")
    assert [found["image"] for found in predict(model, tmp_path / "hidden")] == [str(tmp_path / "hidden/link/0.png")]


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-5), (torch.bfloat16, 0.2)])
def test_predict_computes_where_and_how_the_network_does(dtype, error, tmp_path):
    model = zoo.load("sresnet19_w16_gs.t2_cifar10")
    Image.new("RGB", (32, 32), (90, 120, 200)).save(tmp_path / "x.png")
    (expected,) = predict(model, tmp_path / "x.png", top=1)
    (found,) = predict(model.to(dtype), tmp_path / "x.png", top=1)
    assert found["top"][0]["probability"] == pytest.approx(expected["top"][0]["probability"], abs=error)
    seen = []
    model.to("meta").register_forward_pre_hook(lambda m, inputs: seen.append((inputs[0].device.type, inputs[0].dtype)))
    with pytest.raises(NotImplementedError, match="meta"):  # nothing comes back from there
        predict(model, tmp_path / "x.png")
    assert seen == [("meta", dtype)]


def test_predict_names_the_class_of_argmax_where_several_are_equal(tmp_path):
    model = zoo.create_model("sresnet19_w16").eval()
    model.fc.weight.data.zero_()
    model.fc.bias.data = torch.tensor([0.0, 1, 1, 0, 1, 1, 0, 1, 1, 0])
    Image.new("RGB", (32, 32)).save(tmp_path / "x.png")
    (found,) = predict(model, tmp_path / "x.png", top=8)
    assert [entry["class"] for entry in found["top"]] == [1, 2, 4, 5, 7, 8, 0, 3]


def test_a_run_that_is_told_to_stop_ends_with_a_state_of_this_step(run, tmp_path, monkeypatch, capsys):
    """At the end of an epoch; what goes on from there is the run that nobody stopped."""

    def told(trainer, *args):
        if trainer.state.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return take_step(trainer, *args)

    take_step = Trainer._step
    monkeypatch.setattr(Trainer, "_step", told)
    settings = read_json(run[0] / "config.json")["recipe"] | {"out": str(tmp_path / "x")}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest's workers may ignore it
    try:
        with pytest.raises(SystemExit) as stopped:
            train(Recipe(**settings))
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.value.code == 128 + signal.SIGINT
    assert "stopped after step 5; --resume" in capsys.readouterr().err
    assert load_state(tmp_path / "x" / STATE)["step"] == 5
    monkeypatch.undo()
    train(Recipe(**settings | {"resume": True}))
    assert alike(run[0], tmp_path / "x")


@pytest.mark.slow
def test_a_run_that_nobody_reads_any_more_ends_with_a_state_of_this_step(tmp_path):
    """Its output went to a program that ended: of the same Ctrl-C, say, as in `... 2>&1 | tee log`."""
    settings = SHORT | {"out": str(tmp_path / "x"), "epochs": 50}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    code = """
import os, signal, sys
import recipes.train
from recipes.train import Trainer
from zoo.errors import run_command

def told(trainer, *args):
    if trainer.state.step == 2:
        os.close(int(sys.argv[1]))  # the reader
        os.kill(os.getpid(), signal.SIGINT)
    return take_step(trainer, *args)

take_step, Trainer._step = Trainer._step, told
recipes.train.sys.stderr.isatty = lambda: True  # the bar writes at every step
signal.signal(signal.SIGINT, signal.default_int_handler)
run_command(recipes.train.main, [sys.argv[2]])
"""
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(reader), str(tmp_path / "recipe.yaml")],
        stdout=writer, stderr=writer, pass_fds=[reader], env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    os.close(writer)
    os.close(reader)
    assert process.wait(120) == 128 + signal.SIGINT
    assert load_state(tmp_path / "x" / STATE)["step"] == 3


@pytest.mark.slow
def test_an_epoch_whose_validation_was_not_waited_for_ends_as_it_would_have(tmp_path, monkeypatch):
    settings = {"val_images": 64, "train_images": 96, "epochs": 2}
    trained(tmp_path / "whole", **settings)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("recipes.train.evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "x", **settings)
    assert load_state(tmp_path / "x" / STATE)["rows"] == []
    trained(tmp_path / "x", **settings, resume=True, grad_checkpointing=True)
    assert alike(tmp_path / "whole", tmp_path / "x")


def test_a_run_directory_is_never_mixed_up(run):
    out, _ = run
    recipe = read_json(out / "config.json")["recipe"] | {"out": str(out)}
    with pytest.raises(ZooError, match="already holds a run"):
        train(Recipe(**recipe))
    with pytest.raises(ZooError, match=r"lr = 0\.001, not 0\.5"):
        train(Recipe(**recipe | {"resume": True, "lr": 0.5}))
    found = parse_command_line(["--resume", str(out)])  # alone: the directory has its recipe
    assert (found.resume, found.out, found.lr) == (True, str(out), 0.001)
    for wrong, said in (
        (["--resume", str(out.parent)], "--resume RUN_DIR goes on with a run directory"),
        (["quickstart", "--resume", str(out)], "--resume RUN_DIR goes on with a run directory"),
        (["--resume", str(out), "--out", "other"], "goes on in that directory: leave --out other out"),
    ):
        with pytest.raises(ZooError, match=said):
            parse_command_line(wrong)


def test_a_complete_run_is_not_measured_again(run, capsys):
    out, result = run
    recipe = read_json(out / "config.json")["recipe"] | {"out": str(out), "resume": True}
    assert train(Recipe(**recipe)) == result
    assert "the run is complete" in capsys.readouterr().out
    stored, said = (out / "config.json").read_bytes(), (out / "recipe.yaml").read_bytes()
    with pytest.raises(ZooError, match="is complete, with weights = 'fp32', not 'fp16'"):
        train(Recipe(**recipe | {"weights": "fp16"}))
    with pytest.raises(ZooError, match="is complete, with test_reads = 1, not 8"):
        train(Recipe(**recipe | {"test_reads": 8}))
    assert ((out / "config.json").read_bytes(), (out / "recipe.yaml").read_bytes()) == (stored, said)


def test_a_resumed_run_keeps_what_it_started_from_and_tells_what_is_another_now(tmp_path, monkeypatch, capsys):
    """Where `init` points, other weights may lie by now, or none; code, machine and precision may have changed, too."""
    few = {"model": "sresnet19_w16_gs", "train_images": 32, "test": False}
    trained(tmp_path / "source", **few, epochs=1, model_args={"hidden": 16})
    first = sha256_of(tmp_path / "source" / "model.safetensors")
    settings = few | {"init": str(tmp_path / "source"), "test": True}
    train_and_stop(Recipe(**SHORT | {"out": str(tmp_path / "x")} | settings), 1)
    shutil.rmtree(tmp_path / "source")
    monkeypatch.setattr("recipes.train.provenance", lambda **_: provenance() | {"commit": "0" * 40})
    assert parse_train(["--resume", str(tmp_path / "x")]).init == settings["init"]
    result = trained(tmp_path / "x", **settings, resume=True, weights="fp16", test_reads=9)
    config = read_json(tmp_path / "x" / "config.json")
    assert (config["init_sha256"], config["started_from"][0]["weights_sha256"]) == (first, first)
    assert config["model_args"]["hidden"] == 16  # as the recipe is silent
    assert result["commit"] != "0" * 40
    assert [start["commit"] for start in result["resumed_with"]] == ["0" * 40]
    assert check(read_json(tmp_path / "x" / "result.json"), "result.json") == result
    told = capsys.readouterr().err
    assert "goes on with another commit than before" in told
    assert "weights = 'fp32': from now on 'fp16'" in told
    assert "test_reads = 1: from now on 9" in told
    later = load_recipe(str(tmp_path / "x" / "recipe.yaml"))
    assert (later.weights, later.test_reads, result["test_reads"]) == ("fp16", 9, 9)


def test_fine_tuning_starts_from_trained_weights(run, tmp_path):
    out, first = run
    settings = {"init": str(out), "epochs": 1, "train_images": 32, "lr": 0.0, "model": "svgg11_w8", "test": False}
    trained(tmp_path / "x", **settings)  # the plain twin
    trained(tmp_path / "x", **settings, resume=True)  # finds that it is complete
    before, kept = weights(out), weights(tmp_path / "x")
    parameters = [key for key in kept if "running" not in key and "batches" not in key]
    assert all(torch.equal(kept[key], before[key]) for key in parameters)
    config = read_json(tmp_path / "x" / "config.json")
    assert config["init_sha256"] == sha256_of(out / "model.safetensors")
    assert config["recipe"]["init"] == out.name  # no path of this machine
    (ancestor,) = config["started_from"]
    keys = ("weights_sha256", "epochs", "train_seconds", "recipe_sha256")
    assert [ancestor[key] for key in keys] == [first[key] for key in keys]


def test_fine_tuning_takes_over_the_form_of_the_network_where_the_recipe_is_silent(tmp_path, capsys):
    form = {"stem": 8, "hidden": 12, "neuron": {"name": "lif", "decay": 0.25}, "surrogate": "sigmoid"}
    model = zoo.create_model("sresnet19_w16", num_classes=5, timesteps=1, dropout=0.1, **form)
    zoo.save_checkpoint(tmp_path / "a", model, tag="t1_test", data_cfg={})
    settings = {"model": "sresnet19_w16_gs", "epochs": 1, "train_images": 32, "lr": 0.0, "test": False}
    settings |= {"init": str(tmp_path / "a")}
    trained(tmp_path / "x", **settings, surrogate="arctan")
    head = f"started from {tmp_path}/a, with a new head for 10 classes, in place of 5"
    said = f"{head}; taken over, as the recipe is silent: neuron {{'name': 'lif', 'decay': 0.25}}, stem 8, hidden 12"
    assert said in capsys.readouterr().out.splitlines()
    args = read_json(tmp_path / "x" / "config.json")["model_args"]
    assert args == model.model_args | {"timesteps": 2, "dropout": 0.0, "surrogate": "arctan", "scaling": GS}
    kept = weights(tmp_path / "x")
    assert torch.equal(kept["fc_hidden.weight"], model.fc_hidden.weight)
    assert kept["fc.weight"].shape == (10, 12)
    with pytest.raises(ZooError, match="do not fit sresnet19_w16_gs with hidden 0 instead of 12: give"):
        trained(tmp_path / "y", **settings, model_args={"hidden": 0})
    assert not (tmp_path / "y").exists()


def test_a_linear_schedule_falls_by_equal_steps(tmp_path):
    trained(tmp_path / "x", **FEW_STEPS | {"epochs": 5, "schedule": "linear", "warmup_epochs": 1, "lr": 0.04})
    # Two steps an epoch, the learning rate of the second; timm counts the fall from the start of the warm-up.
    rates = [float(row[1]) for row in log_of(tmp_path / "x")[1:]]
    assert rates == pytest.approx([0.04 * (10 - step) / 10 for step in (3, 5, 7, 9)])


def test_same_seed_same_weights_other_seed_others(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        trained(tmp_path / name, **FEW_STEPS, seed=seed)
    assert alike(tmp_path / "a", tmp_path / "b")
    assert not alike(tmp_path / "a", tmp_path / "c")


def test_it_learns(tmp_path):
    assert trained(tmp_path / "x", train_images=0, epochs=5, model="svgg11_w8")["top1"] > 80


def torchrun(*arguments: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += arguments
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=200, check=False)


@pytest.mark.slow
def test_two_processes_compute_what_one_does(tmp_path):
    script = Path(__file__).with_name("ddp_equality.py")
    for name, count in (("one", 1), ("two", 2)):
        done = torchrun(str(script), str(tmp_path / name), processes=count)
        assert done.returncode == 0, done.stderr
    first, second = (load_state(tmp_path / name) for name in ("one", "two"))
    assert len(first) == 10
    for rule in first.values():
        assert rule["losses"][-1] != rule["losses"][0]
    torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("phases", [None, [{"epochs": 1, "timesteps": 1}]])
def test_two_processes_train_neurons_with_parameters_that_one_time_step_does_not_use(phases, tmp_path):
    plif = {"neuron": {"name": "plif", "decay_input": False}, "phases": phases, "kernel": "reference"}
    other = plif if phases else {"neuron": "glif", "timesteps": 1}
    extra = flags(tmp_path / "x", model="sresnet19_w16", **other)
    done = torchrun("-m", "recipes.train", "sresnet19_w16.t2_cifar10", *extra)
    assert done.returncode == 0, done.stderr


DRAWN = {"dropout": 0.2, "mixup": 0.4, "erasing": 0.3, "auto_augment": "autoaugment", "ema": 0.9, "amp": "bf16"}


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "extra"), [(1, DRAWN | {"val_images": 50}), (2, {})])
def test_a_run_that_ends_in_mid_epoch_goes_on_bit_for_bit(processes, extra, tmp_path):
    """Killed, all processes leave the state of the step before. Where one is told to stop, all do, after that step.
    Alone, with all kinds of randomness and state."""
    start, extra = functools.partial(torchrun, processes=processes), {"model": "sresnet19_w16_gs"} | extra
    run = ("-m", "recipes.train", "sresnet19_w16_gs.t2_cifar10")
    assert start(*run, *flags(tmp_path / "whole", **extra)).returncode == 0
    ended = str(ROOT / "tests" / "recipes" / "killed_at.py")
    for how, step, minutes in (("exit", 2, 0), ("SIGTERM", 3, 5)):
        args = flags(tmp_path / how, **extra, checkpoint_minutes=minutes)
        done = start(ended, "3", how, "sresnet19_w16_gs.t2_cifar10", *args)
        assert done.returncode != 0
        assert ("stopped after step 3; --resume goes on" in done.stderr) == (how != "exit"), done.stderr
        assert load_state(tmp_path / how / STATE)["step"] == step
        assert start(*run, *args, "--resume").returncode == 0
        assert alike(tmp_path / "whole", tmp_path / how)


def test_pixels_that_are_read_as_brightness_are_never_normalised(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("recipes.train.forward", lambda net, x, amp: seen.append(x) or forward(net, x, amp))
    out = tmp_path / "latency"
    result = trained(out, model_args={"encoding": "latency"}, epochs=1, train_images=32)
    assert all(0 <= x.min() < x.max() <= 1 for x in seen if x.any())
    assert any(x.any() for x in seen)
    cfg = read_json(out / "config.json")["pretrained_cfg"]
    assert (cfg["mean"], cfg["std"]) == ([0, 0, 0], [1, 1, 1])
    model, data = zoo.load(out), zoo.load_dataset("digits")
    model.pretrained_cfg |= {"mean": data.mean, "std": data.std}  # whatever a file says
    assert normalisation(model) == ((0, 0, 0), (1, 1, 1))
    with zoo.SpikeCounter(model) as counter, torch.no_grad():
        model(data.test_images / 255)
    assert counter.summary()["spikes_per_image"] == pytest.approx(result["spikes_per_image"], rel=1e-3)


def test_validate_refuses_other_classes(run, monkeypatch):
    out, _ = run
    digits = load_dataset("digits")
    for classes, words in (
        (digits.classes[1:], "has 10 classes, digits has 9"),
        (["zero", *digits.classes[1:]], "calls a class '0' that digits calls 'zero'"),
    ):
        other = digits._replace(classes=classes)
        monkeypatch.setattr(validate, "load_dataset", lambda *_, other=other, **__: other)
        with pytest.raises(ZooError, match=words):
            validate.validate(str(out), "digits")


def test_the_shell_recipes_pass_every_argument(tmp_path):
    python, said = tmp_path / "python", tmp_path / "said"
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$PYTHONPATH" "$@" > {said}\n')
    python.chmod(0o755)
    few = flags(tmp_path / "x", epochs=1, train_images=32, phases="null", test=False)
    words = ["--model", "sresnet19_w32", *few[2:]]
    variables = os.environ | {"PYTHON": str(python), "CDPATH": ".", "PYTHONPATH": ""}
    subprocess.run(["bash", "recipes/cifar10.sh", *words], env=variables, cwd=ROOT, check=True)
    assert said.read_text().splitlines() == [f"{ROOT}/recipes/..", "-m", "recipes.start", "cifar10", *words]
    done = run_module("recipes.start", "cifar10", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("recipe: sresnet19_w32.t2_cifar10 (there is also sresnet19_w32_gs.t2_cifar10, ")
    recipe = read_json(tmp_path / "x" / "config.json")["recipe"]
    said = [recipe[key] for key in ("model", "scaling", "weight_decay", "timesteps")]
    assert said == ["sresnet19_w32", "model", 0.05, 2]


def test_the_recipe_of_a_model():
    for model, recipe in {
        "sresnet19_gs": "sresnet19_gs.t4_cifar10_200epochs",  # the staged one goes on from other weights
        "sresnet19": "sresnet19_gs.t4_cifar10_200epochs",  # its own is a first stage, of one time step
        "sresnet19_w16": "sresnet19_w16.t2_cifar10",
        "sresnet19_w32_gs": "sresnet19_w32_gs.t2_cifar10",  # that of t4 goes on from its weights
        "sresnet19_w32": "sresnet19_w32.t2_cifar10",  # not the one for many
    }.items():
        assert pick(model, "cifar10")[0] == recipe


@pytest.fixture
def started(monkeypatch) -> list[list[str]]:
    """The command lines that `recipes.start` becomes."""
    found = []
    monkeypatch.setattr(os, "execv", lambda _, command: found.append(command[1:]))
    return found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("cifar10 --model svgg11_w16_gs", "is for many .*families.t4_cifar10 --model svgg11_w16_gs takes"),
        ("cifar10 --model sresnet19_w16.t2_cifar10", "takes an architecture, sresnet19_w16, not its checkpoint"),
        ("cifar10 --model max_resnet18_w32_gs", "or a stage alone.*families.t4_cifar10 --model max_resnet18_w32_gs"),
        ("cifar100 --model svgg9_w16_gs", "is the nearest .*--model svgg9_w16_gs --model-args null"),
        ("cifar100 --model sdt_2_64", "--model sdt_2_64 --model-args null --scaling model takes"),
        ("cifar10 --model=sresnet91", "unknown model 'sresnet91'"),
        ("cifar10 --model mine --plugin mine.py", "no recipe trains mine on cifar10"),
        ("cifar11", "cifar11.*did you mean cifar10"),
    ],
)
def test_a_model_without_a_recipe_is_never_trained_with_another_ones(arguments, words, started):
    with pytest.raises(ZooError, match=words):
        start.main(arguments.split())
    assert not started


def test_a_twins_recipe_comes_without_its_scaling_and_processes_through_torchrun(started, monkeypatch):
    start.main(["cifar10", "--model", "sresnet19", "--epochs", "3"])  # whose own is the first of several stages
    recipe = ["-m", "recipes.train", "sresnet19_gs.t4_cifar10_200epochs"]
    assert started.pop() == [*recipe, "--model", "sresnet19", "--scaling", "model", "--epochs", "3"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "8"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # so that it is that again afterwards
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(start, "usable_cores", lambda: 32)
    for count, launch in (("", []), ("1", []), ("8", torchrun)):
        monkeypatch.setenv("NPROC", count)
        start.main(["cifar10", "--epochs", "3"])
        assert started.pop() == [*launch, *recipe, "--model", "sresnet19_gs", "--epochs", "3"]
    assert os.environ["OMP_NUM_THREADS"] == "4"
    for count in ("0", "-1", "two"):
        monkeypatch.setenv("NPROC", count)
        with pytest.raises(ZooError, match=f"not '{count}'"):
            start.main(["cifar100"])


def test_what_one_of_several_processes_is_told_all_obey(capsys):
    """After the same step: when it was heard by all. A second signal does nothing."""
    told, other = Interrupt(1, 2), Interrupt(0, 2)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with told:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (told.noted, other.noted) == (signal.SIGTERM, None)
    for step, mean in ((1, 0.0), (2, 0.5)):
        for process in (told, other):
            process.hear(torch.tensor(mean))
            assert process.stops == (mean > 0)
            with pytest.raises(SystemExit) if mean else contextlib.nullcontext():
                process.obey(step)
    alike = "under torchrun with as many processes"
    assert capsys.readouterr().err.startswith(f"stopped after step 2; --resume goes on from there, {alike}: ")


def test_a_long_run_on_a_cpu_says_so_and_names_a_small_one(capsys, monkeypatch):
    monkeypatch.setattr("recipes.commands.usable_cores", lambda: 2)

    def told(recipe, **changes):
        tell_least(load_recipe(recipe, {"device": "cpu"} | changes))
        return capsys.readouterr().err

    said = told("sresnet19_gs.t4_cifar10_200epochs")
    assert re.match(r"This will take at least \d+ days on this CPU, by its operations", said)
    assert "`snn-zoo train sresnet19_w16_gs.t2_cifar10`" in said
    assert " hours on this CPU" in told("sresnet19_gs.t4_cifar10_200epochs", epochs=10, phases=None)
    larger = {"epochs": 10, "phases": None, "img_size": 128, "model_args": {"stem_stride": 4}}  # as many operations
    assert " hours on this CPU" in told("sresnet19_gs.t4_cifar10_200epochs", **larger)
    assert told("sresnet19_w16_gs.t2_cifar10") == told("quickstart") == ""
    for stride in ("4", 0, None):  # which the network refuses
        wrong = larger | {"model_args": {"stem_stride": stride}}
        assert " days on this CPU" in told("sresnet19_gs.t4_cifar10_200epochs", **wrong)


CHEAP_FIRST = {
    "phases": [{"epochs": 1, "size": 16, "timesteps": 1}, {"epochs": 1, "size": 24}],
    "epochs": 3,
    "timesteps": 2,
    "train_images": 64,
}


def test_phases_train_at_low_resolution_and_few_steps_first(tmp_path, monkeypatch):
    seen = []
    resize = recipes.augment.resize
    monkeypatch.setattr("recipes.augment.resize", lambda x, size: seen.append(size) or resize(x, size))
    steps = []

    def seen_by(self, x, **more):
        steps.append((self.timesteps, x.shape[3]))
        return real(self, x, **more)

    real = SpikingNetwork.forward
    monkeypatch.setattr(SpikingNetwork, "forward", seen_by)
    result = trained(tmp_path / "x", **CHEAP_FIRST, val_images=10)
    assert seen == [16, 16, 24, 24, 32, 32]
    looked_at, validation, test = [(1, 16), (2, 24), (2, 32)], [(2, 32)], [(2, 32)] * 6  # of 64 images, twice a step's
    training = [(1, 16)] * 2 + validation + [(2, 24)] * 2 + validation + [(2, 32)] * 2 + validation
    assert steps == looked_at + training + test
    assert result["timesteps"] == 2
    assert zoo.load_checkpoint(tmp_path / "x").timesteps == 2


PLAIN_FIRST = {"phases": [{"epochs": 1, "alpha": 0}], "scaling": {"name": "causal_trace", "alpha": 0.5}}


@pytest.mark.slow
def test_phases_schedule_the_strength_of_gradient_scaling(tmp_path):
    def epochs(name, **more):
        trained(tmp_path / name, **more)
        return [row[2] for row in log_of(tmp_path / name)], weights(tmp_path / name)

    plain, at_last = epochs("plain", scaling="none")
    later, weights_later = epochs("later", **PLAIN_FIRST)
    assert later[0] == plain[0]
    assert not all(torch.equal(value, at_last[key]) for key, value in weights_later.items())
    _, never = epochs("never", phases=[{"epochs": 1, "alpha": 0}], scaling={"name": "causal_trace", "alpha": 0})
    assert all(torch.equal(value, at_last[key]) for key, value in never.items())
    first, _ = epochs("first", phases=[{"epochs": 1, "alpha": 0.9}], scaling={"name": "causal_trace", "alpha": 0})
    assert first[0] != plain[0]
    assert zoo.load_checkpoint(tmp_path / "later").model_args["scaling"] == PLAIN_FIRST["scaling"]


def test_averaged_weights_are_of_a_network_with_all_time_steps(tmp_path):
    """Though the last phase has fewer, and one before it as many."""
    phases = [{"epochs": 1}, {"epochs": 1, "timesteps": 1}]
    result = trained(tmp_path / "x", model="svgg11_w8", train_images=32, epochs=3, phases=phases, ema=0.9)
    assert result["timesteps"] == 2
    assert result["train_precision"] == "fp32"
    assert zoo.load_checkpoint(tmp_path / "x").timesteps == 2


@pytest.mark.parametrize("stop_at", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_resuming_between_phases_is_bit_for_bit(tmp_path, stop_at):
    """With a factor for each time step, kept from one training step to the next: its shape changes with T."""
    rule = {"name": "causal_trace", "every": 3}
    phases = [phase | {"alpha": 0.3} for phase in CHEAP_FIRST["phases"]]
    settings = CHEAP_FIRST | {"scaling": rule, "phases": phases, "optimizer": "muon", "lr": 0.01}
    trained(tmp_path / "whole", **settings)
    train_and_stop(Recipe(**SHORT | {"out": str(tmp_path / "half")} | settings), stop_at)
    trained(tmp_path / "half", **settings, resume=True)
    assert alike(tmp_path / "whole", tmp_path / "half")


def test_weights_with_two_names_are_not_averaged(tmp_path, monkeypatch):
    def tied(*args):
        model = create(*args)
        model.stages[0][1].conv2.weight = model.stages[0][0].conv2.weight
        return model

    monkeypatch.setattr("recipes.train.create", tied)
    with pytest.raises(ZooError, match="layers of this network share weights: ema 0"):
        trained(tmp_path / "x", model="sresnet19_w16", ema=0.9)


@pytest.mark.usefixtures("registered_here_only")
def test_a_network_that_could_not_be_saved_and_loaded_is_refused_before_the_first_step(tmp_path):
    @zoo.register_neuron("late")
    class Late(zoo.SpikingNeuron):
        def step(self, x_t, state=None):
            self.w = nn.Parameter(x_t[0].detach())
            return self.surrogate.spike(x_t - self.w), None

    with pytest.raises(ZooError, match=r"makes .*lif1\.w in its first forward pass.*build\(shape\)"):
        trained(tmp_path / "x", neuron="late")
    assert not (tmp_path / "x").exists()


def test_a_spike_penalty_is_the_mean_firing_rate_and_lowers_it(tmp_path):
    model, images = zoo.create_model("sresnet19_w16", num_classes=10, timesteps=2), torch.rand(4, 3, 16, 16)
    with firing_rates(model) as rates, zoo.SpikeCounter(model) as counter:
        model(images)
    assert torch.stack(rates).tolist() == pytest.approx(list(counter.firing_rates().values()))
    plain, sparse = (
        trained(tmp_path / f"{penalty}", model="svgg11_w8", spike_penalty=penalty)["spikes_per_image"]
        for penalty in (0.0, 100.0)
    )
    assert sparse < 0.8 * plain


def test_half_precision_weights_are_what_is_measured(tmp_path):
    result = trained(tmp_path / "x", epochs=1, train_images=32, weights="fp16", optimizer="muon")
    stored = weights(tmp_path / "x")
    assert {v.dtype for v in stored.values() if v.is_floating_point()} == {torch.float16}
    again = validate.validate(str(tmp_path / "x"), "digits", device="cpu")
    assert again["spikes_per_image"] == result["spikes_per_image"]
