"""A config.json that may come from anybody: checked before anything is made of it."""

import dataclasses
import inspect
import re
import reprlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from timm.models import PretrainedCfg, build_model_with_cfg

from ..errors import ZooError, one_of, quoted
from ..files import read_json
from ..neurons import list_neurons
from ..neurons.surrogate import list_surrogates
from ..plugins import is_plugins, missing_plugins, warn_of_changes
from ..scaling.spec import NONE, unregistered_rule
from ..specs import MOST, MOST_CLASSES, check_integer

ARCHITECTURES: set[str] = set()
"""The zoo's own, of all that timm knows: those that a checkpoint may name. Filled by `zoo.register_model`."""
WEIGHT_SOURCES = ("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load")
"""Keys of pretrained_cfg that name where weights are: never followed, the checkpoint has its own."""
# What the architecture knows better than a file does: which layers timm may adapt, and how.
_LAYERS = ("first_conv", "classifier", "label_offset")
PLACEMENT = {"device", "dtype"}
"""timm's keywords for where a network is made and with which numbers: no part of what it is."""
# Keywords with which timm's factories would load or build something else: never a network's own.
_FACTORY = {
    *PLACEMENT,
    *inspect.signature(timm.create_model).parameters,
    *inspect.signature(build_model_with_cfg).parameters,
    *("name", "features_only", "out_indices", "pretrained_model_args"),
}
_CFG_KEYS = {field.name for field in dataclasses.fields(PretrainedCfg)}
_CONFIG_LIMIT = 16 * 2**20
_SIDE_LIMIT = 1024
# Of the share of an image that is used, and of means and standard deviations, which are of pixels from 0 to 1.
_LEAST_CROP, _LEAST_STD, _MOST_MEAN = 0.25, 1e-6, 1e6
# Of a network: its labels, and the characters of one.
_LONGEST_LABEL = 200
TAG = r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}"
# What timm's transforms know; the first is their default.
_CHOICES = {
    "interpolation": ["bilinear", "bicubic", "nearest", "lanczos", "box", "hamming", "random"],
    "crop_mode": ["center", "squash", "border"],
}


def read_config(path: Path) -> dict[str, Any]:
    """config.json in the form of `save_checkpoint`; timm's own, which leaves out what is at its default, is completed.

    A scaling rule that is not registered here becomes "none", with a warning, and is kept under the key "unregistered".

    Raises:
        ZooError: a key is missing or holds what no checkpoint can have; or a part of a plugin that is not loaded.
    """
    return check_config(read_json(path, _CONFIG_LIMIT), path)


def check_config(config: Any, path: str | Path) -> dict[str, Any]:
    """What a config.json holds, checked and completed; see `read_config`.

    Args:
        path: where it is from, for errors.
    """
    if isinstance(config, dict) and isinstance(config.setdefault("model_args", {}), dict):
        config["model_args"].pop("num_classes", None)  # timm says it twice
    kinds = {"architecture": str, "num_classes": int, "model_args": dict, "pretrained_cfg": dict}
    for key, kind in kinds.items():
        if not isinstance(config, dict) or not isinstance(config.get(key), kind):
            raise ZooError(f"{path} is not the config of a checkpoint: {key!r} is missing or no {kind.__name__}")
    if not isinstance(config.get("weights_sha256", ""), str):
        raise ZooError(f"{path}: 'weights_sha256' is no string")
    architecture, cfg, plugins = config["architecture"], config["pretrained_cfg"], config.setdefault("plugins", None)
    if not is_plugins(plugins):
        raise ZooError(f"{path}: 'plugins' must be null or a list of {{file, sha256}}, not {reprlib.repr(plugins)}")
    warn_of_changes(plugins, str(path))
    hint = missing_plugins(plugins)
    if architecture not in ARCHITECTURES:
        unknown = f"{path} names an unknown architecture, none of the zoo's: {reprlib.repr(architecture)}"
        raise ZooError(f"{unknown}; {hint}" if hint else unknown)
    for key, known in (("neuron", list_neurons()), ("surrogate", list_surrogates())):
        spec = config["model_args"].get(key, known[0])
        name = spec.get("name") if isinstance(spec, dict) else spec
        if hint and name not in known:
            raise ZooError(f"{path} names an unknown {key}: {reprlib.repr(name)}; {hint}")
    check_keywords(config["model_args"], f"{path}: model_args")
    if _largest(config["model_args"]) > MOST:
        raise ZooError(f"{path}: model_args holds a number beyond {MOST}, to which no network counts")
    check_integer(f"{path}: 'num_classes'", config["num_classes"], 0, MOST_CLASSES)
    if not isinstance(config.get("recipe", {}), dict):
        raise ZooError(f"{path}: 'recipe' must be an object, not {quoted(config['recipe'])}")
    if rule := unregistered_rule(config["model_args"].get("scaling")):
        warnings.warn(
            f"{path} was trained with the scaling rule {reprlib.repr(rule)}, which is not registered here: it is "
            f"loaded as its plain twin, which infers the same. To train on with the rule: "
            f"{hint or 'run its plugin first (--plugin FILE, zoo.load_plugin)'}",
            stacklevel=2,
        )
        config |= {"unregistered": config["model_args"]["scaling"]}
        config["model_args"]["scaling"] = NONE
    size = cfg.get("input_size")
    if not _numbers(size, 3) or not all(isinstance(v, int) and 0 < v <= _SIDE_LIMIT for v in size):
        raise _bad(path, "input_size", f"3 numbers from 1 to {_SIDE_LIMIT}", size)
    for key, known in _CHOICES.items():
        if cfg.get(key, known[0]) not in known:
            raise _bad(path, key, f"one of {', '.join(known)}", cfg[key])
    share = cfg.get("crop_pct", 1.0)
    if not _numbers([share], 1) or not _LEAST_CROP <= share <= 1:
        raise _bad(path, "crop_pct", f"a number from {_LEAST_CROP} to 1", share)
    channels = config["model_args"].setdefault("in_chans", size[0])
    for key in ("mean", "std"):
        low = _LEAST_STD if key == "std" else -_MOST_MEAN
        if not _numbers(cfg.get(key), channels) or not all(low <= value <= _MOST_MEAN for value in cfg[key]):
            raise _bad(path, key, f"{channels} numbers from {low:g} to {_MOST_MEAN:g}", cfg.get(key))
    tag = cfg.get("tag") or ""
    if not isinstance(tag, str) or not re.fullmatch(f"({TAG})?", tag):
        raise _bad(path, "tag", "letters, digits, '_', '-' and, but for the first, '.', at most 100", tag)
    labels = config.get("label_names", cfg.get("label_names")) or []
    if not isinstance(labels, list) or not all(map(_is_label, labels)):
        raise ZooError(
            f"{path}: 'label_names' must be a list of printable names of at most {_LONGEST_LABEL} characters"
        )
    for key in cfg:
        if key not in _CFG_KEYS:
            raise ZooError(f"{path}: {one_of('key of pretrained_cfg', key, sorted(_CFG_KEYS))}")
    # These weights and no others: what else the file names as their source would be loaded unchecked.
    cfg = {key: value for key, value in cfg.items() if key not in WEIGHT_SOURCES + _LAYERS}
    known = timm.models.get_pretrained_cfg(architecture)
    cfg |= {key: value for key in _LAYERS if (value := getattr(known, key, None))}
    cfg |= {"num_classes": config["num_classes"], "architecture": architecture}
    return config | {"pretrained_cfg": cfg | ({"label_names": labels} if labels else {})}


def check_keywords(args: Mapping[str, Any], where: str) -> None:
    """Raise ZooError for a keyword that no network takes, but with which timm would build or load something else."""
    for key in args:
        if key in _FACTORY:
            raise ZooError(f"{where} holds {key!r}, which is no keyword of a network")


def _is_label(label: Any) -> bool:
    return isinstance(label, str) and label.isprintable() and len(label) <= _LONGEST_LABEL


def _bad(path: str | Path, key: str, expected: str, value: Any) -> ZooError:
    return ZooError(f"{path}: pretrained_cfg {key!r} must be {expected}, not {reprlib.repr(value)}")


def _largest(value: Any) -> int:
    """The largest integer, by its magnitude, in a JSON value."""
    largest, rest = 0, [value]
    while rest:
        value = rest.pop()
        if isinstance(value, dict | list):
            rest += value.values() if isinstance(value, dict) else value
        elif isinstance(value, int):
            largest = max(largest, abs(value))
    return largest


def _numbers(values: Any, count: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    )
