"""A config.json that may come from anybody: a typed model, checked before anything is made of it."""

import dataclasses
import inspect
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import timm
from pydantic import AfterValidator, ConfigDict, Field
from timm.models import PretrainedCfg, build_model_with_cfg

from ..errors import ZooError, one_of, quoted
from ..files import read_json
from ..names import ARCHITECTURES
from ..neurons import list_neurons
from ..neurons.surrogate import list_surrogates
from ..plugins import Plugins, missing_plugins, warn_of_changes
from ..scaling.spec import NONE, unregistered_rule
from ..schema import Model, Tag, Text, parse
from ..specs import MOST, MOST_CLASSES

WEIGHT_SOURCES = ("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load")
"""Keys of pretrained_cfg that name where weights are: never followed, the checkpoint has its own."""
# What the architecture knows better than a file does: which layers timm may adapt, and how.
_LAYERS = ("first_conv", "classifier", "label_offset")
PLACEMENT = {"device", "dtype"}
"""timm's keywords for where a network is made and with which numbers: no part of what it is."""
# Keywords with which factories would load or build something else: never a network's own.
_FACTORY = {
    *PLACEMENT,
    *inspect.signature(timm.create_model).parameters,
    *inspect.signature(build_model_with_cfg).parameters,
    *("name", "features_only", "out_indices", "pretrained_model_args", "checkpoint"),
}
_CFG_KEYS = {field.name for field in dataclasses.fields(PretrainedCfg)}


def _countable(value: Any) -> Any:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _countable(item)
    elif isinstance(value, int) and abs(value) > MOST:
        raise ValueError(f"holds a number beyond {MOST}, to which no network counts")
    return value


Labels = list[Annotated[Text, Field(max_length=200)]] | None


class _Input(Model):
    """What pretrained_cfg says of the input; images have pixels from 0 to 1 before they are normalised."""

    model_config = ConfigDict(extra="allow")
    input_size: Annotated[list[Annotated[int, Field(ge=1, le=1024)]], Field(min_length=3, max_length=3)]
    mean: list[Annotated[float, Field(ge=-1e6, le=1e6)]]
    std: list[Annotated[float, Field(ge=1e-6, le=1e6)]]
    # What timm's transforms know.
    interpolation: Literal["bilinear", "bicubic", "nearest", "lanczos", "box", "hamming"] = "bilinear"
    crop_mode: Literal["center", "squash", "border"] = "center"
    crop_pct: Annotated[float, Field(ge=0.25, le=1)] = 1.0
    tag: Tag | None = None
    label_names: Labels = None


class _Config(Model):
    model_config = ConfigDict(extra="allow")
    architecture: str
    num_classes: Annotated[int, Field(ge=0, le=MOST_CLASSES)]
    model_args: Annotated[dict[str, Any], AfterValidator(_countable)]
    pretrained_cfg: _Input
    weights_sha256: str = ""
    plugins: Plugins = None
    recipe: dict[str, Any] = Field(default_factory=dict)
    label_names: Labels = None


def read_config(path: Path) -> dict[str, Any]:
    """Reads config.json in the form of `save_checkpoint`; timm's own, which leaves out defaults, is completed.

    A scaling rule that is not registered here becomes "none", with a warning, and is kept under the key "unregistered".

    Raises:
        ZooError: a key is missing or holds what no checkpoint can have; or a part of a plugin that is not loaded.
    """
    return check_config(read_json(path), path)


def check_config(config: Any, path: str | Path) -> dict[str, Any]:
    """Checks and completes what a config.json, from `path`, holds; see `read_config`."""
    if isinstance(config, dict) and isinstance(config.setdefault("model_args", {}), dict):
        config["model_args"].pop("num_classes", None)  # timm says it twice
    given = parse(_Config, config, str(path))
    architecture, args, cfg = given.architecture, config["model_args"], config["pretrained_cfg"]
    plugins = config.setdefault("plugins", None)
    warn_of_changes(plugins, str(path))
    hint = missing_plugins(plugins)
    if architecture not in ARCHITECTURES:
        unknown = f"{path} names an unknown architecture, none of the zoo's: {quoted(architecture)}"
        raise ZooError(f"{unknown}; {hint}" if hint else unknown)
    for key, known in (("neuron", list_neurons()), ("surrogate", list_surrogates())):
        spec = args.get(key, known[0])
        name = spec.get("name") if isinstance(spec, dict) else spec
        if hint and name not in known:
            raise ZooError(f"{path} names an unknown {key}: {quoted(name)}; {hint}")
    check_keywords(args, f"{path}: model_args")
    if rule := unregistered_rule(args.get("scaling")):
        how = hint or "run its plugin first (--plugin FILE, zoo.load_plugin)"
        without = f"{path} was trained with the scaling rule {quoted(rule)}, which is not registered here"
        warnings.warn(
            f"{without}: it is loaded as its plain twin, which infers the same. To train on with the rule: {how}",
            stacklevel=2,
        )
        config |= {"unregistered": args["scaling"]}
        args["scaling"] = NONE
    channels = args.setdefault("in_chans", given.pretrained_cfg.input_size[0])
    for key in ("mean", "std"):
        if len(cfg[key]) != channels:
            raise ZooError(f"{path}: pretrained_cfg {key!r} must be {channels} numbers, not {quoted(cfg[key])}")
    for key in cfg:
        if key not in _CFG_KEYS:
            raise ZooError(f"{path}: {one_of('key of pretrained_cfg', key, sorted(_CFG_KEYS))}")
    # These weights and no others: what else the file names as their source would be loaded unchecked.
    cfg = {key: value for key, value in cfg.items() if key not in WEIGHT_SOURCES + _LAYERS}
    known_cfg = timm.models.get_pretrained_cfg(architecture)
    cfg |= {key: value for key in _LAYERS if (value := getattr(known_cfg, key, None))}
    cfg |= {"num_classes": given.num_classes, "architecture": architecture}
    if labels := given.label_names or given.pretrained_cfg.label_names:
        cfg["label_names"] = labels
    return config | {"pretrained_cfg": cfg}


def check_keywords(args: Mapping[str, Any], where: str) -> None:
    """Raises ZooError for a keyword that no network takes, but with which timm would build or load something else."""
    for key in args:
        if key in _FACTORY:
            raise ZooError(f"{where} holds {key!r}, which is no keyword of a network")
