"""Function: a graph as one reads it, with a model-local function for each kind of neuron: Conv -> Conv -> LIF.

The second convolution is the normalisation of the first. Time is folded into the batch, so that every layer is there
once. ONNX Runtime inlines the functions.
"""

import itertools

from onnx import FunctionProto, helper

from ..assembly import Assembly, Piece, renamed
from ..parts import Parts
from ..skeleton import DOMAIN, layer_of
from ..trace import OPSET
from .folded import over_time


def with_functions(parts: Parts) -> tuple[Assembly, list[FunctionProto]]:
    """All steps of a network, from "input" to "logits", and the functions of its neurons."""
    g, piece = Assembly(), parts.skeleton.piece
    names = {name: g.constant(name, value, shared=False) for name, value in piece.constants.items()}
    names["input"] = "input"
    functions: dict[bytes, FunctionProto] = {}
    for node in piece.nodes:
        if node.domain != DOMAIN:
            g.nodes.append(renamed(node, names, ""))
            continue
        layer, out = layer_of(node), node.output[0]
        neurons = parts.neurons[layer]
        function = _function(over_time(neurons, parts.timesteps), neurons.kind)
        key = function.SerializeToString(deterministic=True)
        if key not in functions:
            taken = {other.name for other in functions.values()}
            numbered = (f"{neurons.kind}_{i}" for i in itertools.count(2))
            function.name = next(name for name in itertools.chain([neurons.kind], numbered) if name not in taken)
            functions[key] = function
        names[out] = f"{layer}/spikes"
        kind = functions[key].name
        g.nodes.append(helper.make_node(kind, [names[node.input[0]]], [names[out]], layer, domain=DOMAIN))
    return g, list(functions.values())


def _function(piece: Piece, kind: str) -> FunctionProto:
    """A function under names that do not depend on where the piece came from."""
    names = dict(zip(piece.inputs + piece.outputs, ["currents", "spikes"], strict=True))
    constants = []
    for i, (name, value) in enumerate(piece.constants.items()):
        names[name] = f"c{i}"
        constants.append(helper.make_node("Constant", [], [names[name]], value=value))
        constants[-1].attribute[0].t.name = ""
    for node in piece.nodes:
        for name in node.output:
            names.setdefault(name, f"v{len(names)}")
    nodes = [renamed(node, names, "") for node in piece.nodes]
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_function(DOMAIN, kind, ["currents"], ["spikes"], [*constants, *nodes], opset)
