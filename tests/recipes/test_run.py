"""A run directory: numbers that are not finite, too little memory, damaged states, starts that fail."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import types

import pytest
import safetensors.torch
import torch
from conftest import ROOT, tiny, train_and_stop

from recipes.commands import parse_train
from recipes.processes import keep_memory, pick_device, resolve_amp, start_processes
from recipes.recipe import Recipe
from recipes.run import BUSY, STATE, Interrupt, RunState, load_state, run_directory, save_state
from recipes.train import Trainer, train
from zoo.errors import ZooError

SHORT = {
    "model": "svgg11_w8_gs", "dataset": "digits", "timesteps": 1, "train_images": 64, "batch_size": 32, "epochs": 2,
    "test": False, "amp": "off", "device": "cpu",
}  # fmt: skip


def trained(out, /, **changes):
    return train(Recipe(**SHORT | {"out": str(out)} | changes))


# -- numbers that are not finite


@pytest.mark.parametrize(
    ("late", "spoil", "words"),
    [
        (False, lambda model: model.fc.weight.data.fill_(math.nan), r"the weight fc\.weight"),
        (False, lambda model: model.bn1.running_var.fill_(math.inf), r"the weight bn1\.running_var"),
        (False, lambda model: model.fc.weight.register_hook(lambda g: g * math.nan), r"the gradient of fc\.weight"),
        (False, lambda model: model.conv1.weight.register_hook(lambda g: g / 0), r"the gradient of conv1\.weight"),
        (True, lambda model: model.conv1.weight.data.fill_(math.nan), r"the weight conv1\.weight"),
    ],
)
def test_a_number_that_is_not_finite_stops_a_run_which_keeps_a_good_state(late, spoil, words, tmp_path, monkeypatch):
    """Late: by the update of the step itself. NaN reaches no threshold, so its loss is finite."""
    step = Trainer._step

    def spoiled(trainer, *args):
        if trainer.state.step == 2 and not late:  # the first step of the second epoch
            spoil(trainer.model)
        found = step(trainer, *args)
        if trainer.state.step == 3 and late:
            spoil(trainer.model)
        return found

    monkeypatch.setattr(Trainer, "_step", spoiled)
    with pytest.raises(ZooError, match=rf"step 3: {words} is not finite.* lr \(it is 0\.1\).*clip_grad"):
        trained(tmp_path / "x", checkpoint_minutes=0.0)
    assert {file.name for file in (tmp_path / "x").iterdir()} == {"recipe.yaml", "summary.csv", STATE, ".lock"}
    state = load_state(tmp_path / "x" / STATE)
    assert state["step"] == 2
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_float16_gradients_that_no_scale_makes_finite_stop_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr("recipes.train.loss_of", lambda logits, *_: (logits / 0.0).sum().nan_to_num())
    with pytest.raises(ZooError, match=r"step 31: the gradient of .* is not finite.*clip_grad \(it is 0\)"):
        trained(tmp_path / "x", amp="fp16", batch_size=2, model="max_resnet18_w16", img_size=16)


# -- time and memory


@pytest.mark.parametrize("checkpointing", [False, True])
def test_too_little_memory_names_what_makes_a_step_smaller(checkpointing, tmp_path, monkeypatch):
    def step(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")

    monkeypatch.setattr(Trainer, "_step", step)
    less = r"2\.00 GiB.*: lower batch_size \(it is 32\)"
    with pytest.raises(ZooError, match=less if checkpointing else "set grad_checkpointing, or lower batch_size"):
        trained(tmp_path / "x", grad_checkpointing=checkpointing)


# -- starts that fail


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"init": "sresnet19_w32_gs.t2_cifar10"}, "another network"),
        ({"init": "nothing/here"}, "nothing/here"),
        ({"init": "sresnet19"}, "no published weights"),
        ({"scaling": "none", "phases": [{"epochs": 1, "alpha": 0.5}]}, "alpha"),
        ({"batch_size": 65}, "65"),
        ({"batch_size": 33, "mixup": 1.0}, "33 must be a multiple of 2"),
        ({"out": "/proc/nothing"}, "/proc/nothing"),
        ({"model_args": {"in_chans": 4}}, "images"),
        ({"neuron": {"name": "lif", "decay": 7}}, "decay"),
        ({"neuron": {"name": "lif", "tau": 20000}}, "read again.*holds a number beyond"),
        ({"model": "svgg11_w8", "timesteps": 1, "batch_size": 1, "img_size": 16}, "one image at a time"),
        ({"cutmix": 1e-320}, "cutmix: takes 0, or a number from"),
        ({"phases": [{"size": 16}]}, r"phases\.0\.epochs is missing"),
        ({"phases": [{"epochs": 1, "size": 33}]}, "at most 32, not 33"),
        ({"phases": [{"epochs": 1, "alpha": 1.5}]}, r"phases\.0\.alpha.* 1, not 1\.5"),
        ({"phases": [{"epochs": 2}]}, "leave some of the 2 epochs"),
        (
            {"phases": [{"epochs": 1, "timesteps": 1}], "timesteps": 2, "model_args": {"norm": "tebn"}},
            "each of 2 time steps: cannot run 1",
        ),
        (
            {"phases": [{"epochs": 1, "size": 16}], "model": "plif_net_w16"},
            "16 x 16 pixels .*; a phase of its recipe has them: say --phases without size",
        ),
        (
            {"model": "svgg11_w8", "timesteps": 4, "batch_size": 1}
            | {"phases": [{"epochs": 1, "timesteps": 1, "size": 16}]},
            "one image at a time of 16 x 16 pixels at T = 1: .*batch_size must be two or more",
        ),
    ],
)
def test_a_start_that_fails_leaves_no_folder(wrong, words, tmp_path):
    with pytest.raises(ZooError, match=words):
        trained(tmp_path / "runs" / "x", **wrong)
    assert not list(tmp_path.iterdir())


def test_a_run_without_its_state_is_not_overwritten(tmp_path):
    out = tmp_path / "x"
    trained(out, epochs=1)
    (out / STATE).unlink()
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    for resume in (False, True):
        with pytest.raises(ZooError, match=r"holds a model\.safetensors and no training state"):
            trained(out, epochs=1, resume=resume, lr=0.5)
    moved = out.rename(tmp_path / "y")
    assert parse_train(["--resume", str(moved)]).out == str(moved)
    moved.rename(out)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_two_trainings_do_not_share_a_directory(tmp_path):
    out = tmp_path / "x"
    with run_directory(out):
        (out / "recipe.yaml").write_text("that of the first")
        with pytest.raises(ZooError, match=r"another process trains in .*--out") as caught:
            trained(out, epochs=1)
        assert caught.value.status == BUSY
        assert {file.name for file in out.iterdir()} == {"recipe.yaml", ".lock"}
        assert (out / "recipe.yaml").read_text() == "that of the first"
    trained(out, epochs=1)


@pytest.mark.parametrize(("handler", "noted"), [(signal.SIG_DFL, signal.SIGHUP), (signal.SIG_IGN, None)])
def test_a_closed_terminal_stops_a_run_but_under_nohup(handler, noted):
    before = signal.signal(signal.SIGHUP, handler)
    try:
        with Interrupt() as told:
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert told.noted == noted


def test_a_torchrun_that_starts_anew_needs_a_store_of_each_start(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "TORCHELASTIC_USE_AGENT_STORE": "True"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    with pytest.raises(ZooError, match="set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        start_processes("cpu")


# -- damaged states


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with its last state."""
    out = tmp_path_factory.mktemp("states") / "x"
    train_and_stop(Recipe(**SHORT | {"out": str(out)}), 2)
    assert load_state(out / STATE)["step"] == 4
    return out


def flip(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGE = {
    "data": lambda data: flip(data, len(data) - 5),
    "header": lambda data: flip(data, data.index(b"sha256") + 12),
    "tree": lambda data: flip(data, data.index(b"digits")),
    "empty": lambda data: b"",
    "cut short": lambda data: data[:-100],
    "foreign": lambda data: safetensors.torch.save({"a": torch.ones(1)}, {"format": "pt"}),
    "a pickle": lambda data: b"\x80\x04.",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_refused(damage, run, tmp_path):
    path = tmp_path / STATE
    path.write_bytes(DAMAGE[damage]((run / STATE).read_bytes()))
    with pytest.raises(ZooError, match=rf"{STATE}.* start anew"):
        load_state(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {}}, "does not fit"),
        ({"optimizer": {}}, "does not fit"),
        ({"running": torch.zeros(2)}, "does not fit"),
        ({"world": 2}, r"started with 2 process\(es\), not 1"),
    ],
)
def test_a_state_of_another_run_is_refused(changes, words, run, tmp_path):
    shutil.copytree(run, tmp_path / "x")
    save_state(tmp_path / "x" / STATE, load_state(run / STATE) | changes)
    with pytest.raises(ZooError, match=words):
        trained(tmp_path / "x", resume=True)


def test_what_an_optimiser_has_keeps_the_layout_of_its_parameter(tmp_path):
    def new():
        model = tiny().to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        parts = {"model": model, "optimizer": optimizer, "scaler": torch.amp.GradScaler("cpu", enabled=False)}
        return RunState({"recipe": {}, "origin": {}, "world": 1}, parts, torch.zeros(3)), model, optimizer

    (state, model, optimizer), (again, other, its) = new(), new()
    model(torch.rand(2, 3, 16, 16)).sum().backward()
    optimizer.step()
    state.start()
    state.save(tmp_path)
    again.restore(load_state(tmp_path / STATE))
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        before, after = optimizer.state[p]["momentum_buffer"], its.state[q]["momentum_buffer"]
        assert torch.equal(after, before)
        assert after.stride() == q.stride()


def test_a_run_goes_on_in_the_precision_that_it_was_started_in(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("recipes.processes.computes_in_bf16", lambda _: False)
    monkeypatch.setattr("recipes.processes.cpu_line", lambda _: "model name: AMD EPYC")
    train_and_stop(Recipe(**SHORT | {"out": str(tmp_path / "x"), "amp": "auto", "test": True}), 2)
    monkeypatch.setattr("recipes.processes.computes_in_bf16", lambda _: True)
    assert trained(tmp_path / "x", amp="auto", test=True, resume=True)["train_precision"] == "fp32"
    assert "goes on with amp off, as it was started: here, auto is bf16" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cpu", "avx512_bf16", "amx", "expected"),
    [
        ("AMD EPYC", True, False, "bf16"),
        ("AMD EPYC", False, False, "off"),
        ("Neoverse-V2", False, False, "off"),
        ("Intel(R) Xeon(R) Processor", True, True, "bf16"),
        ("Intel(R) Xeon(R) Processor", True, False, "off"),
        ("Intel(R) Xeon(R) Gold 6248 CPU @ 2.50GHz", False, False, "off"),
    ],
)
def test_auto_is_bfloat16_only_where_that_is_faster(cpu, avx512_bf16, amx, expected, monkeypatch):
    monkeypatch.setattr("recipes.processes.cpu_line", lambda _: f"model name : {cpu}")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)  # with any AVX-512, on any ARM
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert resolve_amp("auto", torch.device("cpu")) == expected


@pytest.mark.parametrize("largest", [1 << 31, 1 << 25])  # from glibc 2.35 on, and before
def test_memory_is_kept_with_any_glibc(largest, monkeypatch):
    told = {}

    def mallopt(what, value):
        taken = what == -1 or value <= largest
        told.update({what: value} if taken else {})
        return int(taken)

    monkeypatch.setattr("recipes.processes.ctypes.CDLL", lambda _: types.SimpleNamespace(mallopt=mallopt))
    keep_memory()
    assert told == {-3: min(largest, 1 << 30), -1: (1 << 31) - 1}


def test_a_gpu_that_pytorch_has_no_code_for_is_named(monkeypatch):
    def zeros(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with ...")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "zeros", zeros)
    with pytest.raises(ZooError, match=r"cannot compute on this GPU \(.*no kernel image .*--device cpu"):
        pick_device("auto")


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_two_torchrun_agents_whose_processes_are_killed_end_with_the_same_weights(tmp_path):
    command = [sys.executable, str(ROOT / "tests" / "recipes" / "torchrun_kills.py"), str(tmp_path), "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert "bit-equal weights after 2 kills" in done.stdout, done.stderr
