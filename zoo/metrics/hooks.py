"""What counters share: they look at a network inside a `with` block, through PyTorch's hooks."""

from collections.abc import Iterator
from typing import Any, Self

from torch import nn

from ..errors import ZooError
from ..neurons import SpikingNeuron


class Counter:
    """Hooks that stay on a network for the length of a `with` block.

    Args:
        model: a network with layers of neurons.

    Raises:
        ZooError: it has none.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.neurons = {name: module for name, module in model.named_modules() if isinstance(module, SpikingNeuron)}
        if not self.neurons:
            raise ZooError(f"{type(model).__name__} has no layer of spiking neurons (zoo.neurons), so nothing to count")
        self.images = 0
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        self._handles.append(self.model.register_forward_pre_hook(self._start, with_kwargs=True))
        self._handles.extend(self._hooks())
        return self

    def __exit__(self, *error: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _start(self, model: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """The network is called: its first argument is a batch of images."""
        self.images += len([*inputs, *named.values()][0])

    def _hooks(self) -> Iterator[Any]:
        """Register the hooks, and give their handles."""
        raise NotImplementedError
