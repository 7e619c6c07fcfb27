"""Makes what a file is timed against, from the network that it is of.

eager, compiled    the network in PyTorch, neurons in the fused kernel
event              the same, eager, whose convolutions skip zeros (zoo.event_driven)
floor              its graph with identity neurons: what convolutions cost, and all else but neurons
relu               its graph with ReLU in place of neurons, at one time step: the network that does not spike
relu-int8          the same in eight bits, by ONNX Runtime's own quantisation: what int8 files are up against
spikingjelly       the same network of SpikingJelly's layers, exported by torch.onnx
"""

import copy
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.models.sresnet import SResNet
from zoo.network import SpikingNetwork
from zoo.neurons import SpikingNeuron
from zoo.neurons.surrogate import resolve_surrogate

from .graph import Dynamics, Piece, finished, unrolled
from .network import take_apart
from .run import CPU, device_of
from .timing import Subject, TimedGraph, TimedNetwork, graph_of
from .trace import trace


def baseline(name: str, model: SpikingNetwork, provider: str, optimization: str) -> Subject:
    """Makes one of `BASELINES` from a network in evaluation mode, which stays as it is, but for PyTorch's may be moved
    to another device."""
    graphs = {"floor": _floor, "relu": _relu, "relu-int8": _relu_int8, "spikingjelly": _spikingjelly}
    if name.startswith("relu") and model.encoding == "frames":
        raise ZooError(f"no {name} baseline of a network for event frames: at one time step it would see one of them")
    if device_of(provider) == "cuda" and name in ("event", "relu-int8"):
        raise ZooError(f"{name} runs on a CPU alone, and this is {provider}: leave it out of --against")
    if name in graphs:
        return graphs[name](model, provider=provider, optimization=optimization)
    device = device_of(provider)
    if device == "cuda" and not torch.cuda.is_available():
        raise ZooError(
            f"{name} would run where {provider} does, and PyTorch sees no GPU here: leave it out of --against"
        )
    return TimedNetwork(name, model, model.input_shape, device, compiled=name == "compiled", events=name == "event")


def _floor(model: nn.Module, **how: Any) -> TimedGraph:
    """Puts in identity neurons: each step has all convolutions, and nothing else.

    ONNX Runtime would merge steps that compute the same. So the first layer of neurons multiplies its currents by
    another number in each step: one operation, in the place of a neuron's five.
    """
    parts = take_apart(model, all_steps=False)
    first = next(iter(parts.shapes))
    neurons = {name: _stateless(Piece(["currents"], ["currents"], [], {}), old) for name, old in parts.neurons.items()}
    shape = parts.shapes[first]
    scaled = [_scaled(t, shape) for t in range(parts.timesteps)]
    neurons[first] = neurons[first]._replace(first=scaled[0], later=scaled[1:])
    network = parts._replace(neurons=neurons)
    return graph_of(finished(network, unrolled(network)), "floor", **how)


def _relu(model: nn.Module, **how: Any) -> TimedGraph:
    """Puts in ReLU, at one time step: a network of the same layers that does not spike, in float32."""
    parts = take_apart(model, all_steps=False)
    piece = Piece(["currents"], ["active"], [helper.make_node("Relu", ["currents"], ["active"])], {})
    neurons = {name: _stateless(piece, old) for name, old in parts.neurons.items()}
    network = parts._replace(neurons=neurons, timesteps=1)
    return graph_of(finished(network, unrolled(network)), "relu", **how)


def _relu_int8(model: nn.Module, **how: Any) -> TimedGraph:
    """Quantises all of that network as ONNX Runtime's users do: convolutions, with ReLU in them, and sums are of bytes.

    Ranges are those of noise: they do not matter for time.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    graph = _relu(model)
    feeds = iter([noise := graph.feeds(8)])
    logits = onnxruntime.InferenceSession(graph.data, providers=[CPU]).run(["logits"], noise)
    if not np.isfinite(logits).all():
        raise ZooError("no relu-int8 of this network: with ReLU for neurons, its numbers grow beyond float32")

    class Noise(CalibrationDataReader):
        def get_next(self) -> Any:
            return next(feeds, None)

    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    logging.disable(logging.WARNING)  # it advises what makes no difference here
    try:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "int8.onnx"
            quantize_static(onnx.load_model_from_string(graph.data), out, Noise(), per_channel=True, **kinds)
            data = out.read_bytes()
    finally:
        logging.disable(logging.NOTSET)
    return TimedGraph("relu-int8", data, graph.inputs, graph.outputs, precision="int8", **how)


def _stateless(piece: Piece, old: Dynamics) -> Dynamics:
    """Returns neurons without state that do the same in every step."""
    return Dynamics(piece, [piece], None, piece, [], old.kind)


def _scaled(t: int, shape: tuple[int, ...]) -> Piece:
    entries = np.full((1, shape[0], 1, 1) if len(shape) == 3 else (), 1 + t / 64, np.float32)
    constant = helper.make_tensor("factor", 1, entries.shape, entries.ravel())
    node = helper.make_node("Mul", ["currents", "factor"], ["scaled"])
    return Piece(["currents"], ["scaled"], [node], {"factor": constant})


class _FromRest(nn.Module):
    """SpikingJelly's network as its users get it into ONNX: the reset of all neurons is in the forward."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        self.network.clear(self.network)
        return self.network(x)


def _spikingjelly(model: nn.Module, **how: Any) -> TimedGraph:
    """Rebuilds the network of SpikingJelly's layers with its weights, and checks logits and gradients in float64."""
    from recipes.peers import SpikingJellyResNet, check_equal

    if not isinstance(model, SResNet) or model.encoding != "direct":
        raise ZooError("no spikingjelly baseline of this network: only of the sresnet family, with direct encoding")
    size: Any = model.pretrained_cfg["input_size"]
    ours = copy.deepcopy(model)
    for layer in ours.modules():
        if isinstance(layer, SpikingNeuron):  # an inference does not see it, and SpikingJelly has this one
            layer.surrogate = resolve_surrogate("triangle")
    peer = SpikingJellyResNet(ours).eval()
    check_equal(ours, peer, size)
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"]}
    proto = trace(_FromRest(peer), (torch.zeros(2, *size),), ({0: "batch"},), what="SpikingJelly's network", **names)
    return graph_of(proto, "spikingjelly", **how)
