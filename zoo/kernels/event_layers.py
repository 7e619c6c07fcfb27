"""Networks whose convolutions skip zeros: in PyTorch, on a CPU, in float32, without gradients.

    with zoo.event_driven(model):
        logits = model(images)

Inside, every convolution and linear layer looks at what it gets. Of whole numbers (spikes, their counts) that are
mostly 0, the kernel of event.cpp adds up the weights, for all time steps of a channel at once; of anything else the
layer does what it did before. Sums are float32 in another order, so currents are equal up to rounding, and a few
neurons whose membrane potential is at its threshold spike otherwise, as they do between two processors.
"""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..layers import UntiedConv2d
from ..network import unwrapped
from ..neurons import SpikingNeuron
from ..scaling.layers import SpikingConv2d, SpikingLinear
from . import skips_zeros
from .event import EventConv, takes_weights, whole_bytes
from .lif import is_eager

_FORWARDS = {kind.forward for kind in (nn.Conv2d, nn.Linear, SpikingConv2d, SpikingLinear, UntiedConv2d)}
_MOST_COUNT = 15  # that the kernel takes
# Where it pays, see export/studies/event_sweep.py: lists of spikes long enough, blocks of output channels full enough.
_CHANNELS, _INPUTS, _RATE = 32, 128, 0.5
_TASKS = 2  # of a thread


@contextlib.contextmanager
def event_driven(model: nn.Module) -> Iterator[None]:
    """Inside the block, convolutions and linear layers of `model` skip zeros where that is faster.

    Weights are read once and must not change inside. SNNZOO_KERNEL=reference, or `kernel="reference"` of the network,
    keeps everything as it is; so does a layer's class with a `forward` of its own. Code that PyTorch traces or
    counts, that autograd records or autocast rounds stays dense, as do other devices and types.
    """
    modules = list(unwrapped(model).modules())
    neurons = [module for module in modules if isinstance(module, SpikingNeuron)]
    layers: list[Any] = [module for module in modules if type(module).forward in _FORWARDS and _has_form(module)]
    if not neurons or not layers or not skips_zeros(neurons[0].kernel):
        layers = []
    for layer in layers:
        layer.forward = _EventLayer(layer, neurons[0].timesteps)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _has_form(layer: Any) -> bool:
    """Whether the kernel has such layers, and is faster for them at few spikes."""
    weight = layer.weight
    if isinstance(layer, nn.Conv2d):
        padded = type(layer.padding) is tuple and layer.padding_mode == "zeros"
        own = type(layer)._conv_forward is not nn.Conv2d._conv_forward
        if own or not padded or layer.groups > 1 or {*layer.dilation} != {1}:
            return False
    out, channels, rows, columns = shape = (*weight.shape, 1, 1)[:4]
    fits = weight.dtype is torch.float32 and weight.device.type == "cpu" and takes_weights(shape)
    pays = min(out, channels) >= _CHANNELS and channels * rows * columns >= _INPUTS
    return fits and pays and "forward" not in vars(layer)


class _EventLayer:
    """What stands for the `forward` of a layer."""

    def __init__(self, layer: Any, timesteps: int) -> None:
        self.layer, self.dense, self.timesteps = layer, layer.forward, timesteps
        self.event: EventConv | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.dense, memo)  # of a copy, which the block does not end for

    def __call__(self, x: Tensor, *others: Any, **named: Any) -> Tensor:
        currents = None
        if is_eager(x) and not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")):
            currents = self._currents(x)
        return self.dense(x, *others, **named) if currents is None else currents

    def _currents(self, x: Tensor) -> Tensor | None:
        weight = self.layer.weight
        axes = 4 if weight.dim() == 4 else 2
        if x.dim() != axes or not len(x) or len(x) % self.timesteps or x.dtype is not torch.float32 or not x.is_cpu:
            return None
        maps = x.permute(0, 2, 3, 1) if axes == 4 else x[:, None, None]
        found = whole_bytes(maps.contiguous(), _MOST_COUNT)
        if found is None or found[2] > _RATE:
            return None
        spikes, most, _ = found
        event = self.event  # read once, as other threads may put in another
        if event is None or most > event.most:
            event = self.event = self._pack(weight, most)
        threads = torch.get_num_threads()
        currents = event(spikes, tasks=_TASKS * threads if threads > 1 else 1, threads=threads)
        return currents.permute(0, 3, 1, 2) if axes == 4 else currents[:, 0, 0]

    def _pack(self, weight: Tensor, most: int) -> EventConv:
        bias, out = self.layer.bias, len(weight)
        shape = {key: getattr(self.layer, key) for key in ("stride", "padding") if isinstance(self.layer, nn.Conv2d)}
        return EventConv(
            weight.detach() if weight.dim() == 4 else weight.detach()[..., None, None],
            weight.new_ones(out),
            weight.new_zeros(out) if bias is None else bias.detach(),
            timesteps=self.timesteps,
            most=max(most, 1),
            **shape,
        )
