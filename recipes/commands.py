"""The command lines of all of recipes: read and checked before PyTorch is loaded."""

import argparse
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from zoo.errors import CommandParser, ZooError, count, one_of
from zoo.files import check_writable, parse_yaml, user_path
from zoo.names import (
    BUILTIN,
    FORMS,
    OWN_DATASETS,
    PREFIX,
    check_dataset,
    check_name,
    check_size,
    check_source,
    is_path,
    keywords,
    sizes,
)
from zoo.plugins import add_plugin_option, load_plugin

from .recipe import RESULT, STATE, Recipe, add_keys, check_unused, list_recipes, parse_command_line, said_keys


def parse_train(argv: list[str] | None) -> Recipe:
    """Reads the command line of recipes.train."""
    recipe = parse_command_line(argv)
    for plugin in recipe.plugins:
        load_plugin(plugin)
    check_name(recipe.model)
    check_dataset(recipe.dataset, recipe.data_dir, download=recipe.download)
    if recipe.init and not (recipe.resume and (Path(recipe.out or "") / STATE).exists()):  # whose state has them
        _check_init(recipe.init)
    check_unused(recipe)
    tell_least(recipe)
    return recipe


def _check_init(init: str) -> None:
    stage = re.sub(r"-seed\d+$", "", Path(init).name)
    if is_path(init) and not user_path(init).exists() and stage in list_recipes():
        where = "`init` of a recipe is looked for from the root of a checkout"
        raise ZooError(f"no checkpoint at {init}: `snn-zoo train {stage}` trains it; {where}")
    check_source(init)


_LONG_HOURS = 3.0
_FASTEST = 1e11
"""Multiply-accumulates a second of a core, more than any that was measured: 5e10 in bfloat16 (AVX-512)."""
_SHORTER = (
    "`snn-zoo train sresnet19_w16_gs.t2_cifar10` takes under half an hour; recipes/stages/README.md of a checkout has "
    "the full networks in stages of hours each"
)
_IMAGES = {"cifar10": 50_000, "cifar100": 50_000, "digits": 1437}


def tell_least(recipe: Recipe) -> None:
    """Prints, before PyTorch is loaded, that a run will take long, where there seems to be no GPU: by the network's
    operations and the recipe's images, epochs and phases, if a table knows them."""
    if recipe.device != "cpu" and any(map(os.path.exists, ("/dev/nvidiactl", "/dev/dxg"))):  # dxg: in WSL
        return
    known = sizes().get(recipe.model.removesuffix("_gs"), {})
    images = recipe.train_images or _IMAGES.get(recipe.dataset, 0)
    phases = map(recipe.phase, range(recipe.epochs))
    stride = (recipe.model_args or {}).get("stem_stride", 1)
    shrunk = 32 * (stride if type(stride) is int and stride > 0 else 1)  # the network says what is wrong with others
    pixels = sum(phase.size**2 * phase.timesteps for phase in phases) / shrunk**2
    operations = 3 * known.get("dense_operations", 0) * images * pixels  # forward, and twice as many backward
    hours = operations / (_FASTEST * usable_cores()) / 3600
    if hours > _LONG_HOURS:
        length = f"{hours:.0f} hours" if hours < 72 else f"{hours / 24:.0f} days"
        text = f"This will take at least {length} on this CPU, by its operations"
        print(f"{text}. {_SHORTER}", file=sys.stderr, flush=True)


def usable_cores() -> int:
    """Returns how many cores this process may use: in a job of a cluster, fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Finetuning(NamedTuple):
    """What is fine-tuned, on what data set, and the keys of its recipe that were said."""

    source: str
    dataset: str
    said: dict[str, Any]


FINETUNING = {
    "optimizer": "muon", "momentum": 0.95, "weight_decay": 0.05, "warmup_epochs": 0.5, "schedule": "linear",
    "loss": "tet", "tet_lambda": 0.0, "label_smoothing": 0.1,
}  # fmt: skip
"""Keys of fine-tuning, as the small checkpoints were trained."""
_CHECKPOINT = "a run directory, the name of a pretrained model, or hf-hub:ORG/NAME"
_FINETUNE = """\
examples:
  snn-zoo finetune max_resnet18_w32_gs.t4_cifar10 flowers    pictures of any size as flowers/CLASS/*
  snn-zoo finetune sresnet19_w16.t2_cifar10 digits           a data set by name
  snn-zoo finetune runs/flowers more_flowers --epochs 20     from a run of your own

Of a folder DIR/CLASS/*, a tenth of each class is held out to validate every epoch, and another to test at the end,
always the same ones. DIR/train/CLASS/* with val/, test/ or both says itself what is what. Epochs, batch size and
learning rate follow from the number of images; every key of a recipe is an option, which goes before.
"""


def parse_finetune(argv: list[str] | None) -> Finetuning:
    """Reads the command line of recipes.finetune."""
    parser = CommandParser(
        prog="python -m recipes.finetune",
        usage="%(prog)s CHECKPOINT DATA [--key value ...]",
        description="Train a trained network further, on images of your own.",
        epilog=_FINETUNE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="CHECKPOINT", help=_CHECKPOINT)
    parser.add_argument("data", metavar="DATA", help=f"a folder of images, or one of {', '.join(BUILTIN)}")
    computed = dict.fromkeys(("epochs", "batch_size", "lr", "val_images"), "from the number of images")
    kept = dict.fromkeys(("model", "timesteps", "img_size", "slices"), "the checkpoint's")
    add_keys(parser, without=("dataset", "init"), usual=FINETUNING | computed | kept)
    given = vars(parser.parse_args(argv))
    source, data, said = given.pop("source"), given.pop("data"), said_keys(given)
    # Its values are checked, but for phases, which are of the checkpoint's size and of computed epochs.
    recipe = Recipe(**FINETUNING | {"dataset": data, "init": source, "out": "unknown"} | said | {"phases": None})
    for plugin in recipe.plugins:
        load_plugin(plugin)
    is_place = user_path(data).is_dir() or (os.path.sep in data and ":" not in data)
    dataset = f"{PREFIX}{data}" if is_place and data not in {*BUILTIN, *OWN_DATASETS} else data
    check_source(source)
    check_dataset(dataset, recipe.data_dir, download=recipe.download)
    if "out" in said:
        check_unused(recipe)
    return Finetuning(source, dataset, said)


def parse_validate(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line of recipes.validate."""
    parser = CommandParser(
        prog="python -m recipes.validate",
        description="Accuracy and spikes of a trained network on a whole test set.",
        epilog="example: python -m recipes.validate sresnet19_w16_gs.t2_cifar10 --dataset cifar10 --data-dir DATA_ROOT",
    )
    parser.add_argument("model", metavar="CHECKPOINT|MODEL", help=_CHECKPOINT)
    known = ", ".join([*BUILTIN, *FORMS])
    parser.add_argument("--dataset", required=True, help=f"{known}, or one that a plugin registers")
    parser.add_argument("--data-dir", help="folder with torchvision's CIFAR files (default: SNNZOO_DATA)")
    parser.add_argument("--limit", type=count, metavar="N", help="only the first N test images (default: all)")
    parser.add_argument("--batch-size", type=count, default=256, help="images at a time (default: 256)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="cuda where there is one")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the result here; it is printed otherwise")
    add_plugin_option(parser)
    a = parser.parse_args(argv)
    if a.json:
        check_writable(a.json)
    check_source(a.model)
    check_dataset(a.dataset, a.data_dir)
    return a


def parse_predict(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line of recipes.predict."""
    parser = CommandParser(
        prog="python -m recipes.predict",
        description="Labels and probabilities for image files of any size, prepared as the checkpoint says.",
        epilog="example: python -m recipes.predict runs/sresnet19_w16_gs.t2_cifar10-seed0 cat.png pictures/",
    )
    parser.add_argument("model", metavar="CHECKPOINT|MODEL", help=_CHECKPOINT)
    text = "image files, and folders of them; recordings, if the network takes event frames"
    parser.add_argument("images", metavar="IMAGE", nargs="+", help=text)
    text = "rows and columns of the camera of recordings (the network's)"
    parser.add_argument("--sensor", type=int, nargs=2, metavar=("H", "W"), help=text)
    parser.add_argument("--top", type=count, default=5, help="classes per image (default: 5)")
    parser.add_argument("--spikes", action="store_true", help="count spikes: of each image, in JSON by layer and step")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_plugin_option(parser)
    a = parser.parse_args(argv)
    check_source(a.model)
    _check_files(a.images)
    return a


def parse_compare(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line of recipes.compare."""
    parser = CommandParser(
        prog="python -m recipes.compare",
        description="Accuracy and spikes of several training runs, with differences to the first.",
        epilog="One run a side shows a direction at best: a claim needs several seeds (see leaderboard/README.md).",
    )
    parser.add_argument("results", metavar="RUN", nargs="+", help="run directories, or their result.json")
    a = parser.parse_args(argv)
    a.results = [os.path.join(path, RESULT) if user_path(path).is_dir() else path for path in a.results]
    _check_files(a.results)
    return a


def _check_files(paths: Iterable[str]) -> None:
    for path in paths:
        if not user_path(path).exists():
            raise ZooError(f"no such file: {path}")


PLANS = Path(__file__).resolve().parent / "studies" / "ablation" / "plans"
"""The folder of the project's plans, with their results beside them."""


def find_plan(plan: str) -> Path:
    """Returns the file of a plan; results name the project's plans by where they were once, recipes/ablations/.

    Raises:
        ZooError: a name, and no plan of the project has it.
    """
    path = user_path(plan)
    if not path.is_file() and path.parent in (Path(), Path("recipes/ablations")):
        ours = PLANS / path.with_suffix(".yaml").name
        if ours.is_file():
            return ours
        if not path.suffix:
            raise one_of("plan", path.name, sorted(file.stem for file in PLANS.glob("*.yaml")))
    return path


def parse_ablate(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line of recipes.ablate."""
    parser = CommandParser(
        prog="python -m recipes.ablate",
        description="Train every arm of a plan with every seed, and compare them pair by pair.",
        epilog="Results go to the folder beside the plan that has its name: one JSON file per run, README.md with the "
        "table, plot.svg. Start it again after an interruption: finished runs are kept, a started one goes on. "
        "example: python -m recipes.ablate cpu_screening --workers 2",
    )
    parser.add_argument("plan", metavar="PLAN", help="a YAML file, or the name of one in studies/ablation/plans")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="run these arms only; a plan may be done in parts")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="run these seeds only")
    parser.add_argument("--shard", metavar="I/N", help="of these runs, only every N-th from the I-th on, as 1/4")
    parser.add_argument(
        "--list", action="store_true", help="run none; say of each whether it is done, running, started, open"
    )
    text = "runs at a time, which share the cores (default: 1; with --ray, as many as there is room for)"
    parser.add_argument("--workers", type=count, help=text)
    text = "train on the nodes of a Ray cluster, 'auto' for the one that this machine is in (extra: ray)"
    parser.add_argument("--ray", metavar="ADDRESS", help=text)
    parser.add_argument("--work-dir", default="runs/ablations", help="where run directories go (default: %(default)s)")
    add_plugin_option(parser)
    options = parser.parse_args(argv)
    if options.workers is None:
        options.workers = sys.maxsize if options.ray else 1
    find_plan(options.plan)
    return options


HEALTH_EPOCHS = 4
"""The quarters that the loss of `recipes.health` is read in."""


def parse_health(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line of recipes.health."""
    parser = CommandParser(
        prog="python -m recipes.health",
        description="Train networks for a few hundred steps: does the loss fall, does every layer spike?",
        epilog="exit status 2 if one is not healthy. example: python -m recipes.health sresnet19_w16_gs --steps 100",
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="architectures (the small form of every family)")
    parser.add_argument("--steps", type=count, default=400, help="training steps, a multiple of 4 (400)")
    parser.add_argument("--batch", type=count, default=32, help="images per step (32)")
    parser.add_argument("--timesteps", type=count, default=2, help="time steps (2)")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate of AdamW (0.002)")
    parser.add_argument("--dataset", default="cifar10", help=f"{', '.join([*BUILTIN, *FORMS])} (cifar10)")
    parser.add_argument("--data-dir", help="folder with torchvision's CIFAR files; SNNZOO_DATA by default")
    parser.add_argument("--keep", action="store_true", help="write the measurements into studies/health/results")
    add_plugin_option(parser)
    a = parser.parse_args(argv)
    if a.steps % HEALTH_EPOCHS:
        raise ZooError(f"--steps must be a multiple of {HEALTH_EPOCHS}, not {a.steps}: the loss is read in quarters")
    for model in a.models:
        check_name(model)
    check_dataset(a.dataset, a.data_dir)
    return a


AGAINST = ["identity", "reference", "plain", "spikingjelly"]
"""What `recipes.bench` compares with."""


def parse_bench(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line of recipes.bench."""
    parser = CommandParser(
        prog="python -m recipes.bench",
        description="Time a training step (forward, loss, backward, optimiser, data on the device) or an inference.",
        epilog="SNNZOO_KERNEL=reference|fused|auto chooses the neurons' kernel as --kernel does.",
    )
    parser.add_argument("mode", choices=["step", "inference"], help="a training step, or the forward pass alone")
    parser.add_argument("--model", required=True, help="architecture, as in zoo.list_models()")
    parser.add_argument("--batch", type=count, default=32, metavar="N", help="images per step (32)")
    parser.add_argument("--timesteps", type=count, default=4, metavar="T", help="time steps (4)")
    parser.add_argument("--amp", choices=["off", "bf16", "fp16"], default="off", help="mixed precision (off)")
    parser.add_argument(
        "--against", choices=AGAINST, nargs="+", default=[],
        help="also time: identity (the floor: no neurons, every layout), reference (plain kernel), plain (no gradient "
        "scaling), spikingjelly (needs it installed; equality is checked first)",
    )  # fmt: skip
    text = "also time it with these rules of gradient scaling: names, or YAML as '{name: channel, rank: 1}', or none"
    parser.add_argument("--scaling", metavar="RULE", nargs="+", dest="forms", default=[], help=text)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="cuda where there is one")
    text = f"surrogate gradient, {', '.join(keywords()['surrogate'])} (triangle)"
    parser.add_argument("--surrogate", metavar="NAME", default="triangle", help=text)
    parser.add_argument(
        "--kernel", choices=["auto", "fused", "reference"], default="auto", help="which code runs the neurons"
    )
    parser.add_argument(
        "--layout", choices=["contiguous", "channels_last"], default="channels_last", help="memory layout"
    )
    parser.add_argument("--compile", action="store_true", help="run the model through torch.compile")
    parser.add_argument("--grad-checkpointing", action="store_true", help="trade time for memory, stage by stage")
    parser.add_argument("--img-size", type=int, metavar="S", help="pixels a side of the images (the network's)")
    parser.add_argument("--stem-stride", type=int, default=1, metavar="N", help="stride of the stem, 4 at 224 (1)")
    parser.add_argument("--runs", type=count, default=20, metavar="N", help="timed runs (20)")
    parser.add_argument("--warmup", type=count, default=3, metavar="N", help="runs before them (3)")
    parser.add_argument("--json", metavar="FILE", help="write the result here")
    add_plugin_option(parser)
    a = parser.parse_args(argv)
    if a.img_size is not None:
        check_size(a.img_size)
    if a.json:
        check_writable(a.json)
    check_name(a.model)
    if a.mode == "inference" and (a.forms or a.grad_checkpointing):
        raise ZooError("--scaling and --grad-checkpointing change a training step, not an inference: leave them out")
    a.forms = {text: parse_yaml(text, "--scaling") for text in a.forms}
    return a
