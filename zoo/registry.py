"""One registry, timm's, and our allow-list over it: zoo names are timm names, and none of timm's is ever shadowed."""

import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from timm.models import get_arch_pretrained_cfgs, split_model_name_tag
from timm.models import register_model as _timm_register_model

from .checkpoint import ARCHITECTURES, CONFIG, read_config
from .errors import ZooError, one_line
from .load import check_name, is_weights, load, pretrained_names
from .network import SpikingNetwork
from .scaling import NONE


def register_model(entrypoint: Callable[..., SpikingNetwork]) -> Callable[..., SpikingNetwork]:
    """Decorator: register one model function under its name, with timm and with the zoo, as timm's own does.

    `zoo.register_family` does it for a table of them. By hand, `default_cfgs` (see `zoo.family.make_cfgs`) must stand
    above it in the same file, and the function calls `zoo.family.build`.

    Raises:
        ZooError: the name is already one of timm's or the zoo's.
    """
    name = entrypoint.__name__
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,99}", name):  # as records have it
        raise ZooError(f"{name!r} is no name for a network: take letters of a to z, digits and _, up to 100")
    if timm.is_model(name) and name not in ARCHITECTURES:
        raise ZooError(f"{name!r} already names a timm model: choose another name")
    if name in ARCHITECTURES and not _same_file(timm.models.model_entrypoint(name), entrypoint):
        raise ZooError(f"{name!r} already names a model of the zoo: choose another name")
    ARCHITECTURES.add(name)
    return _timm_register_model(entrypoint)


def _same_file(*entrypoints: Callable[..., Any]) -> bool:
    """Whether both come from one module or file: a user's file may be imported, and run as a plugin, too."""
    modules = {function.__module__ for function in entrypoints}
    return len(modules) == 1 or len({getattr(sys.modules.get(name), "__file__", name) for name in modules}) == 1


def is_model(name: str) -> bool:
    """Whether `name`, with or without `.tag`, is an architecture of the zoo."""
    return split_model_name_tag(name)[0] in ARCHITECTURES


def list_models(
    filter: str | Iterable[str] = "", *, pretrained: bool = False, exclude_filters: str | Iterable[str] = ""
) -> list[str]:
    """Sorted architectures that match the wildcard(s) of `filter` and none of `exclude_filters`; with `pretrained`, the
    `name.tag` of those with weights."""
    names = timm.list_models(filter, pretrained=pretrained, exclude_filters=exclude_filters)
    known = set(pretrained_names()) if pretrained else ()
    return [name for name in names if is_model(name) and (not pretrained or name in known)]


def list_pretrained(filter: str | Iterable[str] = "") -> list[str]:
    """Sorted `name.tag` of every checkpoint that `create_model(..., pretrained=True)` can load."""
    return list_models(filter, pretrained=True)


def create_model(name: str, pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """Build a network of the zoo.

    Args:
        name: an architecture ("sresnet19_gs"), one with its tag ("sresnet19_gs.t4_cifar10"); a directory with a
            checkpoint ("local-dir:runs/x") or a repository of the Hub ("hf-hub:ORG/NAME", "hf-hub:ORG/NAME@REVISION"),
            which always load their weights and come in evaluation mode.
        pretrained: load trained weights: those bundled with the zoo, or else the published ones, from the cache or the
            Hub. HF_HUB_OFFLINE=1 keeps it off the network.
        kwargs: timesteps, neuron, surrogate, scaling, num_classes, in_chans, dropout, kernel; all JSON values. And
            timm's own: features_only, checkpoint_path, pretrained_cfg_overlay, drop_rate (its name for dropout) ...

    Raises:
        ZooError: unknown name, tag, keyword or value; no published weights, or out of reach; a broken checkpoint.
    """
    name = os.fspath(name)
    if name.startswith(("local-dir:", "hf-hub:")):
        return load(name, **kwargs)
    if "scaling" in kwargs and kwargs["scaling"] is None:
        kwargs["scaling"] = NONE
    check_name(name)
    weights = kwargs.get("checkpoint_path")
    if weights and not is_weights(weights):
        raise ZooError(f"checkpoint_path takes a .safetensors file, and {str(weights)!r} is none")
    try:
        model: SpikingNetwork = timm.create_model(name, pretrained=pretrained, **kwargs)
    except TypeError as error:
        raise ZooError(f"{name}: {error}") from error
    except (RuntimeError, SafetensorError) as error:
        if not pretrained and not weights:
            raise
        raise ZooError(f"the weights of {weights or name} do not fit {name}, {kwargs}: {one_line(error)}") from error
    if weights and isinstance(model, SpikingNetwork):  # which took the place of those that `pretrained` loads
        model.weights_sha256 = model.training_args = None
    return model


def bundled_args(name: str) -> dict[str, Any]:
    """The keywords that a bundled checkpoint, `architecture.tag`, was built with; none for another name."""
    cfg = get_arch_pretrained_cfgs(split_model_name_tag(name)[0]).get(name)
    if cfg is None or not cfg.file:
        return {}
    config = read_config(Path(cfg.file).parent / CONFIG)
    return config["model_args"] | {"num_classes": config["num_classes"]}


def model_info(name: str, **kwargs: Any) -> dict[str, Any]:
    """What the zoo knows of one architecture without its weights: parameters, time steps, rule, the code that runs its
    neurons on this machine's devices, tags with weights.

    Args:
        name: an architecture; or with its tag, then as the bundled checkpoint was built.
        kwargs: as for `create_model`.
    """
    model = create_model(name, **bundled_args(name) | kwargs)
    architecture = split_model_name_tag(name)[0]
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return {
        "model": architecture,
        "description": (timm.models.model_entrypoint(architecture).__doc__ or "").strip(),
        "params": sum(p.numel() for p in model.parameters()),
        "num_classes": model.num_classes,
        "input_size": list(model.pretrained_cfg["input_size"]),
        **{key: model.model_args[key] for key in ("timesteps", "neuron", "surrogate", "scaling")},
        "kernel": {device: model.kernel_for(device, torch.float32) for device in devices},
        "pretrained": list_pretrained(f"{architecture}.*"),
    }
