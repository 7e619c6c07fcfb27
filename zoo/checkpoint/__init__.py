"""Checkpoints: a directory with `model.safetensors` and `config.json`, in the form that timm's `local-dir:` reads.

config.json rebuilds the network (architecture, model_args), says how to prepare its input (pretrained_cfg: mean, std,
size, labels) and pins the weights by their sha256. Pickles are never loaded. A checkpoint may come from anybody: what
it claims is checked, and the network that it asks for takes no more memory than the size of its weights allows.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import safetensors
import safetensors.torch
import timm
import torch
from torch import Tensor

from ..errors import ZooError, one_line
from ..files import atomic_write, parse_json, sha256_of, user_path, write_json
from ..names import CONFIG as CONFIG
from ..network import SpikingNetwork, check_registered, unwrapped
from ..neurons import SpikingNeuron
from ..plugins import loaded_plugins
from .config import WEIGHT_SOURCES, check_config, read_config
from .weights import WithoutMemory, check_start, check_tensors, misfit

WEIGHTS = "model.safetensors"
_PICKLE_SUFFIXES = {".pt", ".pth", ".pkl", ".pickle", ".joblib", ".bin", ".ckpt", ".tar"}


class Checkpoint(NamedTuple):
    """A checkpoint that has been read and checked: its config.json and its tensors on the CPU."""

    config: dict[str, Any]
    state_dict: dict[str, Tensor]
    origin: Path
    """The directory that it was read from."""


def save_checkpoint(
    directory: str | os.PathLike[str],
    model: SpikingNetwork,
    *,
    tag: str,
    data_cfg: dict[str, Any],
    dtype: torch.dtype | None = None,
    **extra: Any,
) -> str:
    """Writes a model of the zoo into `directory`, each file atomically.

    Args:
        model: as it was built and trained, on whatever device; also inside torch.compile's, DataParallel's ... module.
        tag: names the training, as in `architecture.tag`.
        data_cfg: input preprocessing, labels and terms: input_size, mean, std, label_names, license ...
        dtype: store floating-point tensors in this type (float16 halves the file).
        extra: further keys of config.json, JSON values.

    Returns:
        The sha256 of the weights file.

    Raises:
        ZooError: see `config_of`; the weights hold NaN or infinite values, or do in `dtype`; layers or neurons were
            changed by hand, so that config.json would rebuild another network; or the directory cannot be written.
    """
    tensors = {}
    model = cast(SpikingNetwork, unwrapped(model))
    for name, value in model.state_dict().items():
        stored = value.to(dtype) if dtype is not None and value.is_floating_point() else value
        tensors[name] = stored.detach().cpu().clone(memory_format=torch.contiguous_format)  # tied ones, too: twice
    check_tensors("the model" if dtype is None else f"the model in {dtype}", tensors)
    weights = safetensors.torch.save(tensors, {"format": "pt"})
    config = config_of(model, tag=tag, data_cfg=data_cfg, weights_sha256=sha256_of(weights), **extra)
    _check_rebuilds(json.loads(json.dumps(config)), model, tensors)
    atomic_write(Path(directory) / WEIGHTS, weights)
    write_json(Path(directory) / CONFIG, config)
    return str(config["weights_sha256"])


def check_can_be_saved(model: SpikingNetwork, **saved: Any) -> None:
    """Raises ZooError unless a network, saved with these keywords of `config_of`, could be rebuilt and loaded."""
    _check_rebuilds(json.loads(json.dumps(config_of(model, **saved))), model, model.state_dict())


def config_of(
    model: SpikingNetwork, *, tag: str, data_cfg: dict[str, Any], weights_sha256: str = "", **extra: Any
) -> dict[str, Any]:
    """Makes what the config.json of a checkpoint holds; see `save_checkpoint`.

    Raises:
        ZooError: it holds what `read_config` would refuse, or no name stands for the network.
    """
    check_registered(model)
    left = (*WEIGHT_SOURCES, "license")  # of the weights that it started from: these may be under another
    cfg = {k: v for k, v in model.pretrained_cfg.items() if k not in left} | data_cfg
    architecture = cfg.pop("architecture")
    config = {
        "architecture": architecture,
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "model_args": model.model_args,
        "pretrained_cfg": cfg | {"tag": tag, "num_classes": model.num_classes},
        "weights_sha256": weights_sha256,
        "plugins": loaded_plugins(),
        **extra,
    }
    unreadable = "this checkpoint could not be read again"
    try:
        text = json.dumps(config)
    except (TypeError, ValueError) as error:
        raise ZooError(f"{unreadable}: config.json takes JSON values ({one_line(error)})") from error
    check_config(parse_json(text, "the config.json of this checkpoint"), unreadable)
    return config


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads and checks a checkpoint directory, or the .safetensors file in one.

    Raises:
        ZooError: missing files, a pickle, weights that were cut short or changed, that do not fit the architecture or
            are not finite. Nothing in the files is executed.
    """
    checkpoint = open_checkpoint(path)
    model = _rebuilt(checkpoint.config, checkpoint.origin)
    if difference := misfit(checkpoint.state_dict, model.state_dict()):
        raise ZooError(f"{checkpoint.origin} does not fit {checkpoint.config['architecture']!r}: {difference}")
    return checkpoint


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint for a network about to be built, which will say whether it fits; see `read_checkpoint`."""
    path = user_path(path)
    weights = path / WEIGHTS if path.is_dir() else path
    if is_pickle(weights.name):
        raise ZooError(f"{weights} looks like a pickle, which can run code when loaded: only .safetensors is read")
    if not weights.is_file() or weights.suffix != Path(WEIGHTS).suffix:
        timms = " (timm's save_for_hf writes one with safe_serialization=True)" if (path / CONFIG).is_file() else ""
        raise ZooError(f"no checkpoint at {path}: expected a directory with {WEIGHTS}{timms} and {CONFIG}")
    config = read_config(weights.parent / CONFIG)
    check_start(weights)
    digest = sha256_of(weights)
    if digest != config.setdefault("weights_sha256", digest):  # timm writes none
        hashes = f"(sha256 {digest[:12]}..., expected {config['weights_sha256'][:12]}...)"
        wrong = f"{weights} is not the file that {CONFIG} describes {hashes}"
        raise ZooError(f"{wrong}: it was cut short or changed; fetch it again")
    try:
        tensors = safetensors.torch.load_file(weights)
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a type that PyTorch has not
        raise ZooError(f"{weights} is not a valid safetensors file: {error}") from error
    check_tensors(str(weights), tensors)
    return Checkpoint(config, tensors, weights.parent)


@contextlib.contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turns whatever a constructor makes of values that nobody has checked into one ZooError, that `what` begins."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise ZooError(f"{what}: {one_line(error)}") from error


def _rebuilt(config: dict[str, Any], origin: str | Path) -> SpikingNetwork:
    """Builds the network that a config describes, without memory."""
    architecture = config["architecture"]
    with refusing(f"{origin} does not fit {architecture!r}"), WithoutMemory():
        model = timm.create_model(architecture, num_classes=config["num_classes"], **config["model_args"])
    if not isinstance(model, SpikingNetwork):
        raise ZooError(f"{origin} holds {architecture!r}, which is not a network of the zoo")
    return model


def _check_rebuilds(config: dict[str, Any], model: SpikingNetwork, tensors: dict[str, Tensor]) -> None:
    """Raises ZooError unless a config rebuilds the network whose tensors these are."""
    again = _rebuilt(config, "this network")
    changed = f"this network was changed after {config['architecture']!r} was built, and could not be read again:"
    if difference := misfit(tensors, again.state_dict()):
        raise ZooError(f"{changed} {difference} (reset_classifier replaces a classifier)")
    neurons = {name: module for name, module in again.named_modules() if isinstance(module, SpikingNeuron)}
    modules = dict(model.named_modules())
    for name, neuron in neurons.items():
        now: dict[str, Any] = getattr(modules.get(name), "spec_values", dict)()
        for key, then in neuron.spec_values().items():
            if now.get(key) != then:
                raise ZooError(
                    f"{changed} {name} has {key} {now.get(key)!r}, built again it would have {then!r}: build it so "
                    "(keyword neuron), and load the weights into it (load_state_dict)"
                )


def is_pickle(name: str) -> bool:
    """Returns whether a file of this name would be a pickle, to be left alone."""
    return Path(name).suffix.lower() in _PICKLE_SUFFIXES
