"""From a registered name to a network: default configurations, where weights come from, timm's builder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm.models
from timm.models import build_model_with_cfg, generate_default_cfgs
from timm.models._features import FeatureGetterNet  # timm exports no other way to feature_cls

from ..checkpoint import CONFIG, WEIGHTS, Checkpoint, read_checkpoint, record_origin
from ..config_file import WEIGHT_SOURCES
from ..errors import ZooError, one_of
from ..files import read_json
from ..hub_published import no_weights, published
from ..network import SpikingNetwork
from ..scaling import NONE

BUNDLED = Path(__file__).resolve().parent.parent / "weights"
"""One checkpoint directory each, named `architecture.tag`."""

GS = {"name": "channel", "alpha": 0.5, "rank": 1, "every": 3}
"""The rule of `_gs` models: the best arm of the screening, in its cheap form (recipes/README.md says how it did)."""

# CIFAR-10's channel statistics; a recipe writes its own data set's into the checkpoint.
_DEFAULT = {
    "num_classes": 10,
    "input_size": (3, 32, 32),
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2470, 0.2435, 0.2616),
    "crop_pct": 1.0,
    "interpolation": "bilinear",
}


def make_cfgs(architectures: Iterable[str], *, first_conv: str, classifier: str) -> Mapping[str, Any]:
    """timm's `default_cfgs`: one entry a bundled or published checkpoint, or one without weights.

    The first one is what the architecture's name alone stands for: of the first data set, that of most time steps.
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


def _place(checkpoint: tuple[Path, Mapping[str, Any]]) -> tuple[str, int]:
    _, config = checkpoint
    return config["recipe"]["dataset"], -config["model_args"]["timesteps"]


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
        ZooError: `pretrained`, and no weights are published under the name and tag, or they cannot be had; a broken
            checkpoint.
    """
    cfg, checkpoint = kwargs.pop("pretrained_cfg", None), None
    # Any other whole configuration names its own source of weights, for timm, and an overlay may.
    overlay = kwargs.get("pretrained_cfg_overlay") or {}
    if pretrained and not set(WEIGHT_SOURCES) & overlay.keys():
        if cfg is None or isinstance(cfg, str):
            tag = cfg or timm.models.get_pretrained_cfg(architecture).tag
            checkpoint = _find(architecture, tag, kwargs.get("cache_dir"))
            kwargs = checkpoint.config["model_args"] | kwargs
        elif isinstance(cfg, dict) and cfg.get("source") in ("hf-hub", "local-dir"):
            checkpoint = _read_source(architecture, cfg, kwargs.get("cache_dir"))
            if "scaling" in kwargs and kwargs["scaling"] == checkpoint.config.get("unregistered"):
                kwargs["scaling"] = NONE  # timm gives what the file says
        if checkpoint is not None:
            cfg = checkpoint.config["pretrained_cfg"] | {"state_dict": checkpoint.state_dict}
    if "gs" in architecture.split("_"):
        kwargs = {"scaling": GS} | kwargs
    kwargs = dict(defaults or {}) | kwargs
    features = {"feature_cls": StageFeatures}  # for `features_only`
    model = build_model_with_cfg(network, architecture, pretrained, pretrained_cfg=cfg, feature_cfg=features, **kwargs)
    if isinstance(model, SpikingNetwork):
        _describe(model)
        if checkpoint is not None:
            record_origin(model, checkpoint)
    return model


def _find(architecture: str, tag: str, cache_dir: Any) -> Checkpoint:
    """The checkpoint of a name and tag: bundled, or else published, from the cache or the Hub."""
    name = f"{architecture}.{tag}"
    if (BUNDLED / name).is_dir():
        return _of(architecture, read_checkpoint(BUNDLED / name), name)
    where = published().get(name)
    if where is None:
        bundled = {folder.name for folder in BUNDLED.glob("*.*") if folder.is_dir()}
        available = sorted(bundled | published().keys())
        if tags := [other.partition(".")[2] for other in available if other.startswith(f"{architecture}.")]:
            raise one_of(f"tag of {architecture}", tag, tags)
        raise ZooError(no_weights(architecture, available))
    checkpoint = read_checkpoint(_from_hub(where.hub_id, cache_dir))
    if checkpoint.config["weights_sha256"] != where.sha256:
        raise ZooError(f"the weights of {where.hub_id} are not those that this zoo was released with as {name}")
    return _of(architecture, checkpoint, where.hub_id)


def _read_source(architecture: str, cfg: dict[str, Any], cache_dir: Any) -> Checkpoint:
    """The checkpoint that timm found the configuration `cfg` in, read with our checks instead of timm's loaders."""
    if cfg["source"] == "local-dir":
        return _of(architecture, read_checkpoint(cfg["file"]), cfg["file"])
    return _of(architecture, read_checkpoint(_from_hub(cfg["hf_hub_id"], cache_dir)), cfg["hf_hub_id"])


def _of(architecture: str, checkpoint: Checkpoint, origin: str) -> Checkpoint:
    """`checkpoint`, if it is one of that architecture."""
    if (held := checkpoint.config["architecture"]) != architecture:
        raise ZooError(f"{origin} holds a checkpoint of {held!r}, not of {architecture!r}")
    return checkpoint


def _from_hub(name: str, cache_dir: Any) -> Path:
    from ..hub_fetch import fetch_checkpoint  # only where a Hub is needed

    return fetch_checkpoint(name, cache_dir=cache_dir)


class StageFeatures(FeatureGetterNet):
    """What `features_only=True` gives: images [B, C, H, W] to a list of mean-over-time maps, one a stage."""

    def __init__(self, model: SpikingNetwork, out_indices: int | Sequence[int], **kwargs: Any) -> None:
        if tuple(out_indices if not isinstance(out_indices, int) else ()) == (0, 1, 2, 3, 4):  # timm's default
            out_indices = tuple(range(len(model.stages)))
        super().__init__(model, out_indices, **kwargs)


def _describe(model: SpikingNetwork) -> None:
    """Make pretrained_cfg speak of the network that was built, where keywords changed channels or classes."""
    cfg = model.pretrained_cfg
    cfg.pop("state_dict", None)
    cfg["num_classes"] = model.num_classes
    if len(cfg.get("label_names") or ()) != model.num_classes:
        cfg.pop("label_names", None)
    if cfg["input_size"][0] != model.in_chans:
        cfg["input_size"] = (model.in_chans, *cfg["input_size"][1:])
        for key in ("mean", "std"):
            cfg[key] = (sum(cfg[key]) / len(cfg[key]),) * model.in_chans
