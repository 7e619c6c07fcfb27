"""A family of architectures: one class of networks and a table of its variants, each registered with its `_gs` twin."""

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from timm.models import PretrainedCfg, build_model_with_cfg, generate_default_cfgs
from timm.models._features import FeatureGetterNet  # timm exports no other way to feature_cls
from torch import nn

from .checkpoint import CONFIG, PLACEMENT, WEIGHT_SOURCES, WEIGHTS
from .errors import ZooError, one_of
from .files import read_json
from .hub.client import published
from .load import BUNDLED, find_checkpoint, is_weights, of_architecture, record_origin
from .network import SpikingNetwork, check_global_pool
from .registry import register_model
from .scaling import NONE

GS = {"name": "final_trace", "alpha": 0.5}
"""The scaling of `_gs` models. No rule is distinguishable from another in what was measured (recipes/README.md), so it
is the one that ran in the code behind the paper, see `zoo.scaling`."""

# CIFAR-10's channel statistics; a recipe writes its own data set's into the checkpoint.
_DEFAULT = {
    "num_classes": 10,
    "input_size": (3, 32, 32),
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2470, 0.2435, 0.2616),
    "crop_pct": 1.0,
    "interpolation": "bilinear",
}


def make_cfgs(architectures: Iterable[str], *, first_conv: str = "conv1", classifier: str = "fc") -> Mapping[str, Any]:
    """timm's `default_cfgs`: one entry per bundled or published checkpoint, or one without weights.

    The first one is what the architecture's name alone stands for: of the first data set, that of most time steps,
    and of these the one that was trained longest.
    """
    common = _DEFAULT | {"first_conv": first_conv, "classifier": classifier}
    cfgs: dict[str, Any] = {}
    for architecture in architectures:
        found: dict[str, Any] = {}
        configs = {folder: read_json(folder / CONFIG) for folder in sorted(BUNDLED.glob(f"{architecture}.*"))}
        for folder, config in sorted(configs.items(), key=_place):
            found[folder.name] = common | config["pretrained_cfg"] | {"file": str(folder / WEIGHTS)}
        for name, where in published().items():
            if name.startswith(f"{architecture}."):
                found.setdefault(name, common | {"hf_hub_id": where.hub_id})
        cfgs |= found or {architecture: dict(common)}
    return generate_default_cfgs(cfgs)


def _place(checkpoint: tuple[Any, Mapping[str, Any]]) -> tuple[str, int, int]:
    _, config = checkpoint
    chain = [config["recipe"], *config.get("started_from", [])]
    return config["recipe"]["dataset"], -config["model_args"]["timesteps"], -sum(part["epochs"] or 0 for part in chain)


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


def register_family(
    network: type[SpikingNetwork], variants: Iterable[Variant], *, first_conv: str = "conv1", classifier: str = "fc"
) -> None:
    """Register the variants of a network with timm and with the zoo, each with its twin that gradient scaling trains.

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
        first_conv, classifier: names of the layers that timm adapts to other channels and classes.

    Raises:
        ZooError: a name is already one of timm's or the zoo's.
    """
    module = sys.modules[sys._getframe(1).f_globals["__name__"]]
    twins = []
    for variant in variants:
        scaled = scaled_twin(variant)
        _PLAIN[scaled.name] = variant.name
        twins += [variant, scaled]
    cfgs = make_cfgs([twin.name for twin in twins], first_conv=first_conv, classifier=classifier)
    module.default_cfgs = {**getattr(module, "default_cfgs", {}), **cfgs}  # type: ignore[attr-defined] # timm looks there
    for twin in twins:
        setattr(module, twin.name, register_model(_entrypoint(network, twin, module.__name__)))


_PLAIN: dict[str, str] = {}
"""From each architecture that gradient scaling trains to its plain twin."""


def plain_name(architecture: str) -> str:
    """The twin of an architecture without gradient scaling; itself, if it has no other."""
    return _PLAIN.get(architecture, architecture)


def scaled_twin(variant: Variant) -> Variant:
    """The same network, trained with gradient scaling."""
    text = f"`{variant.name}` trained with gradient scaling."
    return Variant(f"{variant.name}_gs", text, variant.shape, {**variant.defaults, "scaling": GS})


def _entrypoint(network: type[SpikingNetwork], variant: Variant, module: str) -> Callable[..., SpikingNetwork]:
    def entrypoint(pretrained: bool = False, **kwargs: Any) -> SpikingNetwork:
        for key in variant.shape.keys() & kwargs.keys():
            raise ZooError(f"{key} is what makes {variant.name} that network, and cannot be changed")
        return build(network, variant.name, pretrained, variant.defaults, **variant.shape, **kwargs)

    entrypoint.__name__ = entrypoint.__qualname__ = variant.name
    entrypoint.__module__, entrypoint.__doc__ = module, variant.text
    return entrypoint


def build(
    network: type[SpikingNetwork],
    architecture: str,
    pretrained: bool,
    defaults: Mapping[str, Any] | None = None,
    /,  # no keyword of a checkpoint can pass for one of these
    **kwargs: Any,
) -> SpikingNetwork:
    """Build `network` as timm's entrypoints do, with the weights and model arguments of a checkpoint if asked.

    Args:
        defaults: keywords of the architecture that a checkpoint, and then the user, may change.
        kwargs: those of the user, and those of the architecture that nobody may change.

    Raises:
        ZooError: a keyword that the network does not have; `pretrained`, and no weights are published under the name
            and tag, or they cannot be had; a broken checkpoint.
    """
    in_file = kwargs.pop("pretrained_model_args", None) or {}  # which timm added to the user's
    if "own" in kwargs:  # with which a network tells its base what it is: nobody else may
        raise one_of(f"keyword of {architecture}", "own", _keywords(network, defaults or {}))
    kwargs = _in_our_words(kwargs, in_file)
    given = kwargs.keys() - in_file.keys()
    cfg, checkpoint = kwargs.pop("pretrained_cfg", None), None
    if isinstance(cfg, PretrainedCfg):
        cfg = cfg.to_dict()
    # Any other whole configuration names its own source of weights, for timm, and an overlay may.
    overlay = kwargs.get("pretrained_cfg_overlay") or {}
    if pretrained and set(WEIGHT_SOURCES) & overlay.keys():
        _check_source("pretrained_cfg_overlay", overlay)
    elif pretrained:
        source = None
        if cfg is None or isinstance(cfg, str):
            source = f"{architecture}.{cfg}" if cfg else architecture
        elif isinstance(cfg, dict) and cfg.get("source") in ("hf-hub", "local-dir"):  # timm's own, read with our checks
            source = f"{cfg['source']}:{cfg['hf_hub_id' if cfg['source'] == 'hf-hub' else 'file']}"
        if source is not None:
            checkpoint = of_architecture(architecture, find_checkpoint(source, kwargs.get("cache_dir")), source)
            if "scaling" in kwargs and kwargs["scaling"] == checkpoint.config.get("unregistered"):
                kwargs["scaling"] = NONE  # timm gives what the file says
            kwargs = checkpoint.config["model_args"] | kwargs
            cfg = checkpoint.config["pretrained_cfg"] | {"state_dict": checkpoint.state_dict}
    if pretrained and isinstance(cfg, dict):
        _check_source("pretrained_cfg", cfg)
    kwargs = dict(defaults or {}) | kwargs
    placement = {key: kwargs.pop(key) for key in PLACEMENT & kwargs.keys()}
    features = {"feature_cls": StageFeatures, "out_indices": None}  # for `features_only`
    try:
        model = build_model_with_cfg(
            network, architecture, pretrained, pretrained_cfg=cfg, feature_cfg=features, **kwargs
        )
    except TypeError as error:
        wrong = re.search("unexpected keyword argument '(.+?)'", str(error))
        if wrong is None or wrong[1] not in kwargs:
            raise
        known = [key for key in _keywords(network, defaults or {}) if key not in given]
        raise one_of(f"keyword of {architecture}", wrong[1], known) from error
    if pretrained and isinstance(cfg, dict) and "state_dict" in cfg:
        _check_fits(model, architecture, cfg["state_dict"])
    if isinstance(model, StageFeatures):
        for described in (model, model.model):
            described.pretrained_cfg.pop("state_dict", None)
    if isinstance(model, SpikingNetwork):
        _describe(model)
        if checkpoint is not None:
            record_origin(model, checkpoint)
        elif not pretrained:
            for key in ("tag", "label_names", "license"):  # of a checkpoint that this is not
                model.pretrained_cfg.pop(key, None)
    return model.to(**placement) if placement else model


def _check_source(key: str, cfg: Mapping[str, Any]) -> None:
    """Raise ZooError where a configuration of timm's names weights that this would not check.

    Args:
        key: what it is, for the message.
    """
    if named := [name for name in WEIGHT_SOURCES if cfg.get(name) and name not in ("file", "state_dict")]:
        how = 'its file takes a .safetensors file, and zoo.load takes "hf-hub:ORG/NAME"'
        raise ZooError(f"{key} names weights by {named[0]}, which are not loaded: {how}")
    if (file := cfg.get("file")) and not is_weights(file):
        raise ZooError(f"{key}'s file takes a .safetensors file, and {str(file)!r} is none")


def _check_fits(model: nn.Module, architecture: str, state: Mapping[str, Any]) -> None:
    """Raise ZooError where weights are missing or left over, but for a new classifier: where that is one, timm does
    not look."""
    network: Any = model.model if isinstance(model, StageFeatures) else model
    classifier = f"{network.pretrained_cfg['classifier']}."
    keys = {key for key in network.state_dict() if not key.startswith(classifier)}
    left = (
        set() if isinstance(model, StageFeatures) else {key for key in state if not key.startswith(classifier)} - keys
    )
    if wrong := sorted(keys - state.keys()) or sorted(left):
        what = f"{'has' if wrong[0] in keys else 'lacks'} {wrong[0]}"
        raise ZooError(
            f"the weights do not fit {architecture}, which {what} here: give neuron, norm ... as they have it"
        )


def _in_our_words(kwargs: Mapping[str, Any], in_file: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords, of which some may be timm's and some those of a checkpoint's file, in the names of the networks.

    timm's `drop_rate` is `dropout`, and its `global_pool` would be "avg".

    Raises:
        ZooError: both names of one thing with different values, or another pooling.
    """
    ours = dict(kwargs)
    check_global_pool(ours.pop("global_pool", None))
    if (rate := ours.pop("drop_rate", None)) is not None:
        if ours.get("dropout", rate) != rate and "dropout" not in in_file:
            raise ZooError(f"drop_rate {rate!r} and dropout {ours['dropout']!r} are two names of one number: give one")
        ours["dropout"] = rate
    return ours


def _keywords(network: type[SpikingNetwork], defaults: Mapping[str, Any]) -> list[str]:
    """The keywords that may be given to a network: those with defaults in the signatures of its class and bases."""
    classes = [cls for cls in network.__mro__ if issubclass(cls, SpikingNetwork)]
    given = [p for cls in classes for p in inspect.signature(cls.__init__).parameters.values() if p.name != "own"]
    return list(dict.fromkeys([*defaults, *(p.name for p in given if p.default is not p.empty), "drop_rate"]))


class StageFeatures(FeatureGetterNet):
    """What `features_only=True` gives: images [B, C, H, W] to a list of mean-over-time maps, one per stage.

    Raises:
        ZooError: `out_indices` (see `SpikingNetwork.stage_indices`) names a stage that there is not.
    """

    def __init__(self, model: SpikingNetwork, out_indices: int | Sequence[int] | None, **kwargs: Any) -> None:
        super().__init__(model, model.stage_indices(out_indices), **kwargs)


def _describe(model: SpikingNetwork) -> None:
    """Make pretrained_cfg speak of the network that was built, where keywords changed channels, classes or sizes."""
    cfg = model.pretrained_cfg
    cfg.pop("state_dict", None)
    cfg["num_classes"] = model.num_classes
    if len(cfg.get("label_names") or ()) != model.num_classes:
        cfg.pop("label_names", None)
    if cfg["input_size"][0] != model.in_chans:
        cfg["input_size"] = (model.in_chans, *cfg["input_size"][1:])
        for key in ("mean", "std"):
            cfg[key] = (sum(cfg[key]) / len(cfg[key]),) * model.in_chans
    if model.img_size:
        cfg["input_size"] = (model.in_chans, model.img_size, model.img_size)
