"""Does a network train, and do all of its neurons take part? `python -m recipes.health [MODEL ...]`.

One recipe for all: a few hundred steps of AdamW on real images. A network is healthy if its training loss falls, and if
no layer of neurons is silent, at the start or at the end. Firing rates are spikes per neuron and time step over
held-out images: at the start with the statistics of that batch, as a training step sees them, at the end in evaluation
mode.
"""

import argparse
import csv
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import zoo
from zoo.data import DataSet, load_dataset, normalisation, normalise, split
from zoo.errors import ZooError, run_command
from zoo.files import write_json
from zoo.network import SpikingNetwork
from zoo.provenance import provenance

from .commands import HEALTH_EPOCHS, parse_health
from .lineage import create
from .processes import pick_device
from .recipe import Recipe
from .train import seed, train

SILENT = 0.001
"""A layer with a lower firing rate is called silent."""
FALL = 0.02
"""The share by which the loss must fall: from the mean of the first quarter of the steps to that of the last."""
FOLDER = Path(__file__).resolve().parent / "studies" / "health" / "results"
HELD_OUT = 400
_SHOWN = 100  # images that rates are taken from


def examine(model: str, data: DataSet, a: argparse.Namespace) -> dict[str, Any]:
    """Trains an architecture for a few hundred steps, as a command line says, and looks at its layers.

    Args:
        data: what to train on; the held-out images are training images, too, unless it has validation images.

    Returns:
        A measurement, JSON values: the training loss of each quarter, top-1 of held-out images, and the firing rate of
        every layer of neurons at the start and at the end.

    Raises:
        ZooError: the loss is no number any more; see `recipes.train.train`.
    """
    held_out, images = 0, data.val_images
    if images is None:
        held_out, images = HELD_OUT, data.train_images[split(data, 0, HELD_OUT)[1]]
    with tempfile.TemporaryDirectory() as out:
        recipe = Recipe(
            model=model, dataset=a.dataset, data_dir=a.data_dir, timesteps=a.timesteps, epochs=HEALTH_EPOCHS,
            batch_size=a.batch, train_images=a.steps // HEALTH_EPOCHS * a.batch, val_images=held_out, test=False,
            optimizer="adamw", lr=a.lr, weight_decay=0.05, warmup_epochs=0.4, out=out,
        )  # fmt: skip
        seed(recipe.seed)
        fresh = create(recipe, data, {})  # the network that is trained below
        x = normalise(images[:_SHOWN], *normalisation(fresh, data.mean, data.std))
        start = firing_rates(fresh.train(), x)
        result = train(recipe)
        end = firing_rates(zoo.load_checkpoint(out), x)
        with open(Path(out) / "summary.csv", newline="") as log:
            loss = [float(row["train_loss"]) for row in csv.DictReader(log)]
    return {
        "schema": 1, "kind": "health", "model": model, "dataset": data.name, "timesteps": a.timesteps, "lr": a.lr,
        "steps": a.steps, "batch": a.batch, "train_loss": loss, "top1": result["top1"], "images": result["images"],
        "rates_start": start, "rates_end": end, "data_sha256": data.sha256,
    }  # fmt: skip


@torch.no_grad()
def firing_rates(model: SpikingNetwork, images: Tensor) -> dict[str, float]:
    """Returns spikes per neuron and time step of every layer of neurons, over normalised images [B, C, H, W]."""
    with zoo.SpikeCounter(model) as counter:
        model(images)
    return counter.firing_rates()


def faults(result: dict[str, Any]) -> list[str]:
    """Returns what is wrong with a network, by its measurement: nothing, if it is healthy."""
    found = []
    if not result["train_loss"][-1] <= (1 - FALL) * result["train_loss"][0]:
        found.append(f"the loss does not fall by {FALL:.0%} ({', '.join(f'{x:.3f}' for x in result['train_loss'])})")
    for when in ("start", "end"):
        silent = [layer for layer, rate in result[f"rates_{when}"].items() if rate < SILENT]
        if silent:
            found.append(f"silent at the {when}: {', '.join(silent)}")
    return found


def small_forms() -> list[str]:
    """Returns the smallest network with gradient scaling of every family."""
    smallest: dict[type, tuple[int, str]] = {}
    for name in zoo.list_models("*_gs"):
        with torch.device("meta"):
            model = zoo.create_model(name)
        size = sum(p.numel() for p in model.parameters()), name
        smallest[type(model)] = min(size, smallest.get(type(model), size))
    return sorted(name for _, name in smallest.values())


def run(a: argparse.Namespace) -> None:
    """Examines what a command line says."""
    models = a.models or small_forms()
    data = load_dataset(a.dataset, a.data_dir, timesteps=a.timesteps)
    origin, ill = provenance(gpu=pick_device("auto").type == "cuda"), []
    wanted = a.steps // HEALTH_EPOCHS * a.batch + (HELD_OUT if data.val_images is None else 0)
    if wanted > len(data.train_images):
        few = f"{data.name} has {len(data.train_images)} training images, {a.steps} steps of {a.batch} take {wanted}"
        raise ZooError(f"{few}: lower --steps or --batch")
    for model in tqdm(models, desc="networks", unit="network"):
        try:
            result = examine(model, data, a) | origin
        except ZooError as error:  # of this network: the others are examined all the same
            tqdm.write(f"{model}: {error}")
            ill.append(model)
            continue
        wrong = faults(result)
        ill += [model] if wrong else []
        loss = result["train_loss"]
        tqdm.write(f"{model}: loss {loss[0]:.3f} to {loss[-1]:.3f}; {'; '.join(wrong) or 'every layer spikes'}")
        if a.keep:
            write_json(FOLDER / f"{model}.json", result)
    if ill:
        raise ZooError(f"not healthy: {', '.join(ill)}")


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    run(parse_health(argv))


if __name__ == "__main__":
    run_command(main)
