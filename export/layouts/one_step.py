"""One time step of a network, as a part of any graph: what is the same in every step, and what is not."""

from collections.abc import Mapping

from ..assembly import Assembly, Piece, renamed
from ..parts import Parts
from ..skeleton import DOMAIN, FACTOR, layer_of


def fix(g: Assembly, parts: Parts, *, image: bool) -> dict[str, str]:
    """Append what is the same in every step, and give its names: constants and, if the input is one `image` for all
    steps, what it goes through before the first neurons."""
    piece = parts.skeleton.piece
    fixed = {name: g.constant(name, value, shared=False) for name, value in piece.constants.items()}
    if image:
        fixed["input"] = "input"
        for node in piece.nodes:
            if node.domain != DOMAIN and all(name in fixed for name in node.input if name):
                g.nodes.append(renamed(node, fixed, ""))
    return fixed


def add_step(
    g: Assembly,
    parts: Parts,
    names: dict[str, str],
    forms: Mapping[str, Piece],
    factors: Mapping[str, str],
    states: dict[str, list[str]],
    step: str,
) -> str:
    """Append one step, and give the name of its logits.

    Args:
        g: what to append to.
        parts: the network.
        names: of the values that are there, the step's "input" among them.
        forms: of the neurons in this step.
        factors: name of the factor of each per-step normalisation.
        states: names of the states of each layer that has run; they become those after the step.
        step: ends the names of the spikes, and begins those of all else.
    """
    for node in parts.skeleton.piece.nodes:
        out = node.output[0]
        if out in names:
            continue
        if node.domain != DOMAIN:
            g.nodes.append(renamed(node, names, f"{step}/"))
            continue
        x, layer = names[node.input[0]], layer_of(node)
        if node.op_type == FACTOR:
            names[out] = g.op("Mul", [x, factors[layer]], f"{step}/{out}")
            continue
        given = [x, *states.get(layer, [])]
        results = [f"{layer}/spikes/{step}", *[None] * (len(forms[layer].outputs) - 1)]
        names[out], *states[layer] = g.add(forms[layer], given, results, f"{layer}/{step}/")
    return names["logits"]
