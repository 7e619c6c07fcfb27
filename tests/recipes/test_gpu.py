"""Training on a CUDA device; skipped without one."""

from __future__ import annotations

import pytest
import torch

from recipes.recipe import Recipe
from recipes.train import train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_training_runs(amp, tmp_path):
    recipe = Recipe(
        model="sresnet19_w16_gs", dataset="digits", timesteps=2, epochs=5, batch_size=32, hflip=False, crop=2, amp=amp,
        device="cuda", mixup=0.2, auto_augment="randaugment", cutout=4, ema=0.9, out=str(tmp_path / "run"),
    )  # fmt: skip
    assert train(recipe)["top1"] > 60
