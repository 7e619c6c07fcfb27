"""Accuracy and everything that is counted beside it, in one pass over images."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..data import normalise
from ..errors import ZooError
from .energy import energy
from .float32 import without_tf32
from .operations import OperationCounter
from .size import connection_sparsity, footprint
from .spikes import SpikeCounter


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
    """Run `model` in evaluation mode over uint8 images [N, C, H, W] and labels [N], in the precision of its weights:
    float32 is that on a GPU, too, not TensorFloat-32.

    What draws at random in evaluation too, as the encoding "rate" does, draws from seed 0: the same images in the same
    batches give the same numbers, and the generator's state is as it was, as is the mode of each layer.

    Returns:
        images (N), top1 and top5 in percent (of equal logits, as a head that counts votes gives, the first class is
        the higher one, as in argmax), loss (cross-entropy of the mean logits); the counts of
        `SpikeCounter.summary` and `OperationCounter.summary`; footprint_bytes and connection_sparsity (see
        `zoo.metrics.size`); energy_uj, the total of `zoo.metrics.energy`. What is unknown is None.

    Raises:
        ZooError: there are no images, they have other channels than the network's, the network has no spiking neurons,
            or its logits are not one row an image.
    """
    if not len(images):
        raise ZooError("no images to evaluate on: give one at least")
    parameter = next(model.parameters())
    top1 = top5 = 0
    loss = 0.0
    devices = [parameter.device] if parameter.device.type == "cuda" else []
    with (
        _evaluation_mode(model),
        SpikeCounter(model) as spikes,
        OperationCounter(model) as operations,
        torch.random.fork_rng(devices),
        without_tf32(),
    ):
        torch.manual_seed(0)
        # disable=None: no bar where stderr is not a terminal
        for start in tqdm(range(0, len(images), batch_size), desc=progress, disable=None, leave=False):
            batch = normalise(images[start : start + batch_size].to(parameter.device), mean, std).to(parameter.dtype)
            target = labels[start : start + batch_size].to(parameter.device)
            logits = model(batch).float()
            if logits.dim() != 2 or len(logits) != len(batch) or not logits.shape[1]:
                raise ZooError(f"the network gives {list(logits.shape)} for {len(batch)} images, not [B, classes]")
            best = logits.sort(dim=1, descending=True, stable=True).indices[:, :5]
            ranked = best == target[:, None]
            top1 += int(ranked[:, 0].sum())
            top5 += int(ranked.any(1).sum())
            loss += float(nn.functional.cross_entropy(logits, target, reduction="sum"))
    count = len(images)
    scores = {"images": count, "top1": 100 * top1 / count, "top5": 100 * top5 / count, "loss": loss / count}
    counts = spikes.summary() | operations.summary()
    size = {"footprint_bytes": footprint(model), "connection_sparsity": connection_sparsity(model)}
    cost = energy(counts)
    return scores | counts | size | {"energy_uj": cost and cost["total"]}


@contextlib.contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Afterwards each layer is in the mode in which it was, such as frozen ones in one that trains."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
