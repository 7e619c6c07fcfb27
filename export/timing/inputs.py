"""What a graph from anywhere is fed: names, types and shapes of its inputs."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from zoo.errors import ZooError, shown

_FLOATS = ("float32", "float16", "float64")
_LARGEST = 2**28  # entries of an input


class Input(NamedTuple):
    """An input of a graph; an axis of 0 is the batch."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def noise(self, batch: int) -> NDArray[Any]:
        """Normal noise, the same every time."""
        draw = np.random.default_rng(0)
        return draw.standard_normal(self._sizes(batch), dtype=np.float32).astype(self.dtype)

    def zeros(self, batch: int) -> NDArray[Any]:
        """Zeros: what states begin with."""
        return np.zeros(self._sizes(batch), self.dtype)

    def _sizes(self, batch: int) -> list[int]:
        return [size or batch for size in self.shape]


def find_inputs(
    proto: onnx.ModelProto, origin: str, batches: Sequence[int], shape: Sequence[int] | None = None
) -> list[Input]:
    """The inputs of a graph, the first one of floats in front.

    A dynamic axis is the batch if it is the first, and 1 if it is another.

    Args:
        proto: the graph.
        origin: its file, for errors.
        batches: sizes that it will be run with.
        shape: of an entry of the batch, for the first one of floats.

    Raises:
        ZooError: no input of floats, one whose type or shape cannot be fed, a batch that the graph does not take.
    """
    stored = {tensor.name for tensor in proto.graph.initializer}
    found = [_input(value, origin) for value in proto.graph.input if value.name not in stored]
    first = next((i for i, (kind, _) in enumerate(found) if kind.dtype in _FLOATS), None)
    if first is None:
        raise ZooError(f"{origin} has no input of floating-point numbers: it cannot be measured here")
    (image, known), others = found.pop(first), [kind for kind, _ in found]
    if shape is not None:
        sizes = (image.shape[0] if known and image.shape else 0, *shape)
        fixed = zip(image.shape[1:], shape, strict=False) if known else []
        if min(shape) < 1 or (known and (len(sizes) != len(image.shape) or any(a not in (0, b) for a, b in fixed))):
            there = [size or "?" for size in image.shape[1:]]
            raise ZooError(f"{origin}: the input {shown(image.name)} takes {there} for each image, not {list(shape)}")
        image = image._replace(shape=sizes)
    elif not known:
        raise ZooError(f"{origin} does not say the shape of its input {shown(image.name)}: give --input-shape C H W")
    inputs = [_closed(kind) for kind in (image, *others)]
    for kind in inputs:
        if math.prod(kind.shape[1:]) * max(batches) > _LARGEST:
            raise ZooError(f"{origin}: the input {shown(kind.name)} {list(kind.shape)} is too large to be measured")
    if inputs[0].shape and inputs[0].shape[0] and set(batches) != {inputs[0].shape[0]}:
        size = inputs[0].shape[0]
        raise ZooError(f"{origin} takes {size} images at once, no other number: --batch {size}")
    return inputs


def _input(value: onnx.ValueInfoProto, origin: str) -> tuple[Input, bool]:
    """An input with 0 for each open axis, and whether its shape is known at all."""
    kind = value.type.tensor_type
    try:
        if value.type.WhichOneof("value") != "tensor_type":
            raise KeyError
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
        if dtype.kind not in "fiub":
            raise KeyError
    except (KeyError, TypeError, ValueError) as error:
        raise ZooError(f"{origin}: the input {shown(value.name)} is no tensor of plain numbers") from error
    return Input(value.name, dtype.name, tuple(max(d.dim_value, 0) for d in kind.shape.dim)), kind.HasField("shape")


def _closed(kind: Input) -> Input:
    return kind._replace(shape=(*kind.shape[:1], *(size or 1 for size in kind.shape[1:])))
