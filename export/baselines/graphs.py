"""Baselines that are the network's own flat graph with other neurons."""

from typing import Any

import numpy as np
from onnx import helper
from torch import nn

from ..assembly import Piece
from ..graph import flat_graph
from ..neurons import Dynamics
from ..parts import Parts, take_apart
from ..timing.subjects import Graph, graph_of


def floor(model: nn.Module, **how: Any) -> Graph:
    """Identity neurons: each step has all convolutions, and nothing else.

    ONNX Runtime would merge steps that compute the same. So the first layer of neurons multiplies its currents by
    another number in each step: one operation, in the place of a neuron's five.
    """
    parts = take_apart(model, all_steps=False)
    first = next(iter(parts.skeleton.shapes))
    neurons = {name: _same(Piece(["currents"], ["currents"], [], {}), old) for name, old in parts.neurons.items()}
    shape = parts.skeleton.shapes[first]
    scaled = [_scaled(t, shape) for t in range(parts.timesteps)]
    neurons[first] = neurons[first]._replace(first=scaled[0], later=scaled[1:])
    return graph_of(flat_graph(parts._replace(neurons=neurons)), "floor", **how)


def relu(model: nn.Module, **how: Any) -> Graph:
    """ReLU in place of neurons, at one time step: a network of the same layers that does not spike, in float32."""
    parts: Parts = take_apart(model, all_steps=False)
    piece = Piece(["currents"], ["active"], [helper.make_node("Relu", ["currents"], ["active"])], {})
    neurons = {name: _same(piece, old) for name, old in parts.neurons.items()}
    return graph_of(flat_graph(parts._replace(neurons=neurons, timesteps=1)), "relu", **how)


def _same(piece: Piece, old: Dynamics) -> Dynamics:
    """Neurons without state that do the same in every step."""
    return Dynamics(piece, [piece], None, piece, [], old.kind)


def _scaled(t: int, shape: tuple[int, ...]) -> Piece:
    entries = np.full((1, shape[0], 1, 1) if len(shape) == 3 else (), 1 + t / 64, np.float32)
    constant = helper.make_tensor("factor", 1, entries.shape, entries.ravel())
    node = helper.make_node("Mul", ["currents", "factor"], ["scaled"])
    return Piece(["currents"], ["scaled"], [node], {"factor": constant})
