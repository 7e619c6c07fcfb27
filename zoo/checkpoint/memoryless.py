"""A network without memory: its layers, names and shapes, whatever sizes its keywords ask for."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..specs import MOST

# What makes a tensor of a given size. Those made of given numbers (torch.tensor, as_tensor) stay as they are, and so do
# short rows of numbers: a constructor may need their values, such as rates that grow with depth, and they are small.
_SIZED = {
    *(torch.empty, torch.zeros, torch.ones, torch.full, torch.eye, torch.arange, torch.linspace),
    *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal),
}
_ROWS = {torch.arange, torch.linspace}


class WithoutMemory(TorchFunctionMode):
    """Inside this context, tensors that are made by their size have no memory, as on PyTorch's "meta" device.

    `torch.device("meta")` would also take the values of small constants, which constructors compute with.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _SIZED and kwargs.get("device") is None:
            made = func(*args, **kwargs | {"device": "meta"})
            return func(*args, **kwargs) if func in _ROWS and made.dim() == 1 and made.numel() <= MOST else made
        return func(*args, **kwargs)
