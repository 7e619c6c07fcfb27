"""Spiking neurons and what stands around them: normalisation, surrogate gradients, encodings.

`base.py` says what every kind of neuron is, and how time is folded into the batch; each kind has a file.
`create_neuron` makes one from the value of the keyword `neuron`, a name or `{"name": "lif", "decay": 0.5, ...}`;
`register_neuron` adds one of a user's.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import ZooError
from ..plugins import check_new
from ..specs import Spec, split_spec
from .base import SpikingNeuron
from .clif import CLIF
from .glif import GLIF
from .lif import IF, LIF, PLIF
from .psn import PSN
from .surrogate import Surrogate

Neuron = TypeVar("Neuron", bound=type[SpikingNeuron])

_NEURONS: dict[str, type[SpikingNeuron]] = {"lif": LIF, "if": IF, "plif": PLIF, "clif": CLIF, "glif": GLIF, "psn": PSN}


def list_neurons() -> list[str]:
    """Returns the names that the `neuron` keyword takes."""
    return list(_NEURONS)


def create_neuron(
    spec: Spec, timesteps: int, surrogate: Spec | Surrogate = "triangle", kernel: str = "auto", **changes: Any
) -> SpikingNeuron:
    """Makes a layer of neurons from a name or `{"name": "lif", "decay": 0.5, ...}`, keywords of the class, before which
    `changes` go."""
    name, given = split_spec("neuron", spec, {name: list(neuron.spec_keys) for name, neuron in _NEURONS.items()})
    return _NEURONS[name](timesteps, surrogate=surrogate, kernel=kernel, **given | changes)


def register_neuron(name: str) -> Callable[[Neuron], Neuron]:
    """Decorator: makes a subclass of `zoo.SpikingNeuron` a kind of neuron under a name, to be used like ours.

    >>> @zoo.register_neuron("my_lif")
    ... class MyLIF(zoo.SpikingNeuron):
    ...     spec_keys = ("threshold", "decay")  # what {"name": "my_lif", ...} may say
    ...     def __init__(self, timesteps=4, *, decay=0.5, **others):
    ...         super().__init__(timesteps, **others)
    ...         self.decay = decay
    ...     def step(self, x_t, state=None):  # currents [B, ...] to spikes [B, ...] and what the next step needs
    ...         u = x_t if state is None else self.decay * state + x_t
    ...         s = self.surrogate.spike(u - self.threshold)
    ...         return s, u * (1 - s)

    `step` takes currents [B, ...] and a state, None before the first step, to spikes 0 and 1 in their shape and type,
    and a new state: a tensor, a tuple of tensors, or None. All that a neuron remembers belongs in there. No fused
    kernel runs it; in training, export and streaming its `step` is all there is.

    Raises:
        ZooError: a name that is taken, or of more than letters, digits and _; a class that is no neuron with a `step`.
    """

    check_new("neuron", name)  # of a decorator without its name the class would be lost

    def register(cls: Neuron) -> Neuron:
        check_new("neuron", name, cls, _NEURONS[name] if name in list_neurons() else None)
        if not isinstance(cls, type) or not issubclass(cls, SpikingNeuron) or cls.step is SpikingNeuron.step:
            what = "a subclass of zoo.SpikingNeuron with a step(x_t, state)"
            raise ZooError(f"neuron {name!r} must be {what}, not {cls}")
        _NEURONS[name] = cls
        return cls

    return register
