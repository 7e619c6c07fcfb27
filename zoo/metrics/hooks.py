"""What counters share: they look at a network inside a `with` block, through PyTorch's hooks."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
from torch import nn

from ..errors import ZooError
from ..neurons import SpikingNeuron


class Counter:
    """Hooks that stay on a network for the length of a `with` block.

    What torch.compile made of it does not run there: a graph that was compiled before has no hooks. What gradient
    checkpointing computes again in a backward pass does not count.

    Args:
        model: a network with layers of neurons. It is called with images: of a part of a network, whose first axis is
            time and batch, each counts T times.

    Raises:
        ZooError: it has none.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.neurons = {name: module for name, module in model.named_modules() if isinstance(module, SpikingNeuron)}
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
        """Register the hooks, and give their handles."""
        raise NotImplementedError


def once(hook: Callable[..., None]) -> Callable[..., None]:
    """A hook that does nothing in a backward pass, where checkpointing repeats a forward that was seen."""

    def seen(*inputs: Any) -> None:
        if torch._C._current_graph_task_id() == -1:
            hook(*inputs)

    return seen
