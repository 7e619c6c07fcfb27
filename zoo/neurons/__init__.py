"""Spiking neurons and what stands around them: normalisation, surrogate gradients, encodings, time folding.

`base.py` says what every kind of neuron is; each kind has a file. `create_neuron` makes one from the value of the
keyword `neuron`, a name or `{"name": "lif", "decay": 0.5, ...}`.
"""

from collections.abc import Mapping
from typing import Any

from ..specs import split_spec
from .base import SpikingNeuron
from .clif import CLIF
from .glif import GLIF
from .lif import IF, LIF, PLIF
from .psn import PSN
from .surrogate import Surrogate

__all__ = ["CLIF", "GLIF", "IF", "LIF", "PLIF", "PSN", "SpikingNeuron", "create_neuron", "list_neurons"]

_NEURONS: dict[str, type[SpikingNeuron]] = {"lif": LIF, "if": IF, "plif": PLIF, "clif": CLIF, "glif": GLIF, "psn": PSN}


def list_neurons() -> list[str]:
    """The names that the `neuron` keyword takes."""
    return list(_NEURONS)


def create_neuron(
    spec: str | Mapping[str, Any],
    timesteps: int,
    surrogate: str | Mapping[str, Any] | Surrogate = "triangle",
    kernel: str = "auto",
) -> SpikingNeuron:
    """A layer of neurons from a name or `{"name": "lif", "decay": 0.5, ...}` (the keywords of the class).

    Raises:
        ZooError: unknown name, keyword or value.
    """
    name, given = split_spec("neuron", spec, {name: neuron.spec_keys for name, neuron in _NEURONS.items()})
    return _NEURONS[name](timesteps, surrogate=surrogate, kernel=kernel, **given)
