"""How long a run will take, told before its first step, and what else there is if that is hours on a CPU."""

import copy
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from zoo.network import SpikingNetwork

from .recipe import Recipe, list_recipes

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
STEPS_OF_AN_ESTIMATE = 2 * (1 + _REPEATS)
"""A run of no more steps is its own estimate."""


def seconds_per_step(model: SpikingNetwork, run: Callable[[SpikingNetwork, int], Tensor], batch: int) -> float:
    """Estimates forward and backward for `batch` images, from a sixteenth and an eighth of them; on a GPU, from all.

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
    """Returns the steps from `step` (counted from 0) on, in units of that one, if a step costs pixels times time steps
    (in truth less: some of it costs the same in every phase)."""
    now, left = step // steps_per_epoch, recipe.epochs * steps_per_epoch - step
    cost = [phase.size**2 * phase.timesteps for phase in map(recipe.phase, range(now, recipe.epochs))]
    rest = sum(cost[1:]) * steps_per_epoch
    return (cost[0] * (left - (len(cost) - 1) * steps_per_epoch) + rest) / cost[0]


def tell_length(recipe: Recipe, device: torch.device, seconds: float) -> None:
    """Prints how long a run will take, if it is more than a minute, and what else there is if it is hours on a CPU."""
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
