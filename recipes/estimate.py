"""How long a run will take, told after its first steps, and what else there is if that is hours on a CPU."""

from tqdm import tqdm

from .recipe import Recipe, list_recipes
from .run import StandardError

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


def steps_left(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Returns the steps from `step` (counted from 0) on, in units of that one, if a step costs pixels times time steps
    (in truth less: some of it costs the same in every phase)."""
    now, left = step // steps_per_epoch, recipe.epochs * steps_per_epoch - step
    cost = [phase.size**2 * phase.timesteps for phase in map(recipe.phase, range(now, recipe.epochs))]
    rest = sum(cost[1:]) * steps_per_epoch
    return (cost[0] * (left - (len(cost) - 1) * steps_per_epoch) + rest) / cost[0]


def tell_length(recipe: Recipe, device: str, seconds: float) -> None:
    """Prints how long a run will take, if it is more than a minute, and what else there is if it is hours on a CPU."""
    if seconds < 60:
        return
    hours, small = seconds / 3600, f"sresnet19_w16_gs.t2_{recipe.dataset}"
    length = f"{seconds / 60:.0f} minutes" if hours < 2 else f"{hours:.0f} hours" if hours < 72 else None
    text = f"This will take about {length or f'{hours / 24:.0f} days'}"
    stages = FLAGSHIP_STAGES.get(recipe.dataset, [])
    is_stage = f"{recipe.model}.{recipe.tag}" in stages and (recipe.init or recipe.timesteps == 1)
    if device == "cpu" and hours > _LONG_HOURS and not is_stage:
        text += " on this CPU: it is made for a GPU."
        if small in list_recipes():
            text += " A small alternative, in under half an hour: stop with Ctrl-C, then `python -m recipes.train "
            text += f"{small}` (0.2 M parameters, T = 2, 5 epochs)."
        if stages and recipe.model == FLAGSHIP:
            commands = ", then ".join(f"`python -m recipes.train {stage}`" for stage in stages)
            text += f" The same network in stages of hours each: {commands}."
    tqdm.write(f"{text.removesuffix('.')} (estimated from its first steps).", file=StandardError())
