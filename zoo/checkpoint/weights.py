"""A weights file that may come from anybody: how it begins, whether its tensors fit a network, and with what memory."""

import contextlib
import hashlib
import json
import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import ZooError
from ..files import open_regular
from ..neurons import SpikingNeuron
from ..specs import MOST

# Others (float8 ...) could not be checked for NaN.
_TYPES = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
}
_HEADER_LIMIT = 4 * 2**20
_STARTS_OF_PICKLES = (b"\x80", b"PK")  # pickle's own, and torch.save's zip around one
# What makes a tensor of a given size. Those made of given numbers (torch.tensor, as_tensor) stay as they are, and so do
# short rows of numbers: a constructor may need their values, such as rates that grow with depth, and they are small.
_SIZED = {
    *(torch.empty, torch.zeros, torch.ones, torch.full, torch.eye, torch.arange, torch.linspace),
    *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal),
}
_ROWS = {torch.arange, torch.linspace}
_MEMORY = 64 * 2**20  # what any network may take beside its weights


def digest(tensors: Mapping[str, Tensor], start: bytes = b"") -> str:
    """Returns the sha256 of `start` and of all that some tensors on whatever device hold, whatever their order."""
    found = hashlib.sha256(start)
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def network_digest(model: nn.Module) -> str:
    """Returns the sha256 of all that a network computes with: its tensors, and the settings of its neurons."""
    neurons = {name: m.spec_values() for name, m in model.named_modules() if isinstance(m, SpikingNeuron)}
    return digest(model.state_dict(), json.dumps(neurons, sort_keys=True).encode())


def check_start(path: Path) -> None:
    """Raises ZooError for a pickle, and for a header longer than the file or than any network needs."""
    with open_regular(path) as file:
        start, size = file.read(9), os.fstat(file.fileno()).st_size
    length = int.from_bytes(start[:8], "little")
    if len(start) == 9 and 2 <= length <= min(size - 8, _HEADER_LIMIT) and start[8:] == b"{":
        return
    # Only now: the length of a good header may start with such a byte, too.
    if start.startswith(_STARTS_OF_PICKLES):
        raise ZooError(f"{path} is a pickle, which can run code when loaded; only safetensors is read")
    raise ZooError(f"{path} is not a valid safetensors file: it states a header of {length:,} bytes")


def starts_as_pickle(path: Path) -> bool:
    """Returns whether a file begins as a pickle does, or as one in the archive of torch.save, whatever its name."""
    with contextlib.suppress(ZooError):
        check_start(path)  # the length of a good safetensors header may begin so, too
        return False
    with open_regular(path) as file:
        start = file.read(512)
    archive = start.startswith(b"PK\3\4") and b"/data.pkl" in start
    return archive or start.startswith(tuple(bytes([0x80, protocol]) for protocol in range(2, 6)))


def check_tensors(origin: str, tensors: Mapping[str, Tensor]) -> None:
    """Raises ZooError unless tensors are numbers of a type that a network has, and finite."""
    for name, value in tensors.items():
        if value.dtype not in _TYPES:
            raise ZooError(f"{origin}: tensor {reprlib.repr(name)} is of type {value.dtype}, which no network has")
        # In float32, as networks compute: float64 holds values that are infinite there.
        if value.is_floating_point() and not torch.isfinite(value.float()).all():
            raise ZooError(f"{origin}: tensor {name!r} holds NaN or infinite values")


def misfit(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """Says the first difference between the tensors of a file and those of a network; None without one."""
    for name, tensor in expected.items():
        if (given := tensors.get(name)) is None:
            return f"it lacks the tensor {name!r}"
        if given.shape != tensor.shape:
            shape = reprlib.repr(list(given.shape))
            return f"its tensor {name!r} has shape {shape}, the network's has {list(tensor.shape)}"
        if given.is_floating_point() != tensor.is_floating_point():
            return f"its tensor {name!r} is of type {given.dtype}, the network's is {tensor.dtype}"
    if more := sorted(tensors.keys() - expected.keys()):
        return f"the network has no tensor {reprlib.repr(more[0])}"
    return None


class WithoutMemory(TorchFunctionMode):
    """Inside this context, tensors that are made by their size have no memory, as on PyTorch's "meta" device.

    `torch.device("meta")` would also take the values of small constants, which constructors compute with.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _SIZED or kwargs.get("device") is not None:
            return func(*args, **kwargs)
        made = func(*args, **{k: v for k, v in kwargs.items() if k != "generator"} | {"device": "meta"})
        return self.made(made, func, args, kwargs)

    def made(self, made: Tensor, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Tensor:
        """Returns the tensor to go on with, given the one without memory."""
        short = func in _ROWS and made.dim() == 1 and made.numel() <= MOST
        return func(*args, **kwargs) if short else made


class WithinMemory(WithoutMemory):
    """Inside this context, all tensors that are made by their size may take, together, what the weights of the file
    allow that a network is built for; ZooError if it asks for more. Factors of scaling that are kept take the space of
    the weights, at most once for each time step."""

    def __init__(self, weights: Mapping[str, Tensor], timesteps: Any) -> None:
        super().__init__()
        steps = timesteps if isinstance(timesteps, int) else 1
        self.left = self.allowed = _MEMORY + 4 * (4 + steps) * sum(tensor.numel() for tensor in weights.values())

    def made(self, made: Tensor, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Tensor:
        self.left -= made.nbytes
        if self.left < 0:
            raise ZooError(f"it asks for a network that takes more than {self.allowed:,} bytes")
        return func(*args, **kwargs)
