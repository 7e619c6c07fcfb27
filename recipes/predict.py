"""Classify image files: `python -m recipes.predict CHECKPOINT IMAGE...`."""

import json
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from timm.data import create_transform, resolve_data_config

import zoo
from zoo.errors import CommandParser, ZooError, one_line, run_command, shown
from zoo.files import open_regular
from zoo.network import SpikingNetwork

# Images in memory at a time, and bytes of a file.
_BATCH, _LARGEST = 64, 2**28


@torch.no_grad()
def predict(model: SpikingNetwork, paths: list[str], *, top: int = 5, resize: bool = False) -> list[dict[str, Any]]:
    """Labels and probabilities for image files, prepared as the checkpoint's own configuration says.

    Args:
        top: how many classes per image, most probable first.
        resize: scale and crop images that are not of the network's size, instead of refusing them.

    Returns:
        One {"image": path, "top": [{"label", "class", "probability"}, ...]} a file, in order.

    Raises:
        ZooError: a file that is no image, or one of another size.
    """
    cfg: dict[str, Any] = model.pretrained_cfg
    if model.in_chans != 3 or not model.num_classes:
        has = f"{model.in_chans} channels and {model.num_classes} classes"
        raise ZooError(f"the network has {has}: labels for image files take 3 channels, and a class at least")
    transform = create_transform(**resolve_data_config(pretrained_cfg=cfg), is_training=False)
    height, width = cfg["input_size"][1:]
    names = cfg.get("label_names") or [str(i) for i in range(model.num_classes)]
    results = []
    for start in range(0, len(paths), _BATCH):
        batch = paths[start : start + _BATCH]
        images = [transform(_open(path, (width, height), resize)) for path in batch]
        probabilities = model(torch.stack(images)).softmax(1)
        if probabilities.shape != (len(batch), len(names)):
            got = list(probabilities.shape)
            raise ZooError(f"the network gives {got} for {len(batch)} images, expected {[len(batch), len(names)]}")
        for path, values in zip(batch, probabilities, strict=True):
            best = values.topk(min(top, len(values)))
            classes = [(int(i), float(p)) for p, i in zip(*best, strict=True)]
            found = [{"label": names[i], "class": i, "probability": p} for i, p in classes]
            results.append({"image": path, "top": found})
    return results


def _open(path: str, size: tuple[int, int], resize: bool) -> Image.Image:
    try:
        with open_regular(path, _LARGEST) as file:
            image = Image.open(file).convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, ZooError):
            raise
        raise ZooError(f"{path} is not an image that Pillow can read: {one_line(error)}") from error
    if image.size != size and not resize:
        found = f"{image.width} x {image.height}"
        raise ZooError(f"{path} is {found} pixels, the network takes {size[0]} x {size[1]}: --resize scales and crops")
    return image


def main(argv: list[str] | None = None) -> None:
    """The command line."""
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
