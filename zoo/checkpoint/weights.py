"""A weights file that may come from anybody: what its header claims is read and bounded before its tensors are."""

import contextlib
import hashlib
import json
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ZooError
from ..files import open_regular, parse_json
from ..neurons import SpikingNeuron

# safetensors' names of the types that a checkpoint may have; others (float8 ...) could not be checked for NaN.
_FLOATS, _INTEGERS = ("F64", "F32", "F16", "BF16"), ("I64", "I32", "I16", "I8", "U8", "BOOL")
HALVES = ("F16", "BF16")
"""Types of the same size: nothing but a checksum tells one from the other."""
_HEADER_LIMIT = 4 * 2**20
_STARTS_OF_PICKLES = (b"\x80", b"PK")  # pickle's own, and torch.save's zip around one


def digest(tensors: Mapping[str, Tensor], start: bytes = b"") -> str:
    """The sha256 of `start` and of all that some tensors on whatever device hold, in any order of their names."""
    found = hashlib.sha256(start)
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def network_digest(model: nn.Module) -> str:
    """The sha256 of all that a network computes with: its tensors, and the settings of its neurons."""
    neurons = {name: m.spec_values() for name, m in model.named_modules() if isinstance(m, SpikingNeuron)}
    return digest(model.state_dict(), json.dumps(neurons, sort_keys=True).encode())


class Entry(NamedTuple):
    """What the header of a safetensors file says of one tensor."""

    dtype: str
    shape: tuple[int, ...]


def check_start(path: Path) -> int:
    """The length of the header of a safetensors file, from its first bytes alone.

    Raises:
        ZooError: a pickle, or a header that cannot be: longer than the file or than any network needs.
    """
    with open_regular(path) as file:
        start, size = file.read(9), os.fstat(file.fileno()).st_size
    length = int.from_bytes(start[:8], "little")
    if len(start) == 9 and 2 <= length <= min(size - 8, _HEADER_LIMIT) and start[8:] == b"{":
        return length
    # Only now: the length of a good header may start with such a byte, too.
    if start.startswith(_STARTS_OF_PICKLES):
        raise ZooError(f"{path} is a pickle, which can run code when loaded; only safetensors is read")
    raise ZooError(f"{path} is not a valid safetensors file: it states a header of {length:,} bytes")


def read_header(path: Path) -> dict[str, Entry]:
    """What a safetensors file says that it holds; reads no tensor.

    Raises:
        ZooError: see `check_start`; or the header is malformed, or holds a type that no network has.
    """
    length = check_start(path)
    with open_regular(path) as file:
        file.seek(8)
        text = file.read(length)
    try:
        header = parse_json(text, f"the header of {path}")
        header.pop("__metadata__", None)
        entries = {name: Entry(str(e["dtype"]), tuple(map(int, e["shape"]))) for name, e in header.items()}
    except ZooError as error:
        raise ZooError(f"{path} is not a valid safetensors file: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ZooError(f"{path} is not a valid safetensors file: {type(error).__name__} in its header") from error
    for name, entry in entries.items():
        if entry.dtype not in _FLOATS + _INTEGERS:
            what = f"tensor {reprlib.repr(name)} is of type {reprlib.repr(entry.dtype)}"
            raise ZooError(f"{path}: {what}, expected {', '.join(_FLOATS)}")
    return entries


def entries_of(tensors: Mapping[str, Tensor]) -> dict[str, Entry]:
    """What a header would say of some tensors, but for how many bits they have."""
    kinds = {True: "F32", False: "I64"}
    return {name: Entry(kinds[value.is_floating_point()], tuple(value.shape)) for name, value in tensors.items()}


def misfit(entries: Mapping[str, Entry], expected: Mapping[str, Tensor]) -> str | None:
    """The first difference between what a file holds and what a network needs, in words; None without one."""
    for name, tensor in expected.items():
        if name not in entries:
            return f"it lacks the tensor {name!r}"
        entry = entries[name]
        if entry.shape != tuple(tensor.shape):
            shape = reprlib.repr(list(entry.shape))
            return f"its tensor {name!r} has shape {shape}, the network's has {list(tensor.shape)}"
        if (entry.dtype in _FLOATS) != tensor.is_floating_point():
            return f"its tensor {name!r} is of type {entry.dtype}, the network's is {tensor.dtype}"
    for name in entries:
        if name not in expected:
            return f"the network has no tensor {reprlib.repr(name)}"
    return None


def starts_as_pickle(path: Path) -> bool:
    """Whether a file begins as a pickle does, whatever its name."""
    with contextlib.suppress(ZooError):
        check_start(path)  # the length of a good safetensors header may begin so, too
        return False
    with open_regular(path) as file:
        start = file.read(4)
    return start.startswith((b"PK\3\4", *(bytes([0x80, protocol]) for protocol in range(2, 6))))
