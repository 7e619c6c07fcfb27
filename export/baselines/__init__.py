"""What a file is timed against, made of the network that it is of.

eager, compiled    the network in PyTorch, neurons in the fused kernel
floor              its graph with identity neurons: what convolutions cost, and all else but neurons
relu               its graph with ReLU in place of neurons, at one time step: the network that does not spike
spikingjelly       the same network of SpikingJelly's layers, exported by torch.onnx
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from zoo.errors import ZooError, one_of

from ..session import device_of
from ..timing import Network, Subject
from .graphs import floor, relu
from .spikingjelly import spikingjelly

_GRAPHS: dict[str, Callable[..., Subject]] = {"floor": floor, "relu": relu, "spikingjelly": spikingjelly}
BASELINES = ["eager", "compiled", *_GRAPHS]
"""What --against takes."""


def baseline(name: str, model: nn.Module, provider: str, optimization: str) -> Subject:
    """One of `BASELINES`.

    Args:
        name: which.
        model: the network, in evaluation mode; it stays as it is, but for PyTorch's may be moved to another device.
        provider, optimization: of ONNX Runtime.

    Raises:
        ZooError: there is none of that name, or not of this network; PyTorch has not the provider's device.
    """
    if name not in BASELINES:
        raise one_of("baseline", name, BASELINES)
    if name in _GRAPHS:
        return _GRAPHS[name](model, provider=provider, optimization=optimization)
    size: Any = model.pretrained_cfg["input_size"]  # type: ignore[index]
    device = device_of(provider)
    if device == "cuda" and not torch.cuda.is_available():
        raise ZooError(
            f"{name} would run where {provider} does, and PyTorch sees no GPU here: leave it out of --against"
        )
    return Network(name, model, size, device, compiled=name == "compiled")
