"""From a registered name to a network: default configurations, bundled weights, timm's builder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import timm.models
from timm.models import build_model_with_cfg, generate_default_cfgs

from ..checkpoint import CONFIG, WEIGHTS, read_checkpoint, record_origin
from ..errors import ZooError
from ..files import read_json
from ..network import SpikingNetwork

BUNDLED = Path(__file__).resolve().parent.parent / "weights"
"""One checkpoint directory each, named `architecture.tag`."""

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
    """timm's `default_cfgs` for some architectures: one entry a bundled checkpoint, or one without weights."""
    common = _DEFAULT | {"first_conv": first_conv, "classifier": classifier}
    cfgs: dict[str, Any] = {}
    for architecture in architectures:
        folders = sorted(BUNDLED.glob(f"{architecture}.*"))
        for folder in folders:
            cfgs[folder.name] = common | read_json(folder / CONFIG)["pretrained_cfg"] | {"file": str(folder / WEIGHTS)}
        if not folders:
            cfgs[architecture] = dict(common)
    return generate_default_cfgs(cfgs)


def build(network: type[SpikingNetwork], architecture: str, pretrained: bool, **kwargs: Any) -> SpikingNetwork:
    """Build `network` as timm's entrypoints do, with the weights and model arguments of a bundled checkpoint if asked.

    Raises:
        ZooError: `pretrained`, and no weights are published under the name and tag.
    """
    cfg, checkpoint = kwargs.pop("pretrained_cfg", None), None
    # A whole configuration (a directory's, a Hub repository's, an overlay) names its own source of weights, for timm.
    if pretrained and (cfg is None or isinstance(cfg, str)) and not kwargs.get("pretrained_cfg_overlay"):
        tag = cfg or timm.models.get_pretrained_cfg(architecture).tag
        folder = BUNDLED / f"{architecture}.{tag}"
        if not folder.is_dir():
            raise ZooError(no_weights(architecture))
        checkpoint = read_checkpoint(folder)
        kwargs = checkpoint.config["model_args"] | kwargs
        cfg = checkpoint.config["pretrained_cfg"] | {"state_dict": checkpoint.state_dict}
    model = build_model_with_cfg(network, architecture, pretrained, pretrained_cfg=cfg, **kwargs)
    if isinstance(model, SpikingNetwork):
        _describe(model)
        if checkpoint is not None:
            record_origin(model, checkpoint)
    return model


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


def no_weights(architecture: str) -> str:
    """What to tell somebody who asks for weights that nobody has published."""
    bundled = ", ".join(sorted(folder.name for folder in BUNDLED.glob("*.*")))
    return (
        f"{architecture} has no published weights. `bash recipes/cifar10.sh --model {architecture}` trains it; "
        f"pretrained models: {bundled or 'none yet'}"
    )
