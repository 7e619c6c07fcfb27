"""Spiking neurons and what stands around them: normalisation, surrogate gradients, encodings, time folding.

`base.py` says what every kind of neuron is; each kind has a file, and kinds.py the table of them. `create_neuron` makes
one from the value of the keyword `neuron`, a name or `{"name": "lif", "decay": 0.5, ...}`; `register_neuron` adds one.
"""

from .base import SpikingNeuron
from .clif import CLIF
from .glif import GLIF
from .kinds import create_neuron, list_neurons, register_neuron
from .lif import IF, LIF, PLIF
from .psn import PSN

__all__ = [
    "CLIF",
    "GLIF",
    "IF",
    "LIF",
    "PLIF",
    "PSN",
    "SpikingNeuron",
    "create_neuron",
    "list_neurons",
    "register_neuron",
]
