"""A neuron of somebody's own, tried on a few currents before it gets a name: what a network would make of it."""

import inspect
from typing import Any

import torch
from torch import Tensor

from ..errors import ZooError, one_line
from .base import SpikingNeuron

_STEPS = 3


def try_neuron(name: str, cls: Any) -> None:
    """Raise ZooError, which says what is wrong, unless `cls` is a kind of neuron that a network can run and train.

    It has a `step`, from currents [B, ...] and a state to spikes 0 and 1 in their shape, with a gradient, and a new
    state: a tensor, a tuple of tensors, or None for neurons that remember nothing. All that it remembers is in there.
    """
    wrong = _wrong(cls)
    if wrong:
        raise ZooError(f"neuron {name!r} ({getattr(cls, '__name__', cls)}) {wrong}")


def _wrong(cls: Any) -> str | None:
    if not isinstance(cls, type) or not issubclass(cls, SpikingNeuron):
        return "is no subclass of zoo.SpikingNeuron"
    if cls.step is SpikingNeuron.step:
        return "has no step(self, x_t, state=None), which gives the spikes and the new state"
    if not isinstance(cls.spec_keys, list | tuple) or not all(isinstance(key, str) for key in cls.spec_keys):
        return f"has spec_keys {cls.spec_keys!r}, not a list of the names of its keywords"
    if unknown := [key for key in cls.spec_keys if key not in _keywords(cls)]:
        return f"lists {unknown[0]!r} in spec_keys, which its constructor does not take"
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        # Whatever a class does that nobody has seen before.
        try:
            neuron = cls(_STEPS, surrogate="triangle", kernel="auto")
        except Exception as error:
            how = f"{cls.__name__}(timesteps, surrogate=..., kernel=...)"
            return f"cannot be made as networks do, {how}: {type(error).__name__}: {one_line(error)}"
        if not hasattr(neuron, "surrogate"):
            return "does not call super().__init__(timesteps, **others) in its constructor"
        try:
            return _wrong_steps(neuron)
        except Exception as error:
            return f"fails on currents of shape [2, 3, 4, 4]: {type(error).__name__}: {one_line(error)}"


def _wrong_steps(neuron: SpikingNeuron) -> str | None:
    # Far below, around and beyond the threshold, so that some spike and some do not.
    currents = torch.linspace(-2, 4, _STEPS * 2 * 3 * 4 * 4).view(_STEPS, 2, 3, 4, 4) * neuron.threshold
    currents = currents[:, :, torch.tensor([1, 2, 0])].requires_grad_()
    state, spikes = None, []
    for x in currents:
        out: Any = neuron.step(x, state)
        if not isinstance(out, tuple) or len(out) != 2:
            return f"returns {_said(out)} from step, not the pair (spikes, state)"
        s, state = out
        if not isinstance(s, Tensor) or s.shape != x.shape or s.dtype != x.dtype:
            return f"gives {_said(s)} for currents {_said(x)}, not spikes of the same shape and type"
        if not ((s == 0) | (s == 1)).all():
            return f"gives values such as {s[(s != 0) & (s != 1)][0].item():g}, where spikes are 0 or 1"
        parts = state if isinstance(state, tuple) else () if state is None else (state,)
        if not all(isinstance(part, Tensor) for part in parts):
            return f"has the state {_said(state)}, not a tensor, a tuple of tensors or None"
        if not s.requires_grad:
            return "gives spikes without a gradient: make them with self.surrogate.spike(u - self.threshold)"
        spikes.append(s.detach())
    again = _forward(neuron, currents, 0)
    if not torch.equal(again, _forward(neuron, currents, 0)):
        return "gives other spikes in a second forward pass: all that it remembers belongs in the state of step"
    if neuron.fused and not torch.equal(again, torch.cat(spikes)):
        return "says fused = True, and the fused kernel gives other spikes than its step"
    return None


@torch.no_grad()
def _forward(neuron: SpikingNeuron, currents: Tensor, seed: int) -> Tensor:
    torch.default_generator.manual_seed(seed)  # a neuron may draw random numbers; those of a GPU are not put back
    return neuron(currents.flatten(0, 1))


def _keywords(cls: type) -> set[str]:
    """The keywords that the constructor takes, those that it hands on to its bases among them."""
    found: set[str] = set()
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            found |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return found


def _said(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_said, value))})"
    return type(value).__name__
