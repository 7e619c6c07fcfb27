"""Accuracy and spikes of a network on a set of images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from zoo.metrics import SpikeCounter

from .augment import normalise


@torch.no_grad()
def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    batch_size: int = 256,
    progress: str = "evaluate",
) -> dict[str, Any]:
    """Run `model` in evaluation mode over uint8 images [N, C, H, W] and labels [N], in the precision of its weights.

    Returns:
        images (N), top1 and top5 in percent, loss (cross-entropy of the mean logits), and the counts of
        `zoo.SpikeCounter.summary`.
    """
    parameter = next(model.parameters())
    was_training = model.training
    model.eval()
    top1 = top5 = 0
    loss = 0.0
    with SpikeCounter(model) as counter:
        # disable=None: no bar where stderr is not a terminal
        for start in tqdm(range(0, len(images), batch_size), desc=progress, disable=None, leave=False):
            batch = normalise(images[start : start + batch_size].to(parameter.device), mean, std).to(parameter.dtype)
            target = labels[start : start + batch_size].to(parameter.device)
            logits = model(batch).float()
            ranked = logits.topk(min(5, logits.shape[1])).indices == target[:, None]
            top1 += int(ranked[:, 0].sum())
            top5 += int(ranked.any(1).sum())
            loss += float(nn.functional.cross_entropy(logits, target, reduction="sum"))
    model.train(was_training)
    count = len(images)
    scores = {"images": count, "top1": 100 * top1 / count, "top5": 100 * top5 / count, "loss": loss / count}
    return scores | counter.summary()
