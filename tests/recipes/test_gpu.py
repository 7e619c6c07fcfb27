"""Training and evaluation on a CUDA device, skipped without one; what both devices can is tried on a CPU, too."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from conftest import train_and_stop

import zoo
from recipes.recipe import Recipe
from recipes.train import train
from zoo.data import load_dataset
from zoo.metrics import evaluate

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
RESUMED = {
    "model": "sresnet19_w16_gs", "dataset": "digits", "timesteps": 2, "train_images": 64, "batch_size": 32,
    "test": False, "scaling": {"name": "final_trace", "alpha": 0.5, "every": 3}, "amp": "auto", "optimizer": "muon",
    "auto_augment": "autoaugment", "grad_checkpointing": True, "ema": 0.9,
}  # fmt: skip


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=GPU)])
def device(request) -> str:
    return request.param


@pytest.mark.parametrize("amp", [pytest.param(amp, marks=GPU) for amp in ("off", "bf16", "fp16")])
def test_training_runs(amp, tmp_path):
    recipe = Recipe(
        model="sresnet19_w16_gs", dataset="digits", timesteps=2, epochs=5, batch_size=32, hflip=False, crop=2, amp=amp,
        device="cuda", mixup=0.2, auto_augment="randaugment", cutout=4, ema=0.9, out=str(tmp_path / "run"),
    )  # fmt: skip
    assert train(recipe)["top1"] > 60


def test_a_run_goes_on_bit_for_bit(device, tmp_path, monkeypatch):
    """The images beside the network, and in the host's memory, as where the GPU's has no room for them."""
    train(Recipe(**RESUMED, epochs=2, device=device, out=str(tmp_path / "whole")))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (0, 0))
    stopped = Recipe(**RESUMED, epochs=2, device=device, out=str(tmp_path / "stopped"))
    train_and_stop(stopped, 1)
    train(stopped.model_copy(update={"resume": True}))
    whole, again = (safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(whole[key], again[key]) for key in whole)


@pytest.mark.parametrize("name", [pytest.param(name, marks=GPU) for name in ("sresnet19_w16_gs", "max_resnet18_w32")])
def test_evaluation_counts_the_spikes_that_a_cpu_counts(name):
    digits, model = load_dataset("digits"), zoo.create_model(name, num_classes=10).eval()
    some = digits.test_images[:64], digits.test_labels[:64], digits.mean, digits.std
    there, here = (evaluate(model.to(device), *some)["spikes_per_image"] for device in ("cuda", "cpu"))
    assert there == pytest.approx(here, rel=1e-3)
