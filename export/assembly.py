"""Putting a graph together from pieces: nodes copied under new names, constants shared, what nobody needs left out.

Pieces are ONNX protos, whose values are known by their names alone; so copying one is a matter of renaming.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
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


class Assembly:
    """A graph that grows node by node."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self._known: dict[tuple[Any, ...], str] = {}

    def op(self, kind: str, inputs: Iterable[str], output: str, **attributes: Any) -> str:
        """Append one node of one output, and give that output's name."""
        self.nodes.append(helper.make_node(kind, list(inputs), [output], output, **attributes))
        return output

    def constant(self, name: str, value: TensorProto | Any, *, shared: bool = True) -> str:
        """The name of a constant: `name`, or, where it may be `shared`, that of an equal one that is there already."""
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
        """Append a copy of a piece, its inner values under names with a prefix.

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
    """A copy of a node; `names` says what its values are called, and learns the prefixed names of new ones."""
    for name in node.output:
        names.setdefault(name, prefix + name if name else "")
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names[name] for name in node.output]
    copy.name = copy.output[0]
    return copy


def cut(graph: onnx.GraphProto, inputs: list[str], outputs: list[str]) -> Piece:
    """The part of a graph that computes `outputs`."""
    nodes = needed(graph.node, outputs)
    read = {name for node in nodes for name in node.input} | set(outputs)
    return Piece(inputs, outputs, nodes, {t.name: t for t in graph.initializer if t.name in read})


def relabelled(piece: Piece) -> Piece:
    """The same piece, each value named after its operation and place: pieces that are alike have the same names."""
    names = {name: f"input_{i}" for i, name in enumerate(piece.inputs)}
    read = [name for node in piece.nodes for name in node.input] + piece.outputs
    constants = [name for name in dict.fromkeys(read) if name in piece.constants]
    names |= {name: f"constant_{i}" for i, name in enumerate(constants)}
    nodes, seen = [], Counter[str]()
    for node in piece.nodes:
        kind = node.op_type.lower()
        for name in node.output:
            seen[kind] += 1
            names[name] = f"{kind}_{seen[kind]}" if name else ""
        nodes.append(renamed(node, names, ""))
    inputs, outputs = ([names[name] for name in values] for values in (piece.inputs, piece.outputs))
    return Piece(inputs, outputs, nodes, {names[name]: piece.constants[name] for name in constants})


STEP = "step"
"""The last input of a piece from `merged`: the number of the step, int64 without axes."""


def merged(pieces: list[Piece]) -> Piece | None:
    """One piece for several that differ in constants alone: it takes the number of the piece, and those of a table.

    None if they differ in more.
    """
    first, nodes = pieces[0], []
    if len({len(piece.nodes) for piece in pieces}) > 1:
        return None
    constants: dict[str, TensorProto] = {}
    names = [dict(zip(piece.inputs, first.inputs, strict=True)) for piece in pieces]
    for i, alike in enumerate(zip(*(piece.nodes for piece in pieces), strict=True)):
        node = NodeProto()
        node.CopyFrom(alike[0])
        for other, known in zip(alike, names, strict=True):
            if (other.op_type, list(other.attribute)) != (node.op_type, list(node.attribute)):
                return None
            known.update(zip(other.output, node.output, strict=True))
        for j, operands in enumerate(zip(*(other.input for other in alike), strict=True)):
            values = [piece.constants.get(name) for piece, name in zip(pieces, operands, strict=True)]
            if all(value is None for value in values):
                if len({known.get(name, name) for known, name in zip(names, operands, strict=True)}) > 1:
                    return None
                continue
            if any(value is None for value in values):
                return None
            arrays = [numpy_helper.to_array(value) for value in values if value is not None]
            if len({array.shape for array in arrays}) > 1:
                return None
            name = f"constant_{i}_{j}"
            if all(array.tobytes() == arrays[0].tobytes() for array in arrays):
                constants[name] = numpy_helper.from_array(arrays[0], name)
            else:
                table = f"{name}/table"
                constants[table] = numpy_helper.from_array(np.stack(arrays), table)
                nodes.append(helper.make_node("Gather", [table, STEP], [name], name, axis=0))
            node.input[j] = name
        nodes.append(node)
    outputs = [[known.get(name) for name in p.outputs] for p, known in zip(pieces, names, strict=True)]
    if any(None in given or given != outputs[0] for given in outputs):
        return None
    return Piece([*first.inputs, STEP], list(first.outputs), nodes, constants)


def needed(nodes: Iterable[NodeProto], outputs: Iterable[str]) -> list[NodeProto]:
    """The nodes, in their order, that `outputs` depend on."""
    wanted, kept = set(outputs), []
    for node in reversed(list(nodes)):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= read_by(node)
    return kept[::-1]


def read_by(node: NodeProto) -> set[str]:
    """The values that a node reads, those inside its subgraphs included."""
    inner = (attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH)
    return set(node.input) | {name for graph in inner for child in graph.node for name in read_by(child)}


def make_model(
    assembly: Assembly,
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    opsets: Mapping[str, int],
    ir_version: int,
    functions: Iterable[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """The model of what was assembled, as far as its outputs need it, with the shapes of its values."""
    nodes = needed(assembly.nodes, [value.name for value in outputs])
    read = {name for node in nodes for name in read_by(node)} | {value.name for value in outputs}
    constants = [tensor for name, tensor in assembly.constants.items() if name in read]
    graph = helper.make_graph(nodes, "main_graph", inputs, outputs, constants)
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return helper.make_model(graph, functions=list(functions), opset_imports=imports, ir_version=ir_version)
