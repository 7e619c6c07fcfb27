"""Train with the recipe of a model for a data set: `python -m recipes.start cifar10 [--model NAME] [--key value ...]`.

Picks the recipe, says which, and becomes `python -m recipes.train RECIPE ...`, through torchrun if NPROC says so.
"""

import os
import sys
from difflib import get_close_matches

from zoo.errors import CommandParser, ZooError, one_of, run_command
from zoo.names import check_name, plain_name

from .commands import usable_cores
from .recipe import list_recipes, load_recipe


def pick(model: str, dataset: str) -> list[str]:
    """Returns the recipes for a model or its twin (with gradient scaling where the model has none), the best first.

    A whole training is better than one that goes on from other weights, or a stage, which reads no test set; many time
    steps are better than few, and the model's own recipe is better than its twin's. One that is not named after its
    model is for many.

    Raises:
        ZooError: there is none.
    """
    recipes = {name: load_recipe(name) for name in list_recipes()}
    there = {name: recipe for name, recipe in recipes.items() if recipe.dataset == dataset}
    if not there:
        raise one_of("data set with recipes", dataset, sorted({recipe.dataset for recipe in recipes.values()}))
    own = {name: recipe for name, recipe in there.items() if name.startswith(f"{recipe.model}.")}
    fitting = [name for name, recipe in own.items() if plain_name(recipe.model) == plain_name(model)]
    whole = {name: recipe for name, recipe in own.items() if not recipe.init and recipe.test}
    if not whole.keys() & fitting:
        for_many = sorted(there.keys() - own.keys())
        near = get_close_matches(model, [recipe.model for recipe in whole.values()], n=1, cutoff=0)
        name = for_many[0] if for_many else pick(near[0], dataset)[0]
        recipe = there[name]
        of_its_own = f"--model {model}" + (" --model-args null" if recipe.model_args else "")
        of_its_own += " --scaling model" if recipe.scaling != "model" else ""
        what = "is for many" if for_many else "is the nearest"
        facts = f"{recipe.epochs} epochs, T = {recipe.timesteps}, {recipe.optimizer}, lr {recipe.lr:g}"
        none = f"no recipe trains {model} on {dataset} from the beginning"
        if fitting:
            none += f" ({', '.join(sorted(fitting))}: from other weights, or a stage alone)"
        raise ZooError(
            f"{none}. {name} {what} ({facts}): python -m recipes.train {name} "
            f"{of_its_own} takes it as it is; --epochs, --timesteps, --optimizer and --lr change it"
        )
    return sorted(fitting, key=lambda n: (n not in whole, -there[n].timesteps, there[n].model != model))


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = CommandParser(prog="python -m recipes.start", add_help=False)  # --help is that of recipes.train
    parser.add_argument("dataset")
    parser.add_argument("--model", default="sresnet19_gs")
    options, others = parser.parse_known_args(argv)
    if not any(word.startswith("--plugin") for word in others):  # which may register the model
        check_name(options.model)
    if "." in options.model:
        architecture, _, tag = options.model.partition(".")
        raise ZooError(f"--model takes an architecture, {architecture}, not its checkpoint {tag}")
    recipe, *more = pick(options.model, options.dataset)
    print(f"recipe: {recipe}" + (f" (there is also {', '.join(more)})" if more else ""), flush=True)
    count = os.environ.get("NPROC") or "1"
    if not count.isdecimal() or int(count) < 1:
        raise ZooError(f"NPROC must be a number of processes, not {count!r}")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count] if int(count) > 1 else []
    if launch:  # torchrun's own default is one thread for each process
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // int(count))))
    arguments = [recipe, "--model", options.model]
    if load_recipe(recipe).model != options.model:  # its twin's, whose scaling is not this one's
        arguments += ["--scaling", "model"]
    arguments += others
    os.execv(sys.executable, [sys.executable, *launch, "-m", "recipes.train", *arguments])


if __name__ == "__main__":
    run_command(main)
