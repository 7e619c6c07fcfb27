"""What an image costs each network, and which names its keywords take: `python -m zoo.models.catalogue` writes them to
catalogue.json, after a network or another part is added, for commands that answer before PyTorch is loaded."""

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CommandParser, ZooError
from ..files import write_json
from ..names import CATALOGUE, plain_name
from ..network import SpikingNetwork
from ..neurons import SpikingNeuron, list_neurons
from ..neurons.encoding import list_encodings
from ..neurons.norm import list_norms
from ..neurons.surrogate import list_surrogates
from ..registry import create_model, list_models
from ..scaling.spec import list_scalings


def count(name: str, **kwargs: Any) -> dict[str, Any]:
    """Returns params, timesteps (by default), input_size and dense_operations of a network, keywords as for
    `create_model`.

    dense_operations are the multiply-accumulates of convolutions and linear layers for one image and one time step,
    were nothing sparse. Normalisation, neurons and products inside attention are not counted. A spiking network does a
    share of the operations, additions where the input is spikes, and with direct encoding those of the stem once, not
    at every step.

    Raises:
        ZooError: it does not run on an image of its input size.
    """
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


def keyword_names() -> dict[str, list[str]]:
    """Returns the names that each keyword of a network takes here, with those of plugins."""
    return {
        "scaling": list_scalings(), "neuron": list_neurons(), "surrogate": list_surrogates(), "norm": list_norms(),
        "encoding": list_encodings(),
    }  # fmt: skip


def catalogue() -> dict[str, Any]:
    """Returns what catalogue.json holds, counted anew: see `zoo.names.sizes` and `zoo.names.keywords`."""
    networks = {name: count(name) for name in list_models() if plain_name(name) == name}
    return {"networks": networks, "keywords": keyword_names()}


if __name__ == "__main__":
    CommandParser(prog="python -m zoo.models.catalogue", description=f"Write {CATALOGUE.name} anew.").parse_args()
    write_json(CATALOGUE, catalogue())
