"""Time folded into the batch, as in PyTorch: each layer once, over all steps, its neurons step by step in between."""

import numpy as np
from onnx import helper

from ..assembly import Assembly, Piece, needed, renamed
from ..neurons import Dynamics
from ..parts import Parts
from ..skeleton import DOMAIN, layer_of


def folded(parts: Parts) -> Assembly:
    """All steps of a network, from "input" to "logits"; neurons are inlined."""
    g, piece = Assembly(), parts.skeleton.piece
    names = {name: g.constant(name, value, shared=False) for name, value in piece.constants.items()}
    names["input"] = "input"
    for node in piece.nodes:
        if node.domain != DOMAIN:
            g.nodes.append(renamed(node, names, ""))
            continue
        layer, out = layer_of(node), node.output[0]
        over = over_time(parts.neurons[layer], parts.timesteps)
        names[out] = g.add(over, [names[node.input[0]]], [f"{layer}/spikes"], f"{layer}/")[0]
    return g


def over_time(neurons: Dynamics, steps: int) -> Piece:
    """Neurons over all steps: currents [T*B, ...], time-major, to spikes of the same shape."""
    g = Assembly()
    if neurons.whole is not None:
        shape = [g.op("Shape", ["currents"], "shape", start=1)]
        unfolded = g.op("Concat", [g.constant("unfold", np.array([steps, -1], np.int64)), *shape], "unfolded", axis=0)
        x = g.op("Reshape", ["currents", unfolded], "by_step")
        g.add(neurons.whole, [x], ["spikes"], "")
        return Piece(["currents"], ["spikes"], g.nodes, g.constants)
    currents = ["currents"]
    if steps > 1:
        currents = [f"{t}/current" for t in range(steps)]
        g.nodes.append(helper.make_node("Split", ["currents"], currents, "split", axis=0, num_outputs=steps))
    states: list[str] = []
    spikes = []
    for t, current in enumerate(currents):
        s, *states = g.add(neurons.step(t), [current, *states], [None] * (1 + len(neurons.states)), f"{t}/")
        spikes.append(s)
    g.op("Concat", spikes, "spikes", axis=0)
    nodes = needed(g.nodes, ["spikes"])
    return Piece(["currents"], ["spikes"], nodes, g.constants)
