"""How long a run will take, told at its start and after its first steps, and what else there is if that is hours."""

import os
import sys

from zoo.names import sizes

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
_FASTEST = 1e11
"""Multiply-accumulates a second of a core, more than any that was measured: 5e10 in bfloat16 (AVX-512)."""
_IMAGES = {"cifar10": 50_000, "cifar100": 50_000, "digits": 1437}


def steps_left(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Returns the steps from `step` (counted from 0) on, in units of that one, if a step costs pixels times time steps
    (in truth less: some of it costs the same in every phase)."""
    now, left = step // steps_per_epoch, recipe.epochs * steps_per_epoch - step
    cost = [phase.size**2 * phase.timesteps for phase in map(recipe.phase, range(now, recipe.epochs))]
    rest = sum(cost[1:]) * steps_per_epoch
    return (cost[0] * (left - (len(cost) - 1) * steps_per_epoch) + rest) / cost[0]


def least_hours(recipe: Recipe) -> float:
    """Returns the hours that this machine's CPU needs at least, by the network's operations and the recipe's images,
    epochs and phases; 0 where a table does not know them."""
    known = sizes().get(recipe.model.removesuffix("_gs"), {})
    images = recipe.train_images or _IMAGES.get(recipe.dataset, 0)
    phases = [recipe.phase(epoch) for epoch in range(recipe.epochs)]
    pixels = sum(phase.size**2 * phase.timesteps for phase in phases) / 32**2
    operations = 3 * known.get("dense_operations", 0) * images * pixels  # forward, and twice as many backward
    return operations / (_FASTEST * (os.cpu_count() or 1)) / 3600


def tell_least(recipe: Recipe) -> None:
    """Prints, before PyTorch is loaded, that a run will take long, where there seems to be no GPU."""
    has_gpu = recipe.device != "cpu" and os.path.exists("/dev/nvidiactl")
    if not has_gpu and (hours := least_hours(recipe)) > _LONG_HOURS:
        text = f"This will take at least {_length(hours)} on this CPU, by its operations"
        print(f"{text}.{_alternatives(recipe)}", file=sys.stderr, flush=True)


def tell_length(recipe: Recipe, device: str, seconds: float) -> None:
    """Prints how long a run will take, if it is more than a minute, and what else there is if it is hours on a CPU."""
    from tqdm import tqdm

    from .run import StandardError  # which takes PyTorch

    if seconds < 60:
        return
    text = f"This will take about {_length(seconds / 3600)}"
    if device == "cpu" and seconds / 3600 > _LONG_HOURS and (other := _alternatives(recipe)):
        text += f" on this CPU.{other}"
    tqdm.write(f"{text.removesuffix('.')} (estimated from its first steps).", file=StandardError())


def _length(hours: float) -> str:
    return (
        f"{60 * hours:.0f} minutes" if hours < 2 else f"{hours:.0f} hours" if hours < 72 else f"{hours / 24:.0f} days"
    )


def _alternatives(recipe: Recipe) -> str:
    """Returns sentences about what takes less long; "" for a stage, which is made for a CPU."""
    stages = FLAGSHIP_STAGES.get(recipe.dataset, [])
    if f"{recipe.model}.{recipe.tag}" in stages and (recipe.init or recipe.timesteps == 1):
        return ""
    text, small = " It is made for a GPU.", f"sresnet19_w16_gs.t2_{recipe.dataset}"
    if small in list_recipes():
        text += " A small alternative, in under half an hour: stop with Ctrl-C, then `python -m recipes.train "
        text += f"{small}` (0.2 M parameters, T = 2, 5 epochs)."
    if stages and recipe.model == FLAGSHIP:
        commands = ", then ".join(f"`python -m recipes.train {stage}`" for stage in stages)
        text += f" The same network in stages of hours each: {commands}."
    return text
