"""The kinds of neurons by name: ours, and those that users register."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..plugins import check_new
from ..specs import split_spec
from .base import SpikingNeuron
from .clif import CLIF
from .glif import GLIF
from .lif import IF, LIF, PLIF
from .psn import PSN
from .surrogate import Surrogate
from .trial import try_neuron

Kind = TypeVar("Kind", bound=type[SpikingNeuron])

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
    name, given = split_spec("neuron", spec, {name: list(neuron.spec_keys) for name, neuron in _NEURONS.items()})
    return _NEURONS[name](timesteps, surrogate=surrogate, kernel=kernel, **given)


def register_neuron(name: str, cls: type[SpikingNeuron] | None = None) -> Callable[[Kind], Kind]:
    """Decorator: make a subclass of `zoo.SpikingNeuron` a kind of neuron under a name, to be used like ours.

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

    The class is tried at once on a few currents. No fused kernel runs it; in training, export and streaming its `step`
    is all there is.

    Args:
        name: letters, digits and _.
        cls: the class, where it is no decorator: `zoo.register_neuron("my_lif", MyLIF)`.

    Raises:
        ZooError: a name that is taken; or the class is no neuron, the message says in what.
    """

    def register(cls: Kind) -> Kind:
        try_neuron(name, cls)
        check_new("neuron", name, before, cls)
        _NEURONS[name] = cls
        return cls

    before = _NEURONS[name] if name in list_neurons() else None
    check_new("neuron", name, before)
    if cls is not None:
        register(cls)
    return register
