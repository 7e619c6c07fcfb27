"""Accuracy and everything that is counted beside it, in one pass over images."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from ..data import normalisation, normalise
from ..data.dataset import as_tensor, warn_of_pixels
from ..errors import ZooError
from ..kernels.event_layers import event_driven
from ..network import unwrapped
from .energy import energy
from .operations import LAYERS, OperationCounter
from .spikes import SpikeCounter


@torch.no_grad()
def evaluate(
    model: nn.Module,
    images: Tensor | NDArray[Any],
    labels: Tensor | NDArray[Any],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    *,
    batch_size: int = 256,
    progress: str = "evaluate",
) -> dict[str, Any]:
    """Runs `model` in evaluation mode over images and labels, in the precision of its weights: float32 is that, on a
    GPU, too, and not TensorFloat-32.

    What draws at random in evaluation too, as the encoding "rate" does, draws from seed 0: the same images in the same
    batches give the same numbers, and the generator's state is as it was, as is the mode of each layer. In float32 on a
    CPU, convolutions skip zeros (`zoo.event_driven`).

    Args:
        images: uint8 pixels [N, C, H, W]; floating-point ones are taken as normalised, with a warning where they cannot
            be; frames [N, T, C, H, W] are taken as they are. A tensor, or an array of NumPy's.
        labels: classes [N], integers from 0 on.
        mean, std: of the pixels' channels, in units of 255; by default those of the network. An encoding that reads
            brightness takes pixels as they are.

    Returns:
        images (N), top1 and top5 in percent (of equal logits, as a head that counts votes gives, the first class is
        the higher one, as in argmax), loss (cross-entropy of the mean logits); the counts of
        `SpikeCounter.summary` and `OperationCounter.summary`; footprint_bytes and connection_sparsity (the functions
        below); energy_uj, the total of `zoo.metrics.energy`. What is unknown is None.

    Raises:
        ZooError: there are no images, or not a label for each, or one beyond the classes; they have other channels than
            the network's; the network has no classes, no spiking neurons, no mean and std of its own, or its logits are
            not finite or not one row an image; a batch size below 1.
    """
    images, labels = _tensors(images, labels)
    check_classes(model)
    if batch_size < 1:
        raise ZooError(f"batch_size must be 1 or more, not {batch_size}")
    network = unwrapped(model)
    if hasattr(network, "pretrained_cfg"):
        mean, std = normalisation(network, mean, std)
    elif mean is None or std is None:
        raise ZooError(f"this {type(model).__name__} knows no mean and std of its pixels: give both")
    if images.is_floating_point():
        warn_of_pixels(images, mean)
    parameter = next(model.parameters())
    last = int(labels.max())
    top1 = top5 = 0
    loss = 0.0
    devices = [parameter.device] if parameter.device.type == "cuda" else []
    with (
        evaluation_mode(model),
        SpikeCounter(model) as spikes,
        OperationCounter(model) as operations,
        torch.random.fork_rng(devices),
        without_tf32(),
        event_driven(model),
    ):
        # Not torch.manual_seed, which seeds the generators of other GPUs, too, which are not put back.
        for generator in (torch.default_generator, *(torch.cuda.default_generators[d.index] for d in devices)):
            generator.manual_seed(0)
        # disable=None: no bar where stderr is not a terminal
        for start in tqdm(range(0, len(images), batch_size), desc=progress, disable=None, leave=False):
            batch = images[start : start + batch_size].to(parameter.device)
            batch = normalise(batch, mean, std).to(parameter.dtype)
            target = labels[start : start + batch_size].to(parameter.device, torch.int64)
            logits = model(batch).float()
            if logits.dim() != 2 or len(logits) != len(batch) or not logits.shape[1]:
                raise ZooError(f"the network gives {list(logits.shape)} for {len(batch)} images, not [B, classes]")
            if not logits.isfinite().all():
                raise ZooError("the network gives logits that are not finite: its weights or the images are too large")
            if last >= logits.shape[1]:
                raise ZooError(f"a label is {last}, and the network has {logits.shape[1]} classes, from 0 on")
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


def _tensors(images: Any, labels: Any) -> tuple[Tensor, Tensor]:
    images, labels = as_tensor(images), as_tensor(labels)
    if not len(images):
        raise ZooError("no images to evaluate on: give one at least")
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        kind = str(labels.dtype).removeprefix("torch.")
        raise ZooError(f"{len(images)} images need integer labels [{len(images)}], not {kind} {list(labels.shape)}")
    if labels.min() < 0:
        raise ZooError(f"labels are classes from 0 on, and one is {int(labels.min())}")
    return images, labels


def check_classes(model: nn.Module) -> None:
    """Raises ZooError for a network that tells that it has no classes."""
    if getattr(unwrapped(model), "num_classes", None) == 0:
        raise ZooError("the network has no classes (num_classes 0): reset_classifier adds some")


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Afterwards each layer is in the mode in which it was, such as frozen ones in one that trains."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Convolutions and matrix products compute in float32 inside the block.

    By default PyTorch lets cuDNN round what float32 convolutions multiply to TensorFloat-32, ten bits of mantissa, and
    `torch.set_float32_matmul_precision` does that to matrix products, of a CPU, too; at a threshold, rounding makes and
    loses spikes.
    """
    cudnn: Any = torch.backends.cudnn
    mkldnn: Any = torch.backends.mkldnn
    switches = [cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul, mkldnn.conv, mkldnn.matmul]
    before = [switch.fp32_precision for switch in switches]
    for switch in switches:
        switch.fp32_precision = "ieee"
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


def footprint(model: nn.Module) -> int:
    """Returns the bytes of all parameters and buffers, as they are in memory, but for what only training keeps.

    NeuroBench counts that too: factors of gradient scaling, which are in no checkpoint.
    """
    kept = {id(value): value for value in model.state_dict(keep_vars=True).values()}  # what is shared counts once
    return sum(value.numel() * value.element_size() for value in kept.values() if isinstance(value, Tensor))


def connection_sparsity(model: nn.Module) -> float | None:
    """Returns the share, 0 to 1, of the weights of convolutions and linear layers that is 0; None without such layers.

    NeuroBench rounds it to four digits.
    """
    weights: list[Any] = [module.weight for module in model.modules() if isinstance(module, LAYERS)]
    total = sum(weight.numel() for weight in weights)
    return sum(int((weight == 0).sum()) for weight in weights) / total if total else None
