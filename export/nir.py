"""NIR, the neuromorphic intermediate representation (Pedersen et al. 2024): a network for other simulators and chips.

A NIR graph has no time steps: it holds for one step what runs in all of them, `dt` 1 apart. Sums are several edges into
one node; batch normalisation is folded; a linear layer over averages is an Affine behind an AvgPool2d. u = decay v + x
becomes tau dv/dt = (v_leak - v) + r x, tau = 1 / (1 - decay), v_leak = 0. What NIR cannot say is refused by name.
"""

import itertools
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from zoo.errors import ZooError
from zoo.files import atomic_write, check_writable
from zoo.neurons import LIF

from .file import describe
from .graph import DOMAIN, NEURONS, Network, layer_of
from .network import exportable, take_apart

_BATCH = -1


class _Value(NamedTuple):
    """A value of the network: the nodes whose outputs sum to it, its shape in NIR, which has no batch, and its axes in
    ONNX, where one is the batch and others of size 1 come and go."""

    sources: tuple[str, ...]
    shape: tuple[int, ...]
    axes: tuple[int, ...]


def to_nir(model: nn.Module, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Writes a network as a NIR graph (HDF5), its description as the graph's metadata.

    The graph takes what the first convolution sees in each step: with direct encoding, the image. Its output is the
    logits of the step; the network's are their mean.

    Args:
        metadata: further entries of the description.

    Returns:
        JSON values: file, bytes, nodes, edges.

    Raises:
        ZooError: NIR has no such operation, `nir` is not installed, or the path cannot be written.
    """
    model, path = exportable(model), Path(path)
    check_writable(path)
    nir, graph = _nir(), nir_graph(model, metadata)
    with tempfile.TemporaryDirectory() as folder:  # it writes to a name alone
        nir.write(partial := Path(folder) / "graph.nir", graph)
        data = partial.read_bytes()
    atomic_write(path, data)
    return {"file": path.name, "bytes": len(data), "nodes": len(graph.nodes), "edges": len(graph.edges)}


def nir_graph(model: nn.Module, metadata: Mapping[str, str] | None = None) -> Any:
    """Returns the `nir.NIRGraph` of a network; errors as for `to_nir`."""
    network = take_apart(model, all_steps=False)
    return _Builder(_nir(), network).graph(describe(model, by_step=True) | dict(metadata or {}))


def _nir() -> Any:
    try:
        import nir
    except ImportError as error:
        raise ZooError("NIR needs the package nir: pip install -e '.[nir]' in the checkout") from error
    return nir


class _Builder:
    def __init__(self, nir: Any, network: Network) -> None:
        self.nir, self.piece, self.size = nir, network.piece, (size := network.size)
        self.layers: dict[str, Any] = network.layers
        self.constants = {name: numpy_helper.to_array(value) for name, value in network.piece.constants.items()}
        self.nodes: dict[str, Any] = {"input": nir.Input({"input": np.array(size)})}
        self.edges: list[tuple[str, str]] = []
        self.values = {"input": _Value(("input",), size, (_BATCH, *size))}
        self.products: dict[str, tuple[_Value, Any, str]] = {}
        """Products with a matrix, whose bias may follow."""

    def graph(self, about: dict[str, str]) -> Any:
        for node in self.piece.nodes:
            self.convert(node)
        logits = self.values["logits"]
        if len(logits.shape) != 1:
            raise _missing(f"logits of the shape {list(logits.shape)}")
        self.nodes["output"] = self.nir.Output({"output": np.array(logits.shape)})
        self.edges += [(source, "output") for source in logits.sources]
        return self.nir.NIRGraph(self.nodes, self.edges, metadata=about | {"dt": 1.0, "spike": "v >= v_threshold"})

    def connect(self, name: str, node: Any, x: _Value, shape: tuple[int, ...], *axes: int) -> _Value:
        name, taken = name.replace("/", "_"), self.nodes.keys() | {"output"}
        if name in taken:  # a layer that runs again, or is called so
            name = next(other for i in itertools.count(2) if (other := f"{name}_{i}") not in taken)
        self.nodes[name] = node
        self.edges += [(source, name) for source in x.sources]
        return _Value((name,), shape, axes or (_BATCH, *shape))

    def convert(self, node: onnx.NodeProto) -> None:
        """Appends what one ONNX node is in NIR."""
        out = node.output[0]
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.domain == DOMAIN:
            if node.op_type != NEURONS:
                raise _missing("factor for each time step (tebn)")
            self.values[out] = self.neurons(layer_of(node), self.values[node.input[0]])
            return
        x = self.values.get(node.input[0])
        fixed = [self.constants[name] for name in node.input[1:] if name in self.constants]
        if node.op_type in ("Conv", "AveragePool") and x is not None and len(x.axes) != len(self.size) + 1:
            raise _missing(f"{node.op_type} of the shape {list(x.axes[1:])}")
        if node.op_type == "Add" and node.input[0] in self.products and fixed:
            x, weight, name = self.products.pop(node.input[0])
            self.values[out] = self.connect(name, self.nir.Affine(weight, fixed[0]), x, fixed[0].shape)
        elif node.op_type == "Add" and x is not None and not fixed:
            self.values[out] = self.sum(x, self.values[node.input[1]])
        elif node.op_type == "MatMul" and x is not None and fixed and x.axes == (_BATCH, len(fixed[0])):
            self.products[out] = x, fixed[0].T.copy(), node.input[1].removesuffix(".weight/transposed")
        elif node.op_type == "Conv" and x is not None and fixed:
            self.values[out] = self.conv(node, x, fixed, attributes)
        elif node.op_type == "AveragePool" and x is not None and len(x.shape) == len(self.size):
            kernel = np.array(attributes["kernel_shape"])
            pads = _padding(attributes)
            if attributes.get("ceil_mode") or (any(pads) and not attributes.get("count_include_pad")):
                raise _missing("average pool with ceil_mode, or with padding that it leaves out of its means")
            self.values[out] = self.pool(out, x, kernel, np.array(attributes.get("strides", kernel)), pads)
        elif node.op_type == "ReduceMean" and x is not None and len(fixed) == 1:
            self.values[out] = self.mean(out, x, fixed[0], attributes.get("keepdims", 1))
        elif node.op_type in ("Reshape", "Flatten", "Unsqueeze", "Squeeze", "Gather", "Identity") and x is not None:
            self.values[out] = self.view(out, x, _reshaped(node, x.axes, fixed, attributes))
        else:
            raise _missing(node.op_type)

    def neurons(self, name: str, x: _Value) -> _Value:
        layer = self.layers[name]
        if not (isinstance(layer, LIF) and layer.of_numbers):
            raise _missing(f"neuron {type(layer).__name__}")
        if layer.soft_reset:
            raise _missing("reset by subtraction")
        decay = torch.as_tensor(layer.decay).item()
        full = lambda value: np.full(x.shape, value, np.float32)  # noqa: E731
        gain = torch.as_tensor(layer.gain).item()
        if decay == 1:
            node = self.nir.IF(full(gain), full(layer.threshold), full(0))
        else:
            tau = 1 / (1 - decay)
            node = self.nir.LIF(full(tau), full(gain * tau), full(0), full(layer.threshold), full(0))
        return self.connect(name, node, x, x.shape, *x.axes)

    def conv(self, node: onnx.NodeProto, x: _Value, fixed: list[Any], attributes: dict[str, Any]) -> _Value:
        weight, bias = fixed if len(fixed) > 1 else (fixed[0], np.zeros(len(fixed[0]), np.float32))
        name = node.input[1].removesuffix(".weight")
        if len(x.shape) == 1:  # a linear layer, as a convolution over one position
            if weight.shape[2:] != (1, 1) or any(attributes.get("pads", ())) or attributes.get("group", 1) != 1:
                raise _missing("convolution of vectors")
            made = self.nir.Affine(weight.reshape(len(weight), -1), bias)
            return self.connect(name, made, x, (len(weight),), _BATCH, len(weight), 1, 1)
        stride, dilation = (tuple(attributes.get(key, (1, 1))) for key in ("strides", "dilations"))
        pads = _padding(attributes)
        side = tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(x.shape[1:], pads, dilation, weight.shape[2:], stride, strict=True)
        )
        if attributes.get("group", 1) != 1 or weight.shape[2] != weight.shape[3]:  # whose sizes nir infers otherwise
            raise _missing("convolution in groups, or of a window that is not square")
        made = self.nir.Conv2d(x.shape[1:], weight, stride, pads, dilation, 1, bias)
        return self.connect(name, made, x, (len(weight), *side))

    def pool(self, name: str, x: _Value, kernel: Any, stride: Any, pads: tuple[int, ...] = (0, 0)) -> _Value:
        side = tuple((n + 2 * p - k) // s + 1 for n, p, k, s in zip(x.shape[1:], pads, kernel, stride, strict=True))
        return self.connect(name, self.nir.AvgPool2d(kernel, stride, np.array(pads)), x, (x.shape[0], *side))

    def mean(self, name: str, x: _Value, over: Any, keepdims: int) -> _Value:
        """Appends a mean over the positions of a map, or over axes that one step does not need."""
        over = {int(axis) % len(x.axes) for axis in over}
        kept = tuple(1 if i in over else n for i, n in enumerate(x.axes) if keepdims or i not in over)
        if any(x.axes[axis] != 1 for axis in over):
            if len(x.shape) != len(self.size) or over != {2, 3}:
                raise _missing(f"mean over axes {sorted(over)} of the shape {list(x.axes)}")
            side = np.array(x.shape[1:])
            x = self.pool(name, x, side, side)
        return self.view(f"{name}/view", x, kept)

    def view(self, name: str, x: _Value, axes: tuple[int, ...]) -> _Value:
        """Appends a view: maps become vectors; else only axes of size 1, which one step does not need, come and go."""
        if axes == x.axes:
            return x
        before, after = (tuple(n for n in some if n not in (1, _BATCH)) for some in (x.axes, axes))
        if len(x.shape) == 1 and after == before:
            return x._replace(axes=axes)
        if len(after) > 1 or int(np.prod(after)) != int(np.prod(before)) or _BATCH not in axes:
            raise _missing(f"change of the shape {list(x.axes)} to {list(axes)}")
        node = self.nir.Flatten({"input": np.array(x.shape)}, start_dim=0)
        return self.connect(name, node, x, (int(np.prod(x.shape)),), *axes)

    def sum(self, a: _Value, b: _Value) -> _Value:
        if a.axes != b.axes or set(a.sources) & set(b.sources):
            raise _missing("sum of values in different shapes, or of one with itself")
        return a._replace(sources=a.sources + b.sources)


def _reshaped(node: onnx.NodeProto, axes: tuple[int, ...], fixed: list[Any], asked: dict[str, Any]) -> tuple[int, ...]:
    """Returns the axes of a view of a value with these; `view` sees whether it is one."""
    numbers = [int(n) for n in np.ravel(fixed[0])] if fixed else []
    if node.op_type == "Identity":
        return axes
    if node.op_type == "Flatten" and asked.get("axis", 1) == 1:
        return _BATCH, int(np.prod(axes[1:]))
    if node.op_type == "Reshape":
        return tuple(numbers)
    if node.op_type == "Unsqueeze":
        size, old = len(axes) + len(numbers), iter(axes)
        new = {n % size for n in numbers}
        return tuple(1 if i in new else next(old) for i in range(size))
    if node.op_type == "Gather" and numbers == [0] and not fixed[0].shape:
        numbers = [asked.get("axis", 0)]
    elif node.op_type != "Squeeze" or not fixed:
        raise _missing(node.op_type)
    gone = {n % len(axes) for n in numbers}
    if any(axes[i] != 1 for i in gone):
        raise _missing(node.op_type)
    return tuple(n for i, n in enumerate(axes) if i not in gone)


def _padding(attributes: dict[str, Any]) -> tuple[int, ...]:
    """Returns the rows and columns on each side."""
    pads = tuple(attributes.get("pads", (0, 0, 0, 0)))
    if pads[:2] != pads[2:]:
        raise _missing(f"padding of one side more than of the other ({', '.join(map(str, pads))})")
    return pads[:2]


def _missing(operation: str) -> ZooError:
    return ZooError(f"cannot export to NIR: it has no {operation}")
