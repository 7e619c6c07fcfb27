"""What a network reaches and costs: its accuracy, and the spikes of every neuron layer, counted while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .data import normalise
from .errors import ZooError
from .neurons import SpikingNeuron


class SpikeCounter:
    """Counts the spikes of every neuron layer of `model` in the forwards run inside a `with` block.

    >>> with SpikeCounter(model) as counter:
    ...     model(images)
    >>> counter.summary()["spikes_per_image"]

    A forward may hold any number of images; padding or repeated images count like others.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = {name: module for name, module in model.named_modules() if isinstance(module, SpikingNeuron)}
        self.images = 0
        self._counts: dict[str, Tensor] = {}
        self._places: dict[str, int] = {}  # where a spike could have been
        self._handles: list[Any] = []

    def __enter__(self) -> SpikeCounter:
        for name, layer in self.layers.items():
            self._handles.append(layer.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, *error: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _hook(self, name: str) -> Any:
        first = name == next(iter(self.layers))

        def count(layer: SpikingNeuron, _: Any, spikes: Tensor) -> None:
            if first:
                self.images += spikes.shape[0] // layer.timesteps
            # float64 holds any count exactly; a sum of spikes in bfloat16 would not even hold 257.
            steps = spikes.detach().unflatten(0, (layer.timesteps, -1)).flatten(1).sum(1, dtype=torch.float64)
            self._counts[name] = self._counts.get(name, 0) + steps
            self._places[name] = self._places.get(name, 0) + spikes.numel()

        return count

    def firing_rates(self) -> dict[str, float]:
        """Mean spikes per neuron and time step of every layer that ran, 0 to 1."""
        return {name: float(counts.sum()) / self._places[name] for name, counts in self._counts.items()}

    def summary(self) -> dict[str, Any]:
        """Mean spikes per image: `spikes_per_image`, `spikes_per_layer` {name: n}, `spikes_per_step` [T]."""
        if not self._counts:
            raise ZooError("no spikes were counted: run the network inside the `with` block first")
        per_layer = {name: counts / max(self.images, 1) for name, counts in self._counts.items()}
        per_step = torch.stack(list(per_layer.values())).sum(0)
        return {
            "spikes_per_image": float(per_step.sum()),
            "spikes_per_layer": {name: float(steps.sum()) for name, steps in per_layer.items()},
            "spikes_per_step": per_step.tolist(),
        }


@torch.no_grad()
def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    batch_size: int = 256,
    progress: str = "evaluate",
) -> dict[str, Any]:
    """Run `model` in evaluation mode over uint8 images [N, C, H, W] and labels [N], in the precision of its weights.

    Returns:
        images (N), top1 and top5 in percent, loss (cross-entropy of the mean logits), and the counts of
        `SpikeCounter.summary`.

    Raises:
        ZooError: images of other channels than the network's, or logits that are not one row an image.
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
            if logits.dim() != 2 or len(logits) != len(batch) or not logits.shape[1]:
                raise ZooError(
                    f"the network gives logits {list(logits.shape)} for {len(batch)} images, not [B, classes]"
                )
            ranked = logits.topk(min(5, logits.shape[1])).indices == target[:, None]
            top1 += int(ranked[:, 0].sum())
            top5 += int(ranked.any(1).sum())
            loss += float(nn.functional.cross_entropy(logits, target, reduction="sum"))
    model.train(was_training)
    count = len(images)
    scores = {"images": count, "top1": 100 * top1 / count, "top5": 100 * top5 / count, "loss": loss / count}
    return scores | counter.summary()
