"""Flat: every time step written out, one graph of standard operators without state.

Each step has convolutions of its own, so that its current need not be split off a batch of all steps; what is the same
in every step, as the stem of an image, is there once.
"""

import numpy as np

from ..assembly import Assembly, renamed
from ..encodings import frames_of
from ..parts import Parts
from ..skeleton import DOMAIN, FACTOR, layer_of


def unrolled(parts: Parts) -> Assembly:
    """All steps of a network, from "input" to "logits"."""
    g, piece, steps = Assembly(), parts.skeleton.piece, parts.timesteps
    fixed = {name: g.constant(name, value) for name, value in piece.constants.items()}
    frames = frames_of(g, parts.encoding, g.constant("last_step", np.float32(steps - 1)))
    if frames is None:
        fixed["input"] = "input"
    states: dict[str, list[str]] = {}
    logits = []
    for t in range(steps):
        names = dict(fixed)
        if frames is not None:
            names["input"] = frames(g, g.constant(f"step_{t}", np.int64(t)))
        for node in piece.nodes:
            if node.domain == DOMAIN:
                x, layer, out = names[node.input[0]], layer_of(node), node.output[0]
                if node.op_type == FACTOR:
                    names[out] = g.op("Mul", [x, g.constant(f"{layer}/{t}", parts.factors[layer][t])], f"{t}/{out}")
                    continue
                form = parts.neurons[layer].step(t)
                results: list[str | None] = [f"{layer}/spikes/{t}", *[None] * (len(form.outputs) - 1)]
                names[out], *states[layer] = g.add(form, [x, *states.get(layer, [])], results, f"{layer}/{t}/")
            elif not all(name in fixed for name in node.input if name):
                g.nodes.append(renamed(node, names, f"{t}/"))
            elif t == 0:
                g.nodes.append(renamed(node, fixed, ""))
                names |= fixed
        logits.append(names["logits"])
    mean_of(g, logits)
    return g


def mean_of(g: Assembly, logits: list[str]) -> None:
    """Append "logits", the mean over the logits of all steps."""
    if len(logits) == 1:
        g.op("Identity", logits, "logits")
    else:
        steps = g.constant("steps", np.float32(len(logits)))
        g.op("Div", [g.op("Sum", logits, "logits/sum"), steps], "logits")
