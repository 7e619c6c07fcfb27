"""The training state: everything that a resumed run needs, in one safetensors file that loads without pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.files import atomic_write

_TENSOR = "__tensor__"


def save_state(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write nested dicts and lists of tensors and JSON values to `path`, atomically."""
    tensors: dict[str, Tensor] = {}
    skeleton = _split(state, "", tensors)
    atomic_write(path, safetensors.torch.save(tensors, metadata={"state": json.dumps(skeleton)}))


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `save_state` wrote, tensors on the CPU.

    Raises:
        ZooError: not such a file, or one that was cut short.
    """
    try:
        with safetensors.safe_open(Path(path), "pt") as file:
            skeleton = json.loads((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        return _join(skeleton, tensors)
    except (safetensors.SafetensorError, KeyError, OSError, json.JSONDecodeError) as error:
        raise ZooError(
            f"{path} is not a training state, or was cut short ({error}); start anew without --resume"
        ) from error


def _split(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()  # safetensors refuses shared memory
        return {_TENSOR: name}
    if isinstance(value, dict):
        # An optimiser keys its state by number; JSON keys are text. Pairs keep the type.
        return {"__dict__": [[key, _split(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_split(item, f"{name}/{i}", tensors) for i, item in enumerate(value)]
    return value


def _join(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if _TENSOR in value:
            return tensors[value[_TENSOR]]
        return {key: _join(item, tensors) for key, item in value["__dict__"]}
    if isinstance(value, list):
        return [_join(item, tensors) for item in value]
    return value
