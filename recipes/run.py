"""A training run's directory: locked, its state saved and read back, gone on with, and stopped by a signal.

A state is everything that a resumed run needs, in one safetensors file that loads without pickle and carries a checksum
of all that it holds.
"""

import contextlib
import json
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Self

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from tqdm import tqdm

from zoo.checkpoint import CONFIG, WEIGHTS
from zoo.checkpoint.weights import digest
from zoo.errors import ZooError, one_line
from zoo.files import LOCK, atomic_write, dump_yaml, locked, open_regular, read_json
from zoo.names import dataset_name
from zoo.plugins import loaded_plugins, warn_of_changes

from .processes import wait_for_all
from .recipe import CHANGEABLE, DEFAULTS, PLACE, RECIPE, RESULT, STATE, Recipe, check_unused

LOG = "summary.csv"
BUSY = 75
"""Exit status where another process trains in the run directory."""
_TENSOR = "__tensor__"
_ORIGIN = ("commit", "versions", "machine")
# Ctrl-C; what `kill`, batch systems and container engines send first; a terminal that is closed.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def run_directory(out: Path) -> Iterator[None]:
    """Makes a run directory and keeps other trainings out of it; one in which nothing was written goes again.

    Raises:
        ZooError: another process trains there, or the directory cannot be made.
    """
    fresh = [path for path in (out, *out.parents) if not path.exists()]
    busy = f"another process trains in {out}: wait for it, or name another directory (--out)"
    with locked(out, ZooError(busy, BUSY)):  # ends with the process, however that ends
        try:
            yield
        finally:
            if fresh and os.listdir(out) == [LOCK]:
                (out / LOCK).unlink()
            for path in fresh:
                with contextlib.suppress(OSError):  # not empty
                    path.rmdir()


@dataclass
class RunState:
    """How far a training run is, and the parts that it trains: what --resume goes on from.

    All randomness of a step is seeded from (seed, rank, step), so `step` is the whole position.
    """

    about: dict[str, Any]  # what stays: recipe, origin, number of processes, data, initial weights, precision
    parts: dict[str, Any]  # model, optimizer, scaler, perhaps ema: whatever has a state_dict
    running: Tensor  # sums of loss and of accuracy over the steps of this epoch, and their number
    step: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)  # of summary.csv, one per epoch
    earlier: float = 0.0  # seconds of training before the last start of this run
    started: float = 0.0  # readings of the clock, as the next one
    saved_at: float = 0.0

    def start(self) -> None:
        """Starts the clock."""
        self.started = self.saved_at = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of training in all."""
        return self.earlier + time.perf_counter() - self.started

    def save(self, out: Path) -> None:
        """Writes everything to the run directory."""
        state = self.about | {"step": self.step, "rows": self.rows, "running": self.running, "seconds": self.seconds}
        state |= {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"scaling": self.parts["model"].scaling_state()}
        save_state(out / STATE, state)
        self.saved_at = time.perf_counter()

    def restore(self, saved: dict[str, Any]) -> None:
        """Goes on from what `save` wrote; factors of gradient scaling follow once the model is in its phase.

        Raises:
            ZooError: it is the state of another network or optimiser.
        """
        try:
            self.about["origin"] = saved["origin"]
            for name, part in self.parts.items():
                part.load_state_dict(saved[name])
            for parameter, kept in self.parts["optimizer"].state.items():
                for key, value in kept.items():  # in the parameter's layout, channels_last say, which a state has lost
                    if isinstance(value, Tensor) and value.dim() > 1 and value.shape == parameter.shape:
                        kept[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            self.running.copy_(saved["running"])
            self.step, self.rows, self.earlier = saved["step"], saved["rows"], saved["seconds"]
        except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
            raise ZooError(f"the training state does not fit this run: {one_line(error)}") from error


# -- states


def save_state(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Writes nested dicts and lists of tensors and JSON values to `path`, atomically."""
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_split(state, "", tensors))
    metadata = {"state": tree, "sha256": digest(tensors, tree.encode())}
    atomic_write(path, safetensors.torch.save(tensors, metadata=metadata))


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what `save_state` wrote, tensors on the CPU.

    Raises:
        ZooError: not such a file, or one that was cut short or changed.
    """
    with open_regular(path) as file:
        data = file.read()  # of one file, even if a run puts another in its place meanwhile
    try:
        tensors = safetensors.torch.load(data)
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        if metadata["sha256"] != digest(tensors, metadata["state"].encode()):
            raise ValueError("its checksum is another")
        state: dict[str, Any] = _join(json.loads(metadata["state"]), tensors)
    except (safetensors.SafetensorError, LookupError, ValueError, TypeError) as error:
        wrong = f"{path} is not a training state, or was cut short or changed ({one_line(error)})"
        raise ZooError(f"{wrong}: start anew without --resume, in another --out") from error
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


# -- going on


def state_to_resume(out: Path, recipe: Recipe, rank: int) -> dict[str, Any] | None:
    """Returns the state to go on from, None for a new run.

    Raises:
        ZooError: there is a run that is not to be resumed, or one of another recipe.
    """
    check_unused(recipe)
    if not (out / STATE).exists():
        if made := [name for name in (WEIGHTS, RESULT) if (out / name).exists()]:
            anew = f"name another directory (--out); --init {out} starts from its weights"
            raise ZooError(f"{out} holds a {made[0]} and no training state to go on from: {anew}")
        if rank == 0 and recipe.resume:
            print(f"nothing to resume in {out}: starting from the beginning", flush=True)
        return None
    saved = load_state(out / STATE)
    for key, value in recipe.model_dump().items():
        before = saved["recipe"].get(key, DEFAULTS[key])
        if key == "dataset" and dataset_name(before) == dataset_name(value):  # a folder may move
            continue
        if before != value and key not in PLACE | CHANGEABLE:
            raise ZooError(f"{out} was started with {key} = {before!r}, not {value!r}: cannot resume")
    return saved


def check_fits(saved: dict[str, Any], out: Path, about: dict[str, Any]) -> None:
    """Raises ZooError unless a state is of this number of processes and of these images."""
    if saved["world"] != about["world"]:
        raise ZooError(f"{out} was started with {saved['world']} process(es), not {about['world']}: cannot resume")
    if saved["data_sha256"] != about["data_sha256"]:
        data = dataset_name(about["recipe"]["dataset"])
        raise ZooError(f"{out} was started on other images of {data} than there are now: cannot resume")


def result_of_complete_run(out: Path, recipe: Recipe) -> dict[str, Any]:
    """Returns the result of a run that has ended; ZooError where it is asked for otherwise."""
    stored = read_json(out / CONFIG)["recipe"]
    for key, value in (("weights", recipe.weights), ("test_reads", recipe.test_reads)):
        if stored.get(key, value) != value:
            end = f"{out} is complete, with {key} = {stored[key]!r}, not {value!r}, and its test set is read"
            raise ZooError(f"{end}: name another directory (--out), or leave {key} as it is")
    print(f"nothing left to do in {out}: the run is complete", flush=True)
    return dict(read_json(out / RESULT))


def note_changes(before: dict[str, Any], now: dict[str, Any], out: Path, *, say: bool) -> None:
    """Adds to the origin of a run, as its state has it, what is another now: plugins, code, versions, machine."""
    known = before.get("plugins") or []
    warn_of_changes(known, str(out))
    later = [plugin for plugin in loaded_plugins() or [] if plugin not in known]
    before["plugins"] = [*known, *later] or None  # it was trained with both
    starts = [before, *before.get("resumed_with", [])]
    changed = [key for key in _ORIGIN if starts[-1].get(key) != now[key]]
    if not changed:
        return
    before["resumed_with"] = [*starts[1:], {key: now[key] for key in _ORIGIN}]
    if say:
        what = f"goes on with another {', another '.join(changed)} than before: perhaps not bit for bit the same run"
        print(f"{out} {what}; its result will say so (resumed_with)", file=sys.stderr)


def write_recipe(out: Path, recipe: Recipe, saved: dict[str, Any] | None) -> None:
    """Writes recipe.yaml for a new run, and where a key changes that may; the run says which."""
    before = {key: saved["recipe"][key] for key in sorted(CHANGEABLE)} if saved else {}
    changed = {key: value for key, value in before.items() if value != getattr(recipe, key)}
    for key, value in changed.items():
        print(f"{out} was started with {key} = {value!r}: from now on {getattr(recipe, key)!r}", file=sys.stderr)
    if changed or not saved:
        atomic_write(out / RECIPE, dump_yaml(recipe.model_dump()))


# -- stopping


class Interrupt:
    """Notes the first signal to stop while it is entered; of one process, a second one acts at once, as it would
    without this. Of several, torchrun kills what has not ended in 30 seconds.

    Args:
        rank, world: which of how many processes this is.
        out: the run directory, as whoever is to go on calls it.

    A signal that is ignored, as by nohup or a shell script's background jobs, stays so.
    """

    def __init__(self, rank: int = 0, world: int = 1, out: Path = Path()) -> None:
        self.noted: signal.Signals | None = None
        self._rank, self._alone, self._heard, self._out = rank, world == 1, False, out
        ours = threading.current_thread() is threading.main_thread()  # only there Python lets us
        self._signals = [number for number in _SIGNALS if ours and signal.getsignal(number) is not signal.SIG_IGN]
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, self._note) for number in self._signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    @property
    def stops(self) -> bool:
        """Whether the run is to end as soon as its state is saved; the same in all processes."""
        return self.noted is not None if self._alone else self._heard

    def hear(self, told: Tensor) -> None:
        """Learns whether another process was told to stop: where the mean over all of 1 for those that were, else 0,
        is above 0."""
        self._heard = not self._alone and told.item() > 0

    def obey(self, step: int) -> None:
        """Ends the run, if it was told to; to be called in all processes when the state of `step` is saved.

        Raises:
            SystemExit: with the status of a process that the signal ended.
        """
        if not self.stops:
            return
        wait_for_all()  # when the first one ends, torchrun ends the others, and one of them is saving
        if self._rank == 0:
            installed = getattr(sys.modules.get("__main__"), "__spec__", None) is None
            command = "snn-zoo train" if installed else "python -m recipes.train"
            go_on = shlex.join([*command.split(), "--resume", str(self._out)])
            alike = "" if self._alone else ", under torchrun with as many processes"
            tqdm.write(f"stopped after step {step}; --resume goes on from there{alike}: {go_on}", file=STANDARD_ERROR)
        raise SystemExit(128 + (self.noted or signal.SIGTERM))

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.noted is not None:
            return
        self.noted = signal.Signals(number)
        text = f"\n{self.noted.name}: this step is finished and saved first"
        if self._alone:
            self.__exit__()
            text += "; once more stops at once"
        if self._rank == 0:
            with contextlib.suppress(OSError):  # of a terminal that is gone
                os.write(2, f"{text}\n".encode())  # print may be what was interrupted


class StandardError:
    """sys.stderr, which a training outlives: its terminal may be closed, and what reads its log may end. Then nothing
    is written and nothing fails, now and at the end."""

    def write(self, text: str) -> int:
        """Writes as a file does, and flushes."""
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (for what Python itself would still write)
        return len(text)

    def flush(self) -> None:
        """Flushes as a file does."""
        self.write("")

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


STANDARD_ERROR = StandardError()
"""The one of a process: tqdm moves its bar out of the way of what is written to the same file."""
