"""How long a run will take at least, told at its start, and what else there is if that is hours."""

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


def tell_least(recipe: Recipe) -> None:
    """Prints, before PyTorch is loaded, that a run will take long, where there seems to be no GPU: by the network's
    operations and the recipe's images, epochs and phases, if a table knows them."""
    if recipe.device != "cpu" and os.path.exists("/dev/nvidiactl"):
        return
    known = sizes().get(recipe.model.removesuffix("_gs"), {})
    images = recipe.train_images or _IMAGES.get(recipe.dataset, 0)
    phases = map(recipe.phase, range(recipe.epochs))
    pixels = sum(phase.size**2 * phase.timesteps for phase in phases) / 32**2
    operations = 3 * known.get("dense_operations", 0) * images * pixels  # forward, and twice as many backward
    hours = operations / (_FASTEST * (os.cpu_count() or 1)) / 3600
    if hours > _LONG_HOURS:
        length = f"{hours:.0f} hours" if hours < 72 else f"{hours / 24:.0f} days"
        text = f"This will take at least {length} on this CPU, by its operations"
        print(f"{text}.{_alternatives(recipe)}", file=sys.stderr, flush=True)


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
