"""Which network a command means: a checkpoint, a published one, an untrained one; or the one that a file is of."""

import sys
from pathlib import Path
from typing import Any

import onnx
import torch
from timm.models import split_model_name_tag

import zoo
from zoo.errors import ZooError
from zoo.names import check_name, is_path

from .file import About, describe, same_entry, texts, weights_sha256

_SAME = ("timesteps", "num_classes", "input_size", "encoding", "neuron")
"""Entries of a file's metadata that say what its network computes, whatever the weights."""


def load(source: str, **kwargs: Any) -> tuple[zoo.SpikingNetwork, dict[str, str]]:
    """Returns the network that a command line names, and what its file must say about weights that nobody trained."""
    if is_path(source) or source.startswith(("hf-hub:", "local-dir:")):
        return zoo.load(source, **kwargs), {}
    check_name(source)
    if zoo.list_pretrained(f"{split_model_name_tag(source)[0]}.*"):
        return zoo.load(source, **kwargs), {}
    print(f"{source} has no published weights: taking its initialisation with seed 0, untrained", file=sys.stderr)
    return _untrained(source, **kwargs), {"initialisation": "seed 0"}


def network_of(path: Path, proto: onnx.ModelProto, about: About, source: str | None = None) -> zoo.SpikingNetwork:
    """Returns the network that a file is of, in evaluation mode: its architecture, neurons, steps, and its weights if
    they are published or the checkpoint `source` has them. Others are those of seed 0, with which dense operations take
    as long."""
    name = ".".join(filter(None, (about.architecture, about.tag)))
    if source is not None:
        model, _ = load(source, timesteps=about.timesteps)
        whose = source
    elif zoo.list_pretrained(name):
        model, whose = zoo.load(name, timesteps=about.timesteps), name
    else:
        model = _untrained(about.architecture, timesteps=about.timesteps, num_classes=about.num_classes)
        whose = "seed 0"
    said, found = texts(proto), describe(model)
    for key in _SAME:
        if key in said and not same_entry(said[key], found[key]):
            raise ZooError(
                f"{path} says {key} {said[key]:.100}, and {source or name} has {found[key]:.100}: name the checkpoint "
                "that the file was exported from with --network"
            )
    if weights_sha256(model) != about.weights_sha256:
        print(f"baselines have other weights than {path}: those of {whose}", file=sys.stderr)
    return model.eval()


def _untrained(architecture: str, **kwargs: Any) -> zoo.SpikingNetwork:
    torch.manual_seed(0)
    return zoo.create_model(architecture, **kwargs)
