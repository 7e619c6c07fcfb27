"""The training state: everything that a resumed run needs, in one safetensors file that loads without pickle.

A state carries a checksum of all that it holds. The one before it is kept beside it: a run whose last state is damaged
goes on from there, to the same end.
"""

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from zoo.checkpoint.weights import digest
from zoo.errors import ZooError, one_line
from zoo.files import atomic_write, open_regular, parse_json

STATE, BEFORE = "state.safetensors", "state.before.safetensors"
"""The last state of a run directory, and the one before it."""
_TENSOR = "__tensor__"
# What each state holds, and what it is.
_KINDS: dict[str, Any] = {
    "recipe": dict, "origin": dict, "world": int, "step": int, "rows": list, "running": Tensor, "seconds": float,
    "scaling": dict, "model": dict, "optimizer": dict, "scaler": dict,
}  # fmt: skip


@dataclass
class RunState:
    """How far a training run is, and the parts that it trains: what --resume goes on from."""

    about: dict[str, Any]
    """What stays as it is: recipe, origin, number of processes."""
    parts: dict[str, Any]
    """model, optimizer, scaler, perhaps ema: whatever has a state_dict."""
    running: Tensor
    """Sums of loss and of accuracy over the steps of this epoch, and their number."""
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

    def save(self, out: Path) -> None:
        """Write everything to the run directory."""
        state = self.about | {"step": self.step, "rows": self.rows, "running": self.running, "seconds": self.seconds}
        state |= {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"scaling": self.parts["model"].scaling_state()}
        save_state(out / STATE, state, keep=out / BEFORE)
        self.saved_at = time.perf_counter()

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from what `save` wrote; factors of gradient scaling follow once the model is in its phase.

        Raises:
            ZooError: it is the state of another network or optimiser.
        """
        self.about["origin"] = saved["origin"]
        try:
            for name, part in self.parts.items():
                part.load_state_dict(saved[name])
            _lay_out(self.parts["optimizer"])
            self.running.copy_(saved["running"])
        except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
            raise ZooError(f"the training state does not fit this run: {one_line(error)}") from error
        self.step, self.rows, self.earlier = saved["step"], saved["rows"], saved["seconds"]


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Keep what an optimiser has of each parameter in that one's layout, channels_last say: a state has lost it, and
    arithmetic over two layouts is slow."""
    for parameter, kept in optimizer.state.items():
        for key, value in kept.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                kept[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def has_state(out: Path) -> bool:
    """Whether a run directory holds a state to go on from."""
    return (out / STATE).exists() or (out / BEFORE).exists()


def last_state(out: Path, rank: int = 0) -> dict[str, Any]:
    """The last state of a run directory that is whole; says so where that is the one before the last.

    Raises:
        ZooError: there is none.
    """
    try:
        return _read(out / STATE)
    except ZooError as error:
        if not (out / BEFORE).exists():
            raise ZooError(
                f"{error}; there is no state before it: start anew without --resume, in another --out"
            ) from error
        try:
            before = _read(out / BEFORE)
        except ZooError as other:
            raise ZooError(f"{error}; so is the one before it: {other}") from other
        if rank == 0:
            print(f"{error}; going on from the state before it, of step {before['step']}", file=sys.stderr)
        return before


def _read(path: Path) -> dict[str, Any]:
    state = load_state(path)
    for key, kind in _KINDS.items():
        if not isinstance(state.get(key), kind):
            raise ZooError(f"{path} is not the state of a training run: {key!r} is missing or of another kind")
    return state


def save_state(path: str | os.PathLike[str], state: dict[str, Any], keep: Path | None = None) -> None:
    """Write nested dicts and lists of tensors and JSON values to `path`, atomically; what was there goes to `keep`."""
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_split(state, "", tensors))
    metadata = {"state": tree, "sha256": digest(tensors, tree.encode())}
    atomic_write(path, safetensors.torch.save(tensors, metadata=metadata), keep)


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `save_state` wrote, tensors on the CPU.

    Raises:
        ZooError: not such a file, or one that was cut short or changed.
    """
    try:
        with open_regular(path) as file:
            data = file.read()  # of one file, even if a run puts another in its place meanwhile
        tensors = safetensors.torch.load(data)
        header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")], "its header")
        metadata = header.get("__metadata__", {})
        if metadata.keys() != {"state"}:  # as states were before they had a checksum
            if metadata.keys() != {"state", "sha256"}:
                raise ValueError(f"its header holds {sorted(metadata)}")
            if metadata["sha256"] != digest(tensors, metadata["state"].encode()):
                raise ValueError("its checksum is another")
        state: dict[str, Any] = _join(parse_json(metadata["state"], "its header"), tensors)
        if not isinstance(state, dict):
            raise ValueError("its header holds no mapping")
    except (safetensors.SafetensorError, LookupError, OSError, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, ZooError) and not os.path.isfile(path):
            raise
        raise ZooError(f"{path} is not a training state, or was cut short or changed ({one_line(error)})") from error
    return state


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
