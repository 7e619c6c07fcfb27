"""A number that is read when it is there."""

from typing import Any

import torch
from torch import Tensor


class Late:
    """The value of a tensor of one element, on its way to the host: nobody waits for a GPU until `item`."""

    def __init__(self, value: Tensor) -> None:
        self._value, self._copied = value.detach(), None
        self.there = value.device.type != "cuda"
        """Whether nobody would have to wait."""
        if self.there:
            return
        self._value = torch.empty_like(value, device="cpu", pin_memory=True).copy_(value.detach(), non_blocking=True)
        copied: Any = torch.cuda.Event()
        copied.record()
        self._copied = copied

    def item(self) -> float:
        """The number."""
        if self._copied is not None:
            self._copied.synchronize()
        return float(self._value)
