"""One way from a name, a folder or a repository of a Hub to a trained network, for every command and for timm."""

import os
from pathlib import Path
from typing import Any

import timm
from timm.models import get_pretrained_cfg

from .checkpoint import Checkpoint, open_checkpoint
from .checkpoint.config import WEIGHT_SOURCES
from .errors import ZooError
from .hub.client import fetch_checkpoint, published
from .names import BUNDLED, check_name, is_path, no_weights, split_name
from .network import SpikingNetwork
from .scaling import NONE


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
    return find_named(source, cache_dir)


def find_named(name: str, cache_dir: str | Path | None = None) -> Checkpoint:
    """Finds the checkpoint of a published network, with or without its tag: bundled, in the cache, or on the Hub."""
    check_name(name)
    architecture, tag = split_name(name)
    name = f"{architecture}.{tag or get_pretrained_cfg(architecture).tag}"
    if (BUNDLED / name).is_dir():
        return open_checkpoint(BUNDLED / name)
    where = published().get(name)
    if where is None:
        raise ZooError(no_weights(architecture))
    checkpoint = open_checkpoint(fetch_checkpoint(where.hub_id, cache_dir=cache_dir))
    if checkpoint.config["weights_sha256"] != where.sha256:
        raise ZooError(f"the weights of {where.hub_id} are not those that this zoo was released with as {name}")
    return checkpoint
