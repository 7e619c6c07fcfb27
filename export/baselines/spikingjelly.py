"""SpikingJelly's network as its users get it into ONNX: by torch.onnx, the reset of all neurons in the forward."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from recipes.studies.speed.peers import SpikingJellyResNet, check_equal
from zoo.errors import ZooError
from zoo.models.sresnet import SResNet
from zoo.neurons.surrogate import resolve_surrogate

from ..parts import neuron_layers
from ..timing.subjects import Graph, graph_of
from ..trace import trace


class _FromRest(nn.Module):
    def __init__(self, network: SpikingJellyResNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        self.network.clear(self.network)
        logits: Tensor = self.network(x)
        return logits


def spikingjelly(model: nn.Module, **how: Any) -> Graph:
    """The network rebuilt of SpikingJelly's layers with the same weights, its logits and gradients checked in float64.

    Raises:
        ZooError: SpikingJelly is not installed, the network is no sresnet with direct encoding or has neurons that
            SpikingJelly lacks, or the two do not compute the same.
    """
    if not isinstance(model, SResNet) or model.encoding != "direct":
        raise ZooError("no spikingjelly baseline of this network: only of the sresnet family, with direct encoding")
    size: Any = model.pretrained_cfg["input_size"]
    ours = copy.deepcopy(model)
    for layer in neuron_layers(ours).values():
        layer.surrogate = resolve_surrogate("triangle")  # which an inference does not see, and SpikingJelly has
    peer = SpikingJellyResNet(ours).eval()
    check_equal(ours, peer, size)
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"]}
    proto = trace(_FromRest(peer), (torch.zeros(2, *size),), ({0: "batch"},), what="SpikingJelly's network", **names)
    return graph_of(proto, "spikingjelly", **how)
