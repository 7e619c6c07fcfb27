"""What the zoo tells of its models and rules: sizes, what an image costs, what others published of the same network."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from timm.models import split_model_name_tag
from torch import Tensor, nn

from ..errors import ZooError
from ..files import read_json, write_json
from ..names import SIZES, sizes
from ..network import SpikingNetwork
from ..neurons import SpikingNeuron
from ..registry import bundled_args, create_model, list_models, list_pretrained, model_info, plain_name
from ..scaling.rules import CONTROLS, PRESETS

_REFERENCES = Path(__file__).resolve().parent / "references.json"
_SCALES = {
    "weight": "the weight gradient of each time step",
    "window": "the weight gradient of the whole window",
    "error": "the error that the weight gradient is computed from",
    "error_down": "the error, for the weight gradient and as it is passed down",
}


def references(architecture: str) -> list[dict[str, Any]]:
    """Published results of a network, which others measured: model, network, method, T, cifar10, cifar100 (top-1, %),
    strong_augmentation, citation, read_in; see models/references.json.

    A twin with gradient scaling is the same network and has those of its plain twin; a width variant is another network
    and has none.
    """
    return [row for row in all_references() if row["model"] == plain_name(architecture)]


@cache
def all_references() -> Any:
    """Returns the published results of every network; see `references`."""
    return read_json(_REFERENCES)["rows"]


def summary(name: str, **kwargs: Any) -> dict[str, Any]:
    """Returns the row of an architecture, without tag, in a list; keywords as for `create_model`.

    JSON values: model, params, timesteps (by default), input_size, pretrained, references; and dense_operations, the
    multiply-accumulates of convolutions and linear layers for one image and one time step, were nothing sparse.
    Normalisation, neurons and products inside attention are not counted. A spiking network does a share of the
    operations, additions where the input is spikes, and with direct encoding those of the stem once, not at every step.
    """
    sizes = _sizes(name, **kwargs) if kwargs else _default_sizes(plain_name(name))
    return {"model": name, **sizes, "pretrained": list_pretrained(f"{name}.*"), "references": references(name)}


def _sizes(name: str, **kwargs: Any) -> dict[str, Any]:
    # On the meta device nothing is allocated or computed; a network that looks at values needs the CPU.
    for device in ("meta", "cpu"):
        try:
            with torch.device(device):
                model = create_model(name, kernel="reference", **kwargs)
                once = create_model(name, kernel="reference", **kwargs | {"timesteps": 1})
                operations = _dense_operations(once)
        except RuntimeError as error:
            failure = error
            continue
        return {
            "params": sum(p.numel() for p in model.parameters()),
            "dense_operations": operations,
            "timesteps": model.timesteps,
            "input_size": list(model.pretrained_cfg["input_size"]),
        }
    raise ZooError(f"{name} does not run on an image of its input size: {failure}") from failure


def _default_sizes(name: str) -> dict[str, Any]:
    return sizes().get(name) or _sizes(name)  # of a plugin's


def measure_sizes() -> dict[str, dict[str, Any]]:
    """Returns what models/sizes.json holds, built and counted anew: see `zoo.names.sizes`."""
    return {name: _sizes(name) for name in list_models() if plain_name(name) == name}


def _dense_operations(model: SpikingNetwork) -> int:
    total = 0

    def add(layer: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal total
        weight: Any = layer.weight
        total += output.numel() * weight[0].numel()

    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            module.register_forward_hook(add)
        elif isinstance(module, SpikingNeuron | nn.BatchNorm2d):
            # Neither is counted nor changes a shape in one time step, and both are slow on the meta device.
            module.forward = lambda x, **_: x  # type: ignore[method-assign]
    image = torch.zeros(1, *model.pretrained_cfg["input_size"])
    with torch.no_grad():
        model.eval()(image[:, None] if model.encoding == "frames" else image)
    return total


def describe(name: str) -> dict[str, Any]:
    """All that the zoo knows of a model (`zoo.model_info` and `summary`), with its tag as the bundled checkpoint was
    built, or of a rule of gradient scaling. Raises ZooError for an unknown name, or a network that does not run."""
    if name in PRESETS or name in CONTROLS:
        return _rule(name)
    return model_info(name) | summary(split_model_name_tag(name)[0], **bundled_args(name))


def _rule(name: str) -> dict[str, Any]:
    rule = PRESETS.get(name)
    text = CONTROLS[name].__doc__ if rule is None else rule.text or rule.factor.__doc__
    scales = "what the rule scales that it is the control of, 'of'"
    if rule is not None:
        scales = _SCALES["window" if rule.window else rule.locality]
    return {"scaling": name, "description": (text or "").strip(), "scales": scales, "control": rule is None}


if __name__ == "__main__":  # python -m zoo.models.catalogue: after a network is added
    write_json(SIZES, measure_sizes())
