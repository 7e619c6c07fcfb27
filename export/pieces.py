"""Pieces of graphs, and the builder that puts them together: inlined under new names, with equal constants shared."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper


class Piece(NamedTuple):
    """A part of a graph, from named inputs to named outputs; an output may be an input or a constant."""

    inputs: list[str]
    outputs: list[str]
    nodes: list[NodeProto]
    constants: dict[str, TensorProto]


class Builder:
    """A graph that grows node by node."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self._known: dict[tuple[Any, ...], str] = {}

    def op(self, kind: str, inputs: Iterable[str], output: str, **attributes: Any) -> str:
        """Appends one node of one output, and returns that output's name."""
        self.nodes.append(helper.make_node(kind, list(inputs), [output], output, **attributes))
        return output

    def constant(self, name: str, value: TensorProto | Any, *, shared: bool = True) -> str:
        """Adds a constant and returns its name: `name`, or, if it may be `shared`, that of an equal one."""
        tensor = value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value), name)
        array = numpy_helper.to_array(tensor)
        key: tuple[Any, ...] = (tensor.data_type, array.shape, array.tobytes()) if shared else (name,)
        if key not in self._known:
            self._known[key] = name
            self.constants[name] = TensorProto()
            self.constants[name].CopyFrom(tensor)
            self.constants[name].name = name
        return self._known[key]

    def add(self, piece: Piece, inputs: Iterable[str], outputs: Iterable[str | None], prefix: str) -> list[str]:
        """Inlines a piece, its inner values under names with a prefix.

        Args:
            piece: what to copy.
            inputs: the values that it reads.
            outputs: names for its outputs, None for the prefixed ones.
            prefix: of the names inside.

        Returns:
            The names of its outputs.
        """
        names = dict(zip(piece.inputs, inputs, strict=True))
        names |= {name: self.constant(prefix + name, value) for name, value in piece.constants.items()}
        wanted = list(outputs)
        for name, new in zip(piece.outputs, wanted, strict=True):
            if new:
                names.setdefault(name, new)
        for node in piece.nodes:
            self.nodes.append(renamed(node, names, prefix))
        # An output that is an input, a constant or another output once more has a name of its own only if one is asked.
        pairs = zip(piece.outputs, wanted, strict=True)
        return [self.op("Identity", [names[n]], new) if new and names[n] != new else names[n] for n, new in pairs]


def renamed(node: NodeProto, names: dict[str, str], prefix: str) -> NodeProto:
    """Returns a copy of a node; `names` says what its values are called, and learns the prefixed names of new ones."""
    for name in node.output:
        names.setdefault(name, prefix + name if name else "")
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names[name] for name in node.output]
    copy.name = copy.output[0]
    return copy


def cut(graph: onnx.GraphProto, inputs: list[str], outputs: list[str]) -> Piece:
    """Returns the part of a graph that computes `outputs`."""
    nodes = needed(graph.node, outputs)
    read = {name for node in nodes for name in node.input} | set(outputs)
    return Piece(inputs, outputs, nodes, {t.name: t for t in graph.initializer if t.name in read})


def needed(nodes: Iterable[NodeProto], outputs: Iterable[str]) -> list[NodeProto]:
    """Returns the nodes, in their order, that `outputs` depend on."""
    wanted, kept = set(outputs), []
    for node in reversed(list(nodes)):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= read_by(node)
    return kept[::-1]


def read_by(node: NodeProto) -> set[str]:
    """Returns the values that a node reads, those inside its subgraphs included."""
    inner = (attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH)
    return set(node.input) | {name for graph in inner for child in graph.node for name in read_by(child)}
