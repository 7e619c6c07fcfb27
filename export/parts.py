"""A network taken apart for export: its skeleton, its neurons, and what belongs to single time steps."""

from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import nn

from zoo.errors import ZooError
from zoo.network import SpikingNetwork, check_registered
from zoo.neurons import PSN, SpikingNeuron
from zoo.neurons.norm import TEBN

from .encodings import input_shape
from .neurons import Dynamics, trace_neurons
from .skeleton import Skeleton, inference_copy, trace_skeleton
from .spikes import steep_spikes

SPIKES = "spikes"
"""A layer's are LAYER/spikes in a graph, their count spikes/LAYER."""


class Parts(NamedTuple):
    """What every layout is made of."""

    skeleton: Skeleton
    neurons: dict[str, Dynamics]
    factors: dict[str, NDArray[Any]]
    """[T] of each normalisation that has a factor for every step."""
    timesteps: int
    encoding: str
    size: tuple[int, ...]
    """Channels, height, width of one step's input."""
    classes: int

    def with_steep_spikes(self) -> "Parts":
        """The same with the spikes' fast form; see `export.spikes`."""
        shapes, neurons = self.skeleton.shapes, {}
        for name, n in self.neurons.items():
            # A factor with an entry for each channel would give a smaller state, one of the whole layer, another shape.
            alike = all(state.batched and state.shape == shapes[name] for state in n.states)
            shape = shapes[name] if alike else ()
            first = n.first and steep_spikes(n.first, shape)
            any_step = n.any_step and steep_spikes(n.any_step, shape)
            later = [steep_spikes(piece, shape) for piece in n.later]
            neurons[name] = n._replace(first=first, later=later, any_step=any_step)
        return self._replace(neurons=neurons)


def neuron_layers(model: nn.Module) -> dict[str, SpikingNeuron]:
    """The neuron layers of a network by name, in the order of `named_modules`.

    Raises:
        ZooError: not a network of the zoo with a classifier and neurons.
    """
    check_registered(model)
    modules = model.named_modules(remove_duplicate=False)
    layers = {name: module for name, module in modules if isinstance(module, SpikingNeuron)}
    if not layers or not isinstance(getattr(model, "pretrained_cfg", None), dict):
        raise ZooError(
            f"cannot export {type(model).__name__}: it is not a spiking network of the zoo, with neuron layers and a "
            "pretrained_cfg; build one with zoo.create_model or zoo.load_checkpoint"
        )
    if not getattr(model, "num_classes", 0):
        raise ZooError("cannot export a network without a classifier (num_classes 0): reset_classifier adds one")
    if isinstance(model, SpikingNetwork):
        _check_classifier(model)
    if SPIKES in layers:
        raise ZooError(f"cannot export a network with a neuron layer called {SPIKES!r}, as graphs call what it sends")
    if len({id(layer) for layer in layers.values()}) < len(layers):
        raise ZooError("cannot export a network that uses one neuron layer under two names: give each its own")
    return layers


def _check_classifier(model: SpikingNetwork) -> None:
    with torch.device("meta"):
        own = getattr(model.make_classifier(model.head_hidden_size), "out_features", None)
    if (outputs := getattr(model.fc, "out_features", own)) != own:
        found = f"its classifier has {outputs} outputs, one of {model.num_classes} classes has {own}"
        raise ZooError(f"cannot export this network: {found}: reset_classifier(N) puts in one for N classes")


def input_size(model: nn.Module) -> tuple[int, int, int]:
    """Channels, height, width of a network's images."""
    size = tuple(model.pretrained_cfg.get("input_size") or ())  # type: ignore[operator, union-attr]
    if len(size) != 3:
        raise ZooError(f"pretrained_cfg['input_size'] must be (channels, height, width), not {size}")
    return size


def network_input(model: nn.Module) -> tuple[int, ...]:
    """The shape of what the network takes in all steps, without the batch."""
    steps = next(iter(neuron_layers(model).values())).timesteps
    return tuple(map(int, input_shape(getattr(model, "encoding", "direct"), input_size(model), steps)))


def take_apart(model: nn.Module, *, all_steps: bool, fold_norms: bool = True) -> Parts:
    """The parts of a network, which stays as it is.

    Args:
        model: a network of the zoo.
        all_steps: the skeleton is that of all steps, folded into the batch; otherwise of one.
        fold_norms: fold batch normalisation into the convolutions; otherwise see `export.norms`.

    Raises:
        ZooError: a network that cannot be exported.
    """
    layers = neuron_layers(model)
    steps, size = next(iter(layers.values())).timesteps, input_size(model)
    encoding = getattr(model, "encoding", "direct")
    network = inference_copy(model)
    neurons: dict[str, Any] = {name: network.get_submodule(name) for name in layers}
    norms = {name: norm for name, norm in network.named_modules() if isinstance(norm, TEBN)}
    factors = {name: norm.p.detach().numpy() for name, norm in norms.items()}
    whole = network_input(model) if all_steps else size
    skeleton = trace_skeleton(network, list(layers), whole, steps if all_steps else None, fold_norms=fold_norms)
    return Parts(
        skeleton,
        trace_neurons(neurons, skeleton.shapes),
        factors,
        steps,
        encoding,
        size,
        model.num_classes,  # type: ignore[arg-type]
    )


def needs_all_steps(model: nn.Module) -> bool:
    """Whether a layer of neurons takes no single steps."""
    return any(isinstance(layer, PSN) for layer in neuron_layers(model).values())
