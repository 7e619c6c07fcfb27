"""Flat: every time step written out, one graph of standard operators without state.

Each step has convolutions of its own, so that its current need not be split off a batch of all steps; what is the same
in every step, as the stem of an image, is there once.
"""

import numpy as np

from ..assembly import Assembly
from ..encodings import frames_of
from ..parts import Parts
from .one_step import add_step, fix


def unrolled(parts: Parts) -> Assembly:
    """All steps of a network, from "input" to "logits"."""
    g, steps = Assembly(), parts.timesteps
    frames = frames_of(g, parts.encoding, g.constant("last_step", np.float32(steps - 1)))
    fixed = fix(g, parts, image=frames is None)
    states: dict[str, list[str]] = {}
    logits = []
    for t in range(steps):
        names = dict(fixed)
        if frames is not None:
            names["input"] = frames(g, g.constant(f"step_{t}", np.int64(t)), str(t))
        forms = {layer: neurons.step(t) for layer, neurons in parts.neurons.items()}
        factors = {layer: g.constant(f"{layer}/{t}", factor[t]) for layer, factor in parts.factors.items()}
        logits.append(add_step(g, parts, names, forms, factors, states, str(t)))
    if steps == 1:
        g.op("Identity", logits, "logits")
    else:
        total = g.op("Sum", logits, "logits/sum")
        g.op("Div", [total, g.constant("steps", np.float32(steps))], "logits")
    return g
