"""One way from a name, a folder or a repository of a Hub to a trained network, for every command and for timm."""

import os
from pathlib import Path
from typing import Any

import timm
from timm.models import get_pretrained_cfg, split_model_name_tag

from .checkpoint import CONFIG, Checkpoint, open_checkpoint
from .checkpoint.config import ARCHITECTURES, WEIGHT_SOURCES
from .errors import ZooError, one_of
from .hub.client import fetch_checkpoint, published
from .network import SpikingNetwork
from .scaling import NONE

BUNDLED = Path(__file__).resolve().parent / "weights"
"""One checkpoint directory each, named `architecture.tag`."""


def load(source: str | os.PathLike[str], **kwargs: Any) -> SpikingNetwork:
    """Loads a trained network, in evaluation mode.

    Args:
        source: the name of a pretrained network, with or without its tag; a run directory, or the .safetensors file in
            one; "local-dir:DIR"; "hf-hub:ORG/NAME" or "hf-hub:ORG/NAME@REVISION".
        kwargs: override the checkpoint's own model arguments (timesteps, num_classes, in_chans ...). A classifier or
            first convolution that no longer fits is adapted as timm does. `cache_dir` is where files of a Hub are kept.

    Raises:
        ZooError: nothing of that name, no published weights, out of reach, or a broken checkpoint (see
            `read_checkpoint`); or a keyword that names other weights.
    """
    if "scaling" in kwargs and kwargs["scaling"] is None:
        kwargs["scaling"] = NONE  # timm takes None for nothing said
    if kwargs.pop("pretrained", True) is not True:
        raise ZooError(f"load gives trained networks: zoo.create_model gives one without the weights of {source}")
    overlay = kwargs.get("pretrained_cfg_overlay") or {}
    if kwargs.get("checkpoint_path") or kwargs.get("pretrained_cfg") or set(WEIGHT_SOURCES) & overlay.keys():
        raise ZooError(f"load takes the weights of {source}: give zoo.create_model what names others")
    checkpoint = find_checkpoint(source, kwargs.pop("cache_dir", None))
    in_file = checkpoint.config["model_args"]
    args = in_file | kwargs | {"pretrained_model_args": in_file, "checkpoint": checkpoint}
    network: SpikingNetwork = timm.create_model(checkpoint.config["architecture"], pretrained=True, **args)
    return network.eval()


def load_checkpoint(path: str | os.PathLike[str], **kwargs: Any) -> SpikingNetwork:
    """Loads the trained network of a checkpoint directory, or of the .safetensors file in one; see `load`."""
    return load(Path(path), **kwargs)


def find_checkpoint(source: str | os.PathLike[str], cache_dir: str | Path | None = None) -> Checkpoint:
    """Finds the checkpoint behind what `load` takes: bundled, on this disk, or on a Hub; see `load` for errors."""
    if not isinstance(source, str):
        return open_checkpoint(os.fspath(source))
    kind, colon, place = source.partition(":")
    if colon and kind in ("hf-hub", "local-dir"):
        return open_checkpoint(fetch_checkpoint(place, cache_dir=cache_dir) if kind == "hf-hub" else place)
    if is_path(source):
        return open_checkpoint(source)
    check_name(source)
    architecture, tag = split_model_name_tag(source)
    name = f"{architecture}.{tag or get_pretrained_cfg(architecture).tag}"
    if (BUNDLED / name).is_dir():
        return open_checkpoint(BUNDLED / name)
    where = published().get(name)
    if where is None:
        raise ZooError(_no_weights(architecture))
    checkpoint = open_checkpoint(fetch_checkpoint(where.hub_id, cache_dir=cache_dir))
    if checkpoint.config["weights_sha256"] != where.sha256:
        raise ZooError(f"the weights of {where.hub_id} are not those that this zoo was released with as {name}")
    return checkpoint


def check_name(name: str) -> None:
    """Raises ZooError unless `name` is an architecture of the zoo and its tag, if there is one, a known one."""
    architecture, tag = split_model_name_tag(name)
    if architecture not in ARCHITECTURES:
        raise one_of("model", architecture or name, sorted(ARCHITECTURES))
    tags = [other.partition(".")[2] for other in pretrained_names() if other.startswith(f"{architecture}.")]
    if tag and tag not in tags:
        if not tags:
            raise ZooError(f"unknown tag {tag!r}: {_no_weights(architecture)}")
        raise one_of(f"tag of {architecture}", tag, tags)


def _no_weights(architecture: str) -> str:
    """Says what to tell somebody who asks for weights that nobody has published, and what there is instead."""
    return (
        f"{architecture} has no published weights: `python -m recipes.train families.t4_cifar10 --model "
        f"{architecture}` trains some. Pretrained models: {', '.join(pretrained_names()) or 'none yet'}"
    )


def pretrained_names() -> list[str]:
    """Returns, sorted, `architecture.tag` of every checkpoint that is bundled or published."""
    return sorted({folder.name for folder in BUNDLED.glob("*.*") if folder.is_dir()} | published().keys())


def is_path(source: str) -> bool:
    """Returns whether `source` points at something on this disk, rather than naming a network."""
    if source.startswith(("hf-hub:", "local-dir:")):
        return False
    named = split_model_name_tag(source)[0] in ARCHITECTURES
    return os.path.sep in source or os.path.exists(os.path.join(source, CONFIG) if named else source)
