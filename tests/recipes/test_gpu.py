"""What only a CUDA device can show; skipped without one."""

from __future__ import annotations

import pytest
import torch
from conftest import tiny
from torch.nn import functional as F

from recipes.config import Recipe
from recipes.train import train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_training_runs(amp, tmp_path):
    recipe = Recipe(
        model="sresnet19_w16_gs", dataset="digits", timesteps=2, epochs=5, batch_size=32, hflip=False, crop=2, amp=amp,
        device="cuda", mixup=0.2, auto_augment="randaugment", cutout=4, ema=0.9, out=str(tmp_path / "run"),
    )  # fmt: skip
    assert train(recipe)["top1"] > 60


def test_scaled_gradients_equal_the_cpus():
    gradients = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model, x = tiny(scaling="causal_trace").double().to(device), torch.randn(4, 3, 8, 8, dtype=torch.float64)
        F.cross_entropy(model(x.to(device)), torch.arange(4, device=device)).backward()
        gradients.append([p.grad.cpu() for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
