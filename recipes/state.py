"""The training state: everything that a resumed run needs, in one safetensors file that loads without pickle."""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.files import atomic_write

_TENSOR = "__tensor__"


@dataclass
class RunState:
    """How far a training run is, and the parts that it trains: what --resume goes on from."""

    about: dict[str, Any]
    """What stays as it is: recipe, origin, number of processes."""
    parts: dict[str, Any]
    """model, optimizer, scaler, perhaps ema: whatever has a state_dict."""
    running: Tensor
    """Sums of loss and of accuracy over the steps of this epoch, and their number: of this process alone."""
    step: int = 0
    """All randomness of a step is seeded from (seed, rank, step), so this number is the whole position."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Of summary.csv, one per epoch."""
    earlier: float = 0.0
    """Seconds of training before the last start of this run."""
    started: float = 0.0
    saved_at: float = 0.0
    """Readings of the clock: when it was started, and last saved."""

    def start(self) -> None:
        """Start the clock."""
        self.started = self.saved_at = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Of training in all."""
        return self.earlier + time.perf_counter() - self.started

    def save(self, path: Path) -> None:
        """Write everything to `path`."""
        state = self.about | {"step": self.step, "rows": self.rows, "running": self.running, "seconds": self.seconds}
        state |= {name: part.state_dict() for name, part in self.parts.items()}
        save_state(path, state | {"scaling": self.parts["model"].scaling_state()})
        self.saved_at = time.perf_counter()

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from what `save` wrote; factors of gradient scaling follow once the model is in its phase."""
        self.about["origin"] = saved["origin"]
        for name, part in self.parts.items():
            part.load_state_dict(saved[name])
        self.step, self.rows, self.earlier = saved["step"], saved["rows"], saved["seconds"]
        self.running.copy_(saved["running"])


def save_state(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write nested dicts and lists of tensors and JSON values to `path`, atomically."""
    tensors: dict[str, Tensor] = {}
    tree = _split(state, "", tensors)
    atomic_write(path, safetensors.torch.save(tensors, metadata={"state": json.dumps(tree)}))


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `save_state` wrote, tensors on the CPU.

    Raises:
        ZooError: not such a file, or one that was cut short.
    """
    try:
        with safetensors.safe_open(Path(path), "pt") as file:
            tree = json.loads((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        return _join(tree, tensors)
    except (safetensors.SafetensorError, KeyError, OSError, json.JSONDecodeError) as error:
        hint = "start anew without --resume"
        raise ZooError(f"{path} is not a training state, or was cut short ({error}); {hint}") from error


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
