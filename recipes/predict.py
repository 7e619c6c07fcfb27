"""Classify image files: `python -m recipes.predict CHECKPOINT IMAGE...`."""

import argparse
import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import zoo
from zoo.data import normalisation, normalise
from zoo.data.event_sets import image_events
from zoo.data.events import SUFFIXES as RECORDINGS
from zoo.data.events import read_events, to_frames
from zoo.data.images import SUFFIXES, Preparation, data_form, files_at
from zoo.errors import ZooError, run_command, shown
from zoo.metrics.evaluation import check_classes, evaluation_mode, without_tf32
from zoo.metrics.spikes import Counter, once
from zoo.names import I2E
from zoo.network import SpikingNetwork
from zoo.neurons import SpikingNeuron

from .commands import parse_predict

# Images in memory at a time.
_BATCH = 64


class _SpikesOfEach(Counter):
    """Counts the spikes of each image of the last batch: from a layer to [T, B]."""

    def _hooks(self) -> Iterator[Any]:
        self.counts: dict[str, Tensor] = {}
        for name, layer in self.neurons.items():
            yield layer.register_forward_hook(once(partial(self._count, name)))

    def _count(self, name: str, layer: SpikingNeuron, _: Any, spikes: Tensor) -> None:
        each = spikes.sum(tuple(range(1, spikes.dim())), dtype=torch.float32)
        self.counts[name] = each.view(layer.timesteps, -1).cpu()


@torch.no_grad()
def predict(
    model: SpikingNetwork, paths: str | Path | Iterable[str | Path], *, top: int = 5, spikes: bool = False,
    sensor: tuple[int, int] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Returns labels and probabilities for image files, prepared as the checkpoint's own configuration says; the
    network runs in evaluation mode, on its device and in the precision of its weights. A network for event frames takes
    recordings, or, if it was trained on images turned to events, images.

    Args:
        paths: one file, or several; of a folder, the images (or recordings) in it and below.
        top: how many classes per image, most probable first, and of equal ones as `argmax` has them.
        spikes: count spikes, too.
        sensor: rows and columns of the camera of recordings; those of the network's frames by default.

    Returns:
        One {"image": path, "top": [{"label", "class", "probability"}, ...]} a file, in order; with "spikes", from each
        layer of neurons to the spikes of this image at each time step.

    Raises:
        ZooError: a file that is no image, see `zoo.data.images`; or a folder without any.
    """
    cfg: dict[str, Any] = model.pretrained_cfg
    prepare, suffixes = _preparation(model, sensor)
    given = [paths] if isinstance(paths, str | Path) else paths
    files = [file for path in given for file in files_at(path, suffixes)]
    check_classes(model)
    names = cfg.get("label_names") or [str(i) for i in range(model.num_classes)]
    parameter, results = next(model.parameters()), list[dict[str, Any]]()
    counter = _SpikesOfEach(model) if spikes else contextlib.nullcontext()
    with evaluation_mode(model), without_tf32(), zoo.event_driven(model), counter:
        for start in range(0, len(files), _BATCH):
            batch = files[start : start + _BATCH]
            images = torch.stack([prepare(path) for path in batch])
            images = images.to(parameter.device)
            images = normalise(images, *normalisation(model))
            probabilities = model(images.to(parameter.dtype)).float().softmax(1).cpu()
            if probabilities.shape != (len(batch), len(names)):
                got = list(probabilities.shape)
                raise ZooError(f"the network gives {got} for {len(batch)} images, expected {[len(batch), len(names)]}")
            if not probabilities.isfinite().all():
                raise ZooError("the network gives logits that are not finite: its weights are too large")
            for i, (path, values) in enumerate(zip(batch, probabilities, strict=True)):
                best = values.sort(descending=True, stable=True).indices[:top].tolist()  # of equal ones, argmax's first
                found = [{"label": names[k], "class": k, "probability": float(values[k])} for k in best]
                results.append({"image": path, "top": found})
                if isinstance(counter, _SpikesOfEach):
                    results[-1]["spikes"] = {name: of[:, i].int().tolist() for name, of in counter.counts.items()}
    return results


def _preparation(
    model: SpikingNetwork, sensor: tuple[int, int] | None
) -> tuple[Callable[[str], Tensor], Sequence[str]]:
    """Returns what makes a network's input of a file, and how the names of such files end."""
    cfg: dict[str, Any] = model.pretrained_cfg
    if model.encoding != "frames":
        return Preparation(cfg), SUFFIXES
    trained = model.training_args or {}
    height, width = size = tuple(cfg["input_size"][1:])
    if str(trained.get("dataset")).startswith(f"{I2E}:"):
        image = Preparation({**cfg, "input_size": (3, height, width)})
        return lambda path: image_events(image(path)[None])[0], SUFFIXES
    form, camera = data_form(cfg, model.model_args, trained), sensor or (height, width)

    def frames(path: str) -> Tensor:
        return torch.from_numpy(to_frames(read_events(path, camera), camera, form["timesteps"], form["slices"], size))

    return frames, RECORDINGS


def run(a: argparse.Namespace) -> None:
    """Classifies what a command line says."""
    results = predict(zoo.load(a.model), a.images, top=a.top, spikes=a.spikes, sensor=a.sensor and tuple(a.sensor))
    if a.json:
        print(json.dumps(results, indent=2))
        return
    for result in results:
        total = f"  {sum(map(sum, result['spikes'].values())):,} spikes" if a.spikes else ""
        print(f"{shown(result['image'])}{total}")
        for entry in result["top"]:
            print(f"  {100 * entry['probability']:6.2f} %  {shown(entry['label'])}")


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    run(parse_predict(argv))


if __name__ == "__main__":
    run_command(main)
