"""The command lines of train, finetune, validate and predict: read and checked before PyTorch is loaded."""

import argparse
import os
from pathlib import Path
from typing import Any, NamedTuple

from zoo.errors import CommandParser, ZooError
from zoo.files import check_writable, user_path
from zoo.names import BUILTIN, FORMS, PREFIX, check_dataset, check_name, check_source
from zoo.plugins import add_plugin_option

from .estimate import tell_least
from .recipe import Recipe, add_keys, check_unused, parse_command_line, said_keys


def parse_train(argv: list[str] | None) -> Recipe:
    """Reads the command line of recipes.train."""
    recipe = parse_command_line(argv)
    if not recipe.plugins:  # which may register all three
        check_name(recipe.model)
        check_dataset(recipe.dataset, recipe.data_dir, download=recipe.download)
        if recipe.init:
            check_source(recipe.init)
    check_unused(recipe)
    tell_least(recipe)
    return recipe


class Finetuning(NamedTuple):
    """What is fine-tuned, on what data set, and the keys of its recipe that were said."""

    source: str
    dataset: str
    said: dict[str, Any]


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
    parser.add_argument("source", metavar="CHECKPOINT", help="a run directory, or the name of a pretrained model")
    parser.add_argument("data", metavar="DATA", help=f"a folder of images, or one of {', '.join(BUILTIN)}")
    add_keys(parser, without=("dataset", "init"))
    given = vars(parser.parse_args(argv))
    source, data, said = given.pop("source"), given.pop("data"), said_keys(given)
    is_place = user_path(data).is_dir() or (os.path.sep in data and ":" not in data)
    dataset = f"{PREFIX}{data}" if is_place else data
    # Its values are checked; what the checkpoint decides is completed when that is read.
    recipe = Recipe(**{"dataset": dataset, "init": source, "out": "unknown"} | said)
    if not recipe.plugins:
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
    parser.add_argument("model", metavar="CHECKPOINT|MODEL", help="a run directory, or the name of a pretrained model")
    known = ", ".join([*BUILTIN, *FORMS])
    parser.add_argument("--dataset", required=True, help=f"{known}, or one that a plugin registers")
    parser.add_argument("--data-dir", help="folder with torchvision's CIFAR files (default: SNNZOO_DATA)")
    parser.add_argument("--limit", type=int, default=0, help="only the first N test images (default: all)")
    parser.add_argument("--batch-size", type=int, default=256, help="images at a time (default: 256)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="cuda where there is one")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the result here; it is printed otherwise")
    add_plugin_option(parser)
    a = parser.parse_args(argv)
    if a.limit < 0 or a.batch_size < 1:
        raise ZooError(f"--limit must be 0 or more and --batch-size 1 or more, not {a.limit} and {a.batch_size}")
    if a.json:
        check_writable(a.json)
    check_source(a.model)
    if "plugin" not in a:
        check_dataset(a.dataset, a.data_dir)
    return a


def parse_predict(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line of recipes.predict."""
    parser = CommandParser(
        prog="python -m recipes.predict",
        description="Labels and probabilities for image files of any size, prepared as the checkpoint says.",
        epilog="example: python -m recipes.predict runs/sresnet19_w16_gs.t2_cifar10-seed0 cat.png pictures/",
    )
    parser.add_argument("model", metavar="CHECKPOINT|MODEL", help="a run directory, or the name of a pretrained model")
    text = "image files, and folders of them; recordings, if the network takes event frames"
    parser.add_argument("images", metavar="IMAGE", nargs="+", help=text)
    text = "rows and columns of the camera of recordings (the network's)"
    parser.add_argument("--sensor", type=int, nargs=2, metavar=("H", "W"), help=text)
    parser.add_argument("--top", type=int, default=5, help="classes per image (default: 5)")
    parser.add_argument("--spikes", action="store_true", help="count spikes: of each image, in JSON by layer and step")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_plugin_option(parser)
    a = parser.parse_args(argv)
    if a.top < 1:
        raise ZooError(f"--top must be 1 or more, not {a.top}")
    check_source(a.model)
    for path in a.images:
        if not user_path(path).exists():
            raise ZooError(f"no such file: {path}")
    return a
