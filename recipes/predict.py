"""Classify image files: `python -m recipes.predict CHECKPOINT IMAGE...`."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

import zoo
from zoo.data import normalisation, normalise
from zoo.data.folder import PREFIX
from zoo.data.images import Preparation
from zoo.errors import CommandParser, ZooError, run_command, shown
from zoo.metrics.evaluation import check_classes, evaluation_mode, without_tf32
from zoo.network import SpikingNetwork
from zoo.plugins import add_plugin_option

# Images in memory at a time.
_BATCH = 64


@torch.no_grad()
def predict(
    model: SpikingNetwork, paths: str | Path | Iterable[str | Path], *, top: int = 5, resize: bool = False
) -> list[dict[str, Any]]:
    """Returns labels and probabilities for image files, prepared as the checkpoint's own configuration says; the
    network runs in evaluation mode, on its device and in the precision of its weights.

    Args:
        paths: one file, or several.
        top: how many classes per image, most probable first, and of equal ones as `argmax` has them.
        resize: scale and crop images that are not of the network's size, instead of refusing them; a network that was
            trained on a folder of images has them of any size.

    Returns:
        One {"image": path, "top": [{"label", "class", "probability"}, ...]} a file, in order.

    Raises:
        ZooError: a file that is no image, or one of another size; see `zoo.data.images`.
    """
    files = list(map(str, [paths] if isinstance(paths, str | Path) else paths))
    cfg: dict[str, Any] = model.pretrained_cfg
    check_classes(model)
    prepare = Preparation(cfg)
    resize = resize or str((model.training_args or {}).get("dataset")).startswith(PREFIX)
    names = cfg.get("label_names") or [str(i) for i in range(model.num_classes)]
    parameter, results = next(model.parameters()), []
    with evaluation_mode(model), without_tf32(), zoo.event_driven(model):
        for start in range(0, len(files), _BATCH):
            batch = files[start : start + _BATCH]
            images = torch.stack([prepare(path, resize=resize) for path in batch])
            x = normalise(images.to(parameter.device), *normalisation(model)).to(parameter.dtype)
            probabilities = model(x).float().softmax(1).cpu()
            if probabilities.shape != (len(batch), len(names)):
                got = list(probabilities.shape)
                raise ZooError(f"the network gives {got} for {len(batch)} images, expected {[len(batch), len(names)]}")
            if not probabilities.isfinite().all():
                raise ZooError("the network gives logits that are not finite: its weights are too large")
            for path, values in zip(batch, probabilities, strict=True):
                best = values.sort(descending=True, stable=True).indices[:top].tolist()  # of equal ones, argmax's first
                found = [{"label": names[i], "class": i, "probability": float(values[i])} for i in best]
                results.append({"image": path, "top": found})
    return results


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = CommandParser(
        prog="python -m recipes.predict",
        description="Labels and probabilities for image files, prepared as the checkpoint says.",
        epilog="example: python -m recipes.predict runs/sresnet19_w16_gs.t2_cifar10-seed0 cat.png dog.png",
    )
    parser.add_argument("model", metavar="CHECKPOINT|MODEL", help="a run directory, or the name of a pretrained model")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files")
    parser.add_argument("--top", type=int, default=5, help="classes per image (default: 5)")
    parser.add_argument("--resize", action="store_true", help="scale and crop images of another size")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_plugin_option(parser)
    a = parser.parse_args(argv)
    if a.top < 1:
        raise ZooError(f"--top must be 1 or more, not {a.top}")
    results = predict(zoo.load(a.model), a.images, top=a.top, resize=a.resize)
    if a.json:
        print(json.dumps(results, indent=2))
        return
    for result in results:
        print(shown(result["image"]))
        for entry in result["top"]:
            print(f"  {100 * entry['probability']:6.2f} %  {shown(entry['label'])}")


if __name__ == "__main__":
    run_command(main)
