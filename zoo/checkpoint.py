"""Checkpoints: a directory with `model.safetensors` and `config.json`, in the form that timm's `local-dir:` reads.

config.json rebuilds the network (architecture, model_args), says how to prepare its input (pretrained_cfg: mean, std,
size, labels) and pins the weights by their sha256. Pickles are never loaded.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import timm
import torch
from torch import Tensor

from .errors import ZooError
from .files import atomic_write, read_json, sha256_of, write_json
from .network import SpikingNetwork

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
_PICKLE_SUFFIXES = {".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".tar"}
_WEIGHT_SOURCES = ("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load")


class Checkpoint(NamedTuple):
    """A checkpoint that has been read and checked: its config.json and its tensors on the CPU."""

    config: dict[str, Any]
    state_dict: dict[str, Tensor]


def save_checkpoint(
    directory: str | os.PathLike[str],
    model: SpikingNetwork,
    *,
    tag: str,
    data_cfg: dict[str, Any],
    dtype: torch.dtype | None = None,
    **extra: Any,
) -> str:
    """Write a model of the zoo into `directory`, each file atomically.

    Args:
        tag: names the training, as in `architecture.tag`.
        data_cfg: input preprocessing and labels: input_size, mean, std, label_names ...
        dtype: store floating-point tensors in this type (float16 halves the file).
        extra: further keys of config.json, JSON values.

    Returns:
        The sha256 of the weights file.

    Raises:
        ZooError: the weights hold NaN or infinite values, or the directory cannot be written.
    """
    _check_finite("the model", model.state_dict())
    tensors = {
        name: (value.to(dtype) if dtype is not None and value.is_floating_point() else value)
        .detach()
        .cpu()
        .contiguous()
        for name, value in model.state_dict().items()
    }
    weights = safetensors.torch.save(tensors, {"format": "pt"})
    cfg = {k: v for k, v in model.pretrained_cfg.items() if k not in _WEIGHT_SOURCES} | data_cfg
    architecture = cfg.pop("architecture")
    config = {
        "architecture": architecture,
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "model_args": model.model_args,
        "pretrained_cfg": cfg | {"tag": tag, "num_classes": model.num_classes},
        "weights_sha256": sha256_of(weights),
        **extra,
    }
    atomic_write(Path(directory) / WEIGHTS, weights)
    write_json(Path(directory) / CONFIG, config)
    return str(config["weights_sha256"])


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read and check a checkpoint directory, or the .safetensors file in one.

    Raises:
        ZooError: missing files, a pickle, weights that were cut short or changed, values that are not finite.
    """
    path = Path(path)
    weights = path / WEIGHTS if path.is_dir() else path
    if weights.suffix in _PICKLE_SUFFIXES:
        raise ZooError(f"{weights} looks like a pickle, which can run code when loaded: only .safetensors is read")
    if not weights.is_file():
        raise ZooError(f"no checkpoint at {path}: expected a directory with {WEIGHTS} and {CONFIG}")
    config = read_json(weights.parent / CONFIG)
    _check_config(weights.parent / CONFIG, config)
    data = weights.read_bytes()
    if data[:2] == b"PK" or data[:1] == b"\x80":
        raise ZooError(f"{weights} is a pickle under another name; only safetensors is read")
    if sha256_of(data) != config.get("weights_sha256"):
        raise ZooError(
            f"{weights} is not the file that {CONFIG} describes (sha256 {sha256_of(data)[:12]}..., expected "
            f"{str(config.get('weights_sha256'))[:12]}...): it was cut short or changed; fetch it again"
        )
    try:
        tensors = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise ZooError(f"{weights} is not a valid safetensors file: {error}") from error
    _check_finite(str(weights), tensors)
    # These weights and no others: what else the file names as their source would be loaded unchecked.
    cfg = {key: value for key, value in config["pretrained_cfg"].items() if key not in _WEIGHT_SOURCES}
    return Checkpoint(config | {"pretrained_cfg": cfg}, tensors)


def _check_config(path: Path, config: Any) -> None:
    kinds = {"architecture": str, "num_classes": int, "model_args": dict, "pretrained_cfg": dict, "weights_sha256": str}
    for key, kind in kinds.items():
        if not isinstance(config, dict) or not isinstance(config.get(key), kind):
            raise ZooError(f"{path} is not the config of a checkpoint: {key!r} is missing or no {kind.__name__}")
    if not timm.is_model(config["architecture"]):
        raise ZooError(f"{path} names an unknown architecture: {config['architecture']!r}")
    numbers = {
        "input_size": 3,
        "mean": config["model_args"].get("in_chans"),
        "std": config["model_args"].get("in_chans"),
    }
    for key, count in numbers.items():
        values = config["pretrained_cfg"].get(key)
        if not isinstance(values, list) or len(values) != count or not all(isinstance(v, int | float) for v in values):
            raise ZooError(f"{path}: pretrained_cfg {key!r} must be {count} numbers, not {values!r}")


def load_checkpoint(path: str | os.PathLike[str], **kwargs: Any) -> SpikingNetwork:
    """The trained network of a checkpoint directory, in evaluation mode.

    Args:
        kwargs: override the checkpoint's own model arguments (timesteps, num_classes, in_chans ...). A classifier or
            first convolution that no longer fits is adapted as timm does.

    Raises:
        ZooError: a broken checkpoint (see `read_checkpoint`), or one whose tensors do not fit its architecture.
    """
    checkpoint = read_checkpoint(path)
    architecture = checkpoint.config["architecture"]
    cfg = checkpoint.config["pretrained_cfg"] | {"state_dict": checkpoint.state_dict}
    try:
        model = timm.create_model(
            architecture, pretrained=True, pretrained_cfg=cfg, **checkpoint.config["model_args"] | kwargs
        )
    except ZooError:
        raise
    except (RuntimeError, TypeError) as error:
        raise ZooError(f"{path} does not fit {architecture!r}: {_one_line(error)}") from error
    if not isinstance(model, SpikingNetwork):
        raise ZooError(f"{path} holds {architecture!r}, which is not a network of the zoo")
    record_origin(model, checkpoint)
    return model.eval()


def record_origin(model: SpikingNetwork, checkpoint: Checkpoint) -> None:
    """Note on the network whose weights it has: not where a new classifier or first convolution replaced some."""
    config = checkpoint.config
    if (model.num_classes, model.in_chans) == (config["num_classes"], config["model_args"]["in_chans"]):
        model.weights_sha256, model.training_args = config["weights_sha256"], config.get("recipe")


def is_checkpoint(path: str) -> bool:
    """Whether `path` points at something on this disk, rather than naming a model."""
    return os.path.sep in path or Path(path).exists()


def _check_finite(origin: str, tensors: dict[str, Tensor]) -> None:
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ZooError(f"{origin}: tensor {name!r} holds NaN or infinite values")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:300] + " ..."
