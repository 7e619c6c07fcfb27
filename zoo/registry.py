"""Architectures by name: families and their tables of variants, registered with timm and with the zoo, and built.

Zoo names are timm names, none of timm's is ever shadowed, and the zoo's own are an allow-list over timm's registry.
"""

import contextlib
import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from timm.models import PretrainedCfg, build_model_with_cfg, generate_default_cfgs
from timm.models import register_model as _timm_register_model
from timm.models._features import FeatureGetterNet  # timm exports no other way to feature_cls
from torch import Tensor

from .checkpoint import WEIGHTS, Checkpoint, refusing
from .checkpoint.config import PLACEMENT, WEIGHT_SOURCES, read_config
from .checkpoint.weights import WithinMemory, misfit, network_digest
from .errors import ZooError, one_line, one_of
from .files import read_json
from .hub.client import published
from .load import find_checkpoint, find_named, load
from .names import ARCHITECTURES, BUNDLED, CONFIG, check_name, pretrained_names, split_name
from .network import SpikingNetwork, check_global_pool
from .plugins import same_file
from .scaling import NONE

GS = {"name": "final_trace", "alpha": 0.5}
"""The scaling of `_gs` models. No rule was found measurably better than plain STBP (recipes/studies/ablation), so it is
the one that ran in the code behind the paper, see `zoo.scaling`."""

# CIFAR-10's channel statistics; a recipe writes its own data set's into the checkpoint.
_DEFAULT = {
    "num_classes": 10,
    "input_size": (3, 32, 32),
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2470, 0.2435, 0.2616),
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "first_conv": "conv1",
    "classifier": "fc",
}


def make_cfgs(architectures: Iterable[str]) -> Mapping[str, Any]:
    """Makes timm's `default_cfgs`: one entry per bundled or published checkpoint, or one without weights.

    The first one is what the architecture's name alone stands for: of the first data set, that of most time steps,
    and of these the one that was trained longest; none whose spikes were penalised, if there is another, and none that
    takes event frames.
    """
    cfgs: dict[str, Any] = {}
    for architecture in architectures:
        found: dict[str, Any] = {}
        configs = {folder: read_json(folder / CONFIG) for folder in sorted(BUNDLED.glob(f"{architecture}.*"))}
        for folder, config in sorted(configs.items(), key=_place):
            found[folder.name] = _DEFAULT | config["pretrained_cfg"] | {"file": str(folder / WEIGHTS)}
        for name, where in published().items():
            if name.startswith(f"{architecture}."):
                found.setdefault(name, _DEFAULT | {"hf_hub_id": where.hub_id})
        # timm's star: of images, when all that is trained takes event frames.
        images = any(cfg.get("input_size", _DEFAULT["input_size"])[0] == 3 for cfg in found.values())
        cfgs |= found if images else found | {f"{architecture}.*": dict(_DEFAULT)}
    return generate_default_cfgs(cfgs)


def _place(checkpoint: tuple[Any, Mapping[str, Any]]) -> tuple[str, bool, int, int]:
    _, config = checkpoint
    recipe, steps = config["recipe"], config["model_args"]["timesteps"]
    epochs = sum(part["epochs"] or 0 for part in [recipe, *config.get("started_from", [])])
    return recipe["dataset"], bool(recipe.get("spike_penalty")), -steps, -epochs


@dataclass(frozen=True)
class Variant:
    """One architecture of a family: a line of its table."""

    name: str
    """What it is registered under; its twin with gradient scaling under NAME_gs."""
    text: str
    """What it is, in a sentence: its docstring."""
    shape: Mapping[str, Any]
    """Keywords of the network that make it what it is; nobody may change them."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Keywords that a checkpoint, and then the user, may change."""


def register_family(network: type[SpikingNetwork], variants: Iterable[Variant]) -> None:
    """Registers the variants of a network with timm and with the zoo, each with its twin that gradient scaling trains.

    A file of your own, that `zoo.load_plugin` or a command's `--plugin FILE` runs, may hold:

    >>> import zoo
    >>> from torch import nn
    >>> from zoo.layers import ConvNeuron
    >>> class MyNet(zoo.SpikingNetwork):
    ...     def __init__(self, width, **kwargs):
    ...         super().__init__(**kwargs)
    ...         self.make_stem(width)
    ...         self.add_stage(nn.Sequential(ConvNeuron(width, width, self.make, 3), nn.MaxPool2d(2)), width, 2)
    ...         self.finish()
    >>> zoo.register_family(MyNet, [zoo.Variant("my_net", "A small network.", {"width": 32})])

    and then "my_net" and "my_net_gs" are architectures of the zoo. Each name becomes a function of the file that calls
    this, with the variant's sentence as its docstring.

    Args:
        network: the class; it is called with a variant's keywords and the user's.
        variants: the table.

    Raises:
        ZooError: a name is already one of timm's or the zoo's.
    """
    module = sys.modules[sys._getframe(1).f_globals["__name__"]]
    twins = []
    for variant in variants:
        text = f"`{variant.name}` trained with gradient scaling."
        scaled = Variant(f"{variant.name}_gs", text, variant.shape, {**variant.defaults, "scaling": GS})
        twins += [variant, scaled]
    cfgs = make_cfgs([twin.name for twin in twins])
    module.default_cfgs = {**getattr(module, "default_cfgs", {}), **cfgs}  # type: ignore[attr-defined] # timm looks there
    for twin in twins:
        setattr(module, twin.name, register_model(_entrypoint(network, twin, module.__name__)))


def _entrypoint(network: type[SpikingNetwork], variant: Variant, module: str) -> Callable[..., SpikingNetwork]:
    def entrypoint(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
        for key in variant.shape.keys() & kwargs.keys():
            raise ZooError(f"{key} is what makes {variant.name} that network, and cannot be changed")
        return build(network, variant.name, pretrained, variant.defaults, variant.shape, **kwargs)

    entrypoint.__name__ = entrypoint.__qualname__ = variant.name
    entrypoint.__module__, entrypoint.__doc__ = module, variant.text
    return entrypoint


def register_model(entrypoint: Callable[..., SpikingNetwork]) -> Callable[..., SpikingNetwork]:
    """Decorator: registers one model function under its name, with timm and with the zoo, as timm's own does.

    `zoo.register_family` does it for a table of them. By hand, `default_cfgs` (see `make_cfgs`) must stand
    above it in the same file, and the function calls `build`.

    Raises:
        ZooError: the name is already one of timm's or the zoo's.
    """
    name = entrypoint.__name__
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,99}", name):  # as records have it
        raise ZooError(f"{name!r} is no name for a network: take letters of a to z, digits and _, up to 100")
    if timm.is_model(name) and name not in ARCHITECTURES:
        raise ZooError(f"{name!r} already names a timm model: choose another name")
    if name in ARCHITECTURES and not same_file(timm.models.model_entrypoint(name), entrypoint):
        raise ZooError(f"{name!r} already names a model of the zoo: choose another name")
    ARCHITECTURES.add(name)
    return _timm_register_model(entrypoint)


def build(
    network: type[SpikingNetwork],
    architecture: str,
    pretrained: bool,
    defaults: Mapping[str, Any] | None = None,
    shape: Mapping[str, Any] | None = None,
    /,  # no keyword of a checkpoint can pass for one of these
    **kwargs: Any,
) -> SpikingNetwork:
    """Builds `network` as timm's entrypoints do, with the weights and model arguments of a checkpoint if asked.

    Args:
        defaults: keywords of the architecture that a checkpoint, and then the user, may change.
        shape: keywords of the architecture that nobody may change; of all others, the network's `model_args` have what
            was said.
        kwargs: those of the user.

    Raises:
        ZooError: a keyword that the network does not have; `pretrained`, and no weights are published under the name
            and tag, or they cannot be had; a broken checkpoint, or one that does not fit.
    """
    in_file = kwargs.pop("pretrained_model_args", None) or {}  # which timm added to the user's
    checkpoint, cfg = kwargs.pop("checkpoint", None), kwargs.pop("pretrained_cfg", None)
    usual = _defaults(network) | dict(defaults or {})
    # With the first, a network tells its base what it is, and the second is what `load` found: nobody else's.
    if "own_args" in kwargs or not isinstance(checkpoint, Checkpoint | None):
        wrong = "own_args" if "own_args" in kwargs else "checkpoint"
        raise one_of(f"keyword of {architecture}", wrong, [*usual, "drop_rate"])
    kwargs = _in_our_words(kwargs, in_file)
    given = {key for key, value in kwargs.items() if key not in in_file or in_file[key] != value}
    if isinstance(cfg, PretrainedCfg):
        cfg = cfg.to_dict()
    overlay = kwargs.get("pretrained_cfg_overlay") or {}
    if pretrained and (named := [key for key in WEIGHT_SOURCES if overlay.get(key)]):
        how = "checkpoint_path takes a .safetensors file, and zoo.load a checkpoint"
        raise ZooError(f"pretrained_cfg_overlay names weights by {named[0]}, which are not loaded: {how}")
    if pretrained and checkpoint is None:
        checkpoint = _named_checkpoint(architecture, cfg, kwargs.get("cache_dir"))
    if checkpoint is not None:
        if (held := checkpoint.config["architecture"]) != architecture:
            raise ZooError(f"{checkpoint.origin} holds a checkpoint of {held!r}, not of {architecture!r}")
        kwargs = checkpoint.config["model_args"] | {k: v for k, v in kwargs.items() if k in given}
        cfg = checkpoint.config["pretrained_cfg"] | {"state_dict": checkpoint.state_dict}
    kwargs = dict(defaults or {}) | kwargs | dict(shape or {})
    placement = {key: kwargs.pop(key) for key in PLACEMENT & kwargs.keys()}
    if kwargs.get("feature_cls") not in (None, "getter"):
        raise ZooError(f"feature_cls {kwargs['feature_cls']!r}: networks of the zoo have 'getter' alone, by default")
    features = {"feature_cls": FeatureGetterNet, "out_indices": None}  # for `features_only`
    fitting = functools.partial(_fitting, features=bool(kwargs.get("features_only")))
    with contextlib.ExitStack() as bounds:
        if checkpoint is not None:
            bounds.enter_context(refusing(f"{checkpoint.origin} does not fit {architecture!r}"))
            bounds.enter_context(WithinMemory(checkpoint.state_dict, kwargs.get("timesteps")))
        try:
            model = build_model_with_cfg(
                network,
                architecture,
                pretrained,
                pretrained_cfg=cfg,
                feature_cfg=features,
                pretrained_filter_fn=fitting,
                **kwargs,
            )
        except TypeError as error:
            unknown = re.search("unexpected keyword argument '(.+?)'", str(error))
            if unknown is None or unknown[1] not in kwargs:
                raise
            known = [key for key in [*usual, "drop_rate"] if key not in {*given, *(shape or {})}]
            raise one_of(f"keyword of {architecture}", unknown[1], known) from error
    sized = checkpoint is None or "img_size" in given  # a checkpoint says its size itself, which need not be square
    _describe(model.model if isinstance(model, FeatureGetterNet) else model, model.pretrained_cfg, sized=sized)
    if isinstance(model, SpikingNetwork):
        if shape is not None:  # or nobody knows which keywords are the user's
            not_own = {"kernel", "num_classes", *shape, *model.model_args}
            model.model_args |= {key: kwargs[key] for key in usual if key in kwargs and key not in not_own}
        if checkpoint is not None:
            _record_origin(model, checkpoint, given, usual)
        else:
            for key in ("tag", "label_names", "license"):  # of a checkpoint that this is not
                model.pretrained_cfg.pop(key, None)
    return model.to(**placement) if placement else model  # after that, as rounded weights are others


def _named_checkpoint(architecture: str, cfg: Any, cache_dir: Any) -> Checkpoint:
    """Returns the checkpoint that timm's `pretrained_cfg` names; raises ZooError where it names other weights."""
    if cfg is None or isinstance(cfg, str):
        return find_named(f"{architecture}.{cfg}" if cfg else architecture, cache_dir)
    if cfg.get("source") in ("hf-hub", "local-dir"):  # timm's own, read with our checks
        place = cfg["hf_hub_id" if cfg["source"] == "hf-hub" else "file"]
        return find_checkpoint(f"{cfg['source']}:{place}", cache_dir)
    raise ZooError("pretrained_cfg takes a tag; zoo.load takes a checkpoint, checkpoint_path a .safetensors file")


def _fitting(state: dict[str, Tensor], model: SpikingNetwork, *, features: bool) -> dict[str, Tensor]:
    """Returns the weights of a file, once they fit a network but for what timm adapts: the classifier of other classes,
    and the first convolution of other channels."""
    cfg, adapted = model.pretrained_cfg, []
    cfg.pop("state_dict", None)  # or each copy of the configuration would hold one of the weights
    if features or model.num_classes != cfg["num_classes"]:
        adapted.append(f"{cfg.get('classifier')}.")
    if model.in_chans != cfg["input_size"][0]:
        adapted.append(f"{cfg.get('first_conv')}.")
    names = tuple(adapted)
    held, needed = ({k: v for k, v in s.items() if not k.startswith(names)} for s in (state, model.state_dict()))
    if difference := misfit(held, needed):
        raise ZooError(f"{difference} (give neuron, norm ... as the weights have them)")
    return dict(state)


# Keywords that may be others than in the training: how many steps, and what only training sees.
_FREE = {"timesteps", "surrogate", "scaling", "dropout"}


def _record_origin(model: SpikingNetwork, checkpoint: Checkpoint, given: set[str], usual: Mapping[str, Any]) -> None:
    """Notes on the network whose weights it has: not where a new classifier or first convolution replaced some, nor
    where it computes otherwise than what was trained, as with another neuron. A user chose the keywords `given`;
    `usual` are those where neither the user nor the file says."""
    config = checkpoint.config
    now = {"num_classes": model.num_classes} | model.model_args
    then = dict(usual) | {"num_classes": config["num_classes"]} | config["model_args"]
    if all(now[key] == then.get(key) for key in (given & now.keys()) - _FREE):
        model.weights_sha256, model.training_args = config["weights_sha256"], config.get("recipe")
        model.loaded_digest = network_digest(model)
    else:  # and is not what that tag stands for
        model.pretrained_cfg = {key: value for key, value in model.pretrained_cfg.items() if key != "tag"}


def _defaults(network: type[SpikingNetwork]) -> dict[str, Any]:
    """Returns the keywords that a network takes, with the defaults in the signatures of its class and bases."""
    found: dict[str, Any] = {}
    for cls in network.__mro__:
        for p in inspect.signature(cls.__init__).parameters.values() if issubclass(cls, SpikingNetwork) else ():
            if p.name != "own_args" and p.default is not p.empty:
                found.setdefault(p.name, p.default)
    return found


def _in_our_words(kwargs: Mapping[str, Any], in_file: Mapping[str, Any]) -> dict[str, Any]:
    """Returns keywords, some of which may be timm's, in the names of the networks: its `drop_rate` is `dropout`."""
    ours = dict(kwargs)
    check_global_pool(ours.pop("global_pool", None))
    if (rate := ours.pop("drop_rate", None)) is not None:
        if ours.get("dropout", rate) != rate and "dropout" not in in_file:
            raise ZooError(f"drop_rate {rate!r} and dropout {ours['dropout']!r} are two names of one number: give one")
        ours["dropout"] = rate
    return ours


def _describe(model: SpikingNetwork, cfg: dict[str, Any], *, sized: bool) -> None:
    """Makes a pretrained_cfg speak of the network that was built, where keywords changed channels, classes or sizes."""
    if "num_classes" in cfg:
        cfg["num_classes"] = model.num_classes
    if len(cfg.get("label_names") or ()) != model.num_classes:
        cfg.pop("label_names", None)
    if cfg["input_size"][0] != model.in_chans:
        cfg["input_size"] = (model.in_chans, *cfg["input_size"][1:])
    for key in ("mean", "std"):
        if len(cfg[key]) != model.in_chans:
            cfg[key] = (sum(cfg[key]) / len(cfg[key]),) * model.in_chans
    if sized and (side := model.model_args.get("img_size")):
        cfg["input_size"] = (model.in_chans, side, side)
    if model.encoding != "direct":  # it reads brightness; timm's transforms normalise as this says
        cfg["mean"], cfg["std"] = (0.0,) * model.in_chans, (1.0,) * model.in_chans


def is_model(name: str) -> bool:
    """Returns whether `name`, with or without `.tag`, is an architecture of the zoo."""
    return split_name(name)[0] in ARCHITECTURES


def list_models(
    filter: str | Iterable[str] = "", *, pretrained: bool = False, exclude_filters: str | Iterable[str] = ""
) -> list[str]:
    """Returns, sorted, the architectures that match the wildcard(s) of `filter` and none of `exclude_filters`; with
    `pretrained`, the `name.tag` of those with weights."""
    names = timm.list_models(filter, pretrained=pretrained, exclude_filters=exclude_filters)
    known = set(pretrained_names()) if pretrained else ()
    return [name for name in names if is_model(name) and (not pretrained or name in known)]


def list_pretrained(filter: str | Iterable[str] = "") -> list[str]:
    """Returns, sorted, `name.tag` of every checkpoint that `create_model(..., pretrained=True)` can load."""
    return list_models(filter, pretrained=True)


def create_model(name: str, pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
    """Builds a network of the zoo.

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
    if weights and not (Path(weights).suffix == ".safetensors" and Path(weights).is_file()):
        raise ZooError(f"checkpoint_path takes a .safetensors file, and {str(weights)!r} is none")
    try:
        model: SpikingNetwork = timm.create_model(name, pretrained=pretrained, **kwargs)
    except TypeError as error:
        raise ZooError(f"{name}: {error}") from error
    except SafetensorError as error:
        raise ZooError(f"{weights or name} is not a valid safetensors file: {one_line(error)}") from error
    except RuntimeError as error:
        if not pretrained and not weights:
            raise
        raise ZooError(f"the weights of {weights or name} do not fit {name}, {kwargs}: {one_line(error)}") from error
    if weights and isinstance(model, SpikingNetwork):  # which took the place of those that `pretrained` loads
        model.weights_sha256 = model.training_args = None
    return model


def bundled_args(name: str) -> dict[str, Any]:
    """Returns the keywords that a bundled checkpoint, `architecture.tag`, was built with; none for another name."""
    if not (BUNDLED / name / CONFIG).is_file():
        return {}
    config = read_config(BUNDLED / name / CONFIG)
    return config["model_args"] | {"num_classes": config["num_classes"]}


def model_info(name: str, **kwargs: Any) -> dict[str, Any]:
    """Tells what the zoo knows of one architecture without its weights: parameters, time steps, rule, the code that
    runs its neurons on this machine's devices, tags with weights.

    Args:
        name: an architecture; or with its tag, then as the bundled checkpoint was built.
        kwargs: as for `create_model`.
    """
    model = create_model(name, **bundled_args(name) | kwargs)
    architecture = split_name(name)[0]
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
