"""The spikes of every layer of neurons, counted while the network runs, and what follows from them."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..errors import ZooError
from ..network import unwrapped
from ..neurons import SpikingNeuron


class Counter:
    """Hooks that stay on a network for the length of a `with` block.

    What torch.compile made of it does not run there: a graph that was compiled before has no hooks. What gradient
    checkpointing computes again in a backward pass does not count.

    Args:
        model: a network with layers of neurons. It is called with images: of a part of a network, whose first axis is
            time and batch, each counts T times.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.neurons = {
            name: module for name, module in unwrapped(model).named_modules() if isinstance(module, SpikingNeuron)
        }
        if not self.neurons:
            raise ZooError(f"{type(model).__name__} has no layer of spiking neurons (zoo.neurons), so nothing to count")
        self.images = 0
        self._inside = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._inside.enter_context(torch.compiler.set_stance("force_eager"))
        for handle in (self.model.register_forward_pre_hook(self._start, with_kwargs=True), *self._hooks()):
            self._inside.callback(handle.remove)
        return self

    def __exit__(self, *error: object) -> None:
        self._inside.close()

    def _start(self, model: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """The network is called: its first argument is a batch of images."""
        self.images += len([*inputs, *named.values()][0])

    def _hooks(self) -> Iterator[Any]:
        """Registers the hooks, and gives their handles."""
        raise NotImplementedError


def once(hook: Callable[..., None]) -> Callable[..., None]:
    """Returns a hook that does nothing in a backward pass, where checkpointing repeats a forward that was seen."""

    def seen(*inputs: Any) -> None:
        if torch._C._current_graph_task_id() == -1:
            hook(*inputs)

    return seen


def is_spikes(x: Tensor) -> bool:
    """Returns whether all are 0 or 1, by x - x^2: on a CPU, arithmetic is vectorised where comparisons are not."""
    return not torch.addcmul(x, x, x, value=-1).abs_().sum()


class SpikeCounter(Counter):
    """Counts the spikes of every neuron layer of `model` in the forwards run inside a `with` block.

    >>> with SpikeCounter(model) as counter:
    ...     model(images)
    >>> counter.summary()["spikes_per_image"]

    A forward may hold any number of images; padding or repeated images count like others. A forward raises ZooError
    where a layer gives other values than 0 and 1, looked for the first time that it runs.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._counts: dict[str, Tensor] = {}
        self._places: dict[str, int] = {}  # where a spike could have been

    def _hooks(self) -> Iterator[Any]:
        for name, layer in self.neurons.items():
            yield layer.register_forward_hook(once(partial(self._count, name)))

    def _count(self, name: str, layer: SpikingNeuron, _: Any, spikes: Tensor) -> None:
        if name not in self._counts and not is_spikes(spikes.detach()):
            whose = f"{type(layer).__name__} (layer {name!r})"
            raise ZooError(f"{whose} gives other values than 0 and 1: what is counted here are binary spikes")
        # A map of one image has less than 2^24 places, so float32 counts them exactly (bfloat16 would not even hold
        # 257), and float64 any number of images.
        rows = spikes.detach().sum(tuple(range(1, spikes.dim())), dtype=torch.float32)
        steps = rows.view(layer.timesteps, -1).sum(1, dtype=torch.float64)
        self._counts[name] = self._counts.get(name, 0) + steps
        self._places[name] = self._places.get(name, 0) + spikes.numel()

    def firing_rates(self) -> dict[str, float]:
        """Returns the mean spikes per neuron and time step of every layer that ran, 0 to 1."""
        return {name: float(counts.sum()) / self._places[name] for name, counts in self._counts.items()}

    def summary(self) -> dict[str, Any]:
        """Returns what the neurons did, over the images that went through.

        Returns:
            spikes_per_image, spikes_per_layer {name: n}, spikes_per_step [T]: mean number per image.
            firing_rates: {name: share of a layer's neurons and time steps that spiked, 0 to 1}.
            activation_sparsity: NeuroBench's, the share of all neurons and time steps that did not spike, 0 to 1.
            membrane_updates: mean number per image; every neuron updates its membrane in every time step. (NeuroBench
                knows those of snnTorch's neurons only, and there counts the updates that spiking changed.)
        """
        if not self._counts or not self.images:
            raise ZooError("no spikes were counted: call the network, with images, inside the `with` block first")
        per_layer = {name: counts / self.images for name, counts in self._counts.items()}
        per_step = torch.stack(list(per_layer.values())).sum(0)
        places = sum(self._places.values())
        return {
            "spikes_per_image": float(per_step.sum()),
            "spikes_per_layer": {name: float(steps.sum()) for name, steps in per_layer.items()},
            "spikes_per_step": per_step.tolist(),
            "firing_rates": self.firing_rates(),
            "activation_sparsity": (places - float(torch.stack(list(self._counts.values())).sum())) / places,
            "membrane_updates": places / self.images,
        }
