"""Fine-tune a trained network to images of your own: `python -m recipes.finetune CHECKPOINT DATA [--key value ...]`."""

import math
import os
from shlex import quote
from typing import Any

from zoo.data import dataset_name, load_dataset
from zoo.data.folder import TRAIN, files_by_part
from zoo.data.images import data_form, square_side
from zoo.errors import ZooError, run_command
from zoo.load import find_checkpoint
from zoo.names import OWN_DATASETS, PREFIX

from .commands import FINETUNING, Finetuning, parse_finetune
from .recipe import Recipe, check_unused
from .train import train

_BATCHES = ((500, 16), (5000, 32), (20_000, 64), (math.inf, 128))
"""Training images below which a batch has so many of them."""
_LR = 0.02
"""Of batches of 128; it grows with the root of their size."""


def recipe_for(source: str, dataset: str, said: dict[str, Any]) -> Recipe:
    """Returns the recipe that fine-tunes a checkpoint: time steps, size of images and how recordings are cut are the
    checkpoint's; a batch has 16 to 128 images, and there are about 200 steps, and one more for each 50 images; a tenth
    of the training images is held out where the data have none for validation and `train_images` is not said.

    Args:
        source: the checkpoint, see `zoo.load`.
        dataset: see `zoo.load_dataset`.
        said: keys that are to be as they are here.

    Raises:
        ZooError: there is no such checkpoint or data, or too few images.
    """
    config = find_checkpoint(source).config
    if said.get("optimizer", "muon") != "muon" and not said.keys() >= {"lr", "weight_decay"}:
        needs = f"--optimizer {said['optimizer']} needs --lr and --weight-decay"
        raise ZooError(f"{needs}: those of fine-tuning are Muon's")
    keys: dict[str, Any] = FINETUNING | {"model": config["architecture"], "init": source, "dataset": dataset}
    keys["timesteps"] = config["model_args"]["timesteps"]
    form = data_form(config["pretrained_cfg"], config["model_args"], config.get("recipe"))
    if "slices" in form:
        _, height, width = form["input_size"]
        brought = height == width and dataset not in OWN_DATASETS  # whose frames have the size that they have
        keys |= {"slices": form["slices"], "img_size": height if brought else None}
    else:
        keys["img_size"] = square_side(form)
    if dataset.startswith(PREFIX):
        parts = files_by_part(dataset.removeprefix(PREFIX))
        images, validates = sum(map(len, parts[TRAIN].values())), len(parts) == 3
    else:
        data = load_dataset(**Recipe(**keys | said | {"phases": None}).data)
        images, validates = len(data.train_images), data.val_images is not None
    if not validates and not said.get("train_images"):
        keys["val_images"] = max(1, images // 10)
    images = said.get("train_images") or images - said.get("val_images", keys.get("val_images", 0))
    if images < 2:
        raise ZooError(f"{dataset} leaves {images} image(s) to train on: at least two are needed")
    most = images - images % 2  # as mixing takes pairs
    batch = said.get("batch_size") or min(most, next(size for below, size in _BATCHES if images < below))
    epochs = math.ceil((200 + images // 50) / max(1, images // batch))
    return Recipe(**keys | {"batch_size": batch, "epochs": epochs, "lr": _LR * math.sqrt(batch / 128)} | said)


def run(asked: Finetuning) -> None:
    """Fine-tunes as a command line says."""
    recipe = recipe_for(*asked)
    check_unused(recipe)
    train(recipe)
    if os.environ.get("RANK", "0") != "0":
        return
    out, name, data = map(quote, (str(recipe.out), f"{dataset_name(recipe.dataset)}.onnx", recipe.dataset))
    plugins = "".join(f" --plugin {quote(file)}" for file in recipe.plugins)
    data += f" --data-dir {quote(recipe.data_dir)}" if recipe.data_dir else ""
    print(f"next: snn-zoo predict {out} FILE ...{plugins}")
    print(f"      snn-zoo export {out} -o {name} --data {data}{plugins}")


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    run(parse_finetune(argv))


if __name__ == "__main__":
    run_command(main)
