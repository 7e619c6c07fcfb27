"""What protects a long run and its owner: how long it will take, a stop where numbers are no longer finite, what to do
when memory runs out, and a start that fails leaves nothing behind."""

import contextlib
import copy
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from zoo.data import DataSet
from zoo.errors import ZooError, out_of_memory
from zoo.metrics import evaluate
from zoo.network import SpikingNetwork

from .config import RECIPE, Recipe, list_recipes
from .late import Late
from .occupied import alone_in
from .state import has_state

FLAGSHIP = "sresnet19_gs"
FLAGSHIP_STAGES = {
    "cifar10": [
        "sresnet19.t1_cifar10",
        "sresnet19.t1_cifar10_stage2",
        "sresnet19_gs.t4_cifar10_cycle1",
        "sresnet19.t1_cifar10_stage3",
        "sresnet19_gs.t4_cifar10",
    ],
    "cifar100": ["sresnet19.t1_cifar100", "sresnet19.t1_cifar100_stage2", "sresnet19_gs.t4_cifar100"],
}
"""From data set to the recipes that train the flagship on a CPU, in order."""
_LONG_HOURS = 3.0
# The part of a batch that an estimate is made from, and twice that.
_PART = 16
# A GPU is as slow with a small part of a batch: there it is half of it, and the whole.
_PART_ON_GPU = 2
_REPEATS = 5
_AT_A_TIME = 256
"""Images, of an evaluation."""
# Gradients of a loss scaled by less than float16's smallest normal number are infinite for another reason.
_SMALLEST_SCALE = 2.0**-14
STEPS_OF_AN_ESTIMATE = 2 * (1 + _REPEATS)
"""A run of no more steps is its own estimate."""


class FiniteGuard:
    """Stops a run at the first step whose loss, weights or gradients are not finite.

    A spiking network hides such numbers: NaN reaches no threshold, so the network falls silent and its loss stays
    finite. On a CPU a bad step changes no weight; on a GPU, which is not waited for, it is found one step later.

    Args:
        scaled: the gradients are of a loss that is scaled (float16), and may be infinite now and then.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, *, scaled: bool) -> None:
        self.model, self.recipe, self.scaled = model, recipe, scaled
        self._weights = [value for value in model.state_dict().values() if value.is_floating_point()]
        self._sums: list[tuple[int, Late]] = []  # of steps that nobody has looked at

    def watch(self, step: int, loss: Tensor, repeat: Callable[[], Any] | None) -> None:
        """Look at a step, after its backward pass and before the optimiser's.

        Args:
            step: its number, from 1.
            repeat: runs its forward pass again, to find the layer that is to blame; None where others would have to
                join in.

        Raises:
            ZooError: loss, weights or gradients are not finite.
        """
        grads = [] if self.scaled else [p.grad for p in self.model.parameters() if p.grad is not None]
        total = Late(get_total_norm([*self._weights, *grads, loss.detach()]))
        if not total.there:
            self._look(repeat)  # at the step before
        self._sums = [(step, total)]
        if total.there:
            self._look(repeat)

    def settle(self, step: int) -> None:
        """Look at what a step has left, before a state is saved: it is a good one.

        Raises:
            ZooError: see `watch`.
        """
        self._look(None)
        self._sums = [(step, Late(get_total_norm(self._weights)))]
        self._look(None)

    def watch_scale(self, step: int, scale: float, repeat: Callable[[], Any] | None) -> None:
        """Look at what a float16 run multiplies its loss with, halved at each step whose gradients are not finite.

        Raises:
            ZooError: it is that small only where no scale makes them finite.
        """
        if scale < _SMALLEST_SCALE:
            self._stop(step, repeat)

    def _look(self, repeat: Callable[[], Any] | None) -> None:
        for step, total in self._sums:
            if not math.isfinite(total.item()):
                self._stop(step, repeat)
        self._sums = []

    def _stop(self, step: int, repeat: Callable[[], Any] | None) -> NoReturn:
        text = f"step {step}: {blame(self.model, repeat)} is not finite. Start again with a lower lr (it is "
        text += f"{self.recipe.lr:g}) or with clip_grad (it is {self.recipe.clip_grad:g})"
        saved = has_state(Path(self.recipe.out or ""))
        raise ZooError(text + ("; the last training state that was saved is good" if saved else ""))


def blame(model: nn.Module, repeat: Callable[[], Any] | None) -> str:
    """The first of a network's weights, else of its layers' outputs, else of its gradients that is not finite."""
    for name, value in model.state_dict().items():
        if not torch.isfinite(value).all():
            return f"the weight {name}"
    found: list[str] = []
    handles = [
        module.register_forward_hook(
            lambda _, __, output, name=name: (
                found.append(name) if isinstance(output, Tensor) and not torch.isfinite(output).all() else None
            )
        )
        for name, module in model.named_modules()
        if name
    ]
    with contextlib.ExitStack() as stack, torch.no_grad():
        for handle in handles:
            stack.callback(handle.remove)
        if repeat is not None:
            repeat()
    if found:
        return f"the output of layer {found[0]}"
    # Backward comes from the end: the last layer is the first.
    bad = [n for n, p in model.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
    return f"the gradient of {bad[-1]}" if bad else "the loss"


def seconds_per_step(model: SpikingNetwork, run: Callable[[SpikingNetwork, int], Tensor], batch: int) -> float:
    """An estimate of forward and backward for `batch` images, from a sixteenth and an eighth of them; on a GPU, from
    all of them.

    Args:
        model: it stays as it is; a copy runs.
        run: the loss of a network for a number of images.
    """
    probe, cuda = copy.deepcopy(model), next(model.parameters()).is_cuda
    part = max(2, batch // (_PART_ON_GPU if cuda else _PART))
    # A rule of gradient scaling may sum over processes: then all of them run as often.
    alone = not dist.is_initialized()

    def once(images: int) -> float:
        begin = time.perf_counter()
        run(probe, images).backward()
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    def best(images: int) -> float:
        once(images)  # builds kernels and prepares memory
        times = [once(images)]
        while len(times) < _REPEATS and not (alone and sum(times) >= 1):  # on a busy machine a short one says little
            times.append(once(images))
        return min(times)

    small, large = best(part), best(2 * part)
    more = max(0, batch - 2 * part) / part
    # A line through both; between a cost that does not depend on the batch and one that is in proportion to it.
    return min(max(large + more * (large - small), large), large * batch / (2 * part))


def steps_left(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The steps from `step` (counted from 0) on, in units of that one, if a step costs pixels times time steps (in
    truth less: some of it costs the same in every phase)."""
    now, left = step // steps_per_epoch, recipe.epochs * steps_per_epoch - step
    cost = [phase.size**2 * phase.timesteps for phase in map(recipe.phase, range(now, recipe.epochs))]
    rest = sum(cost[1:]) * steps_per_epoch
    return (cost[0] * (left - (len(cost) - 1) * steps_per_epoch) + rest) / cost[0]


def tell_length(recipe: Recipe, device: torch.device, seconds: float) -> None:
    """Print how long a run will take, if it is more than a minute, and what else there is if it is hours on a CPU."""
    if seconds < 60:
        return
    hours, small = seconds / 3600, f"sresnet19_w16_gs.t2_{recipe.dataset}"
    length = f"{seconds / 60:.0f} minutes" if hours < 2 else f"{hours:.0f} hours" if hours < 72 else None
    text = f"This will take about {length or f'{hours / 24:.0f} days'}"
    stages = FLAGSHIP_STAGES.get(recipe.dataset, [])
    is_stage = f"{recipe.model}.{recipe.tag}" in stages and (recipe.init or recipe.timesteps == 1)
    if device.type == "cpu" and hours > _LONG_HOURS and not is_stage:
        text += " on this CPU: it is made for a GPU."
        if small in list_recipes():
            text += " A small alternative, in under half an hour: stop with Ctrl-C, then `python -m recipes.train "
            text += f"{small}` (0.2 M parameters, T = 2, 5 epochs)."
        if stages and recipe.model == FLAGSHIP:
            commands = ", then ".join(f"`python -m recipes.train {stage}`" for stage in stages)
            text += f" The same network in stages of hours each: {commands}."
    print(f"{text.removesuffix('.')} (estimated from a small part of one step).", flush=True)


def measured(
    model: SpikingNetwork, images: Tensor, labels: Tensor, data: DataSet, *, progress: str = "evaluate"
) -> dict[str, Any]:
    """What `zoo.metrics.evaluate` gives, with fewer images at a time where they do not fit: larger ones, many steps."""
    size = _AT_A_TIME
    while True:
        try:
            return evaluate(model, images, labels, data.mean, data.std, batch_size=size, progress=progress)
        except (RuntimeError, MemoryError) as error:
            if size == 1 or (problem := out_of_memory(error)) is None:
                raise
        size //= 2
        print(f"{problem}: {progress} with {size} images at a time", file=sys.stderr)


@contextlib.contextmanager
def memory_named(recipe: Recipe) -> Iterator[None]:
    """Say of a step that runs out of memory what makes it smaller."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if (problem := out_of_memory(error)) is None:
            raise
        advice = "lower batch_size" if recipe.grad_checkpointing else "set grad_checkpointing, or lower batch_size"
        raise ZooError(f"{problem}: {advice} (it is {recipe.batch_size})") from error


@contextlib.contextmanager
def run_directory(out: Path) -> Iterator[None]:
    """Make a run directory and keep others out, see `alone_in`; a start that fails leaves nothing there."""
    fresh = [path for path in (out, *out.parents) if not path.exists()]
    with alone_in(out), _no_trace(out, fresh):  # in this order: what is taken back is still ours
        yield


@contextlib.contextmanager
def _no_trace(out: Path, fresh: list[Path]) -> Iterator[None]:
    """Take back what a run has written into `out` if it ends before its first training state is saved."""
    ours = [file for name in (RECIPE, "summary.csv") if not (file := out / name).exists()]
    try:
        yield
    except BaseException:
        if not has_state(out):
            if out in fresh:
                shutil.rmtree(out, ignore_errors=True)
            for file in ours:
                file.unlink(missing_ok=True)
            for path in fresh[1:]:
                with contextlib.suppress(OSError):
                    path.rmdir()
        raise
