"""A file against the graph that its network exports to now: operations, constants, metadata."""

import json
from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from zoo.errors import ZooError, one_of, quoted
from zoo.schema import Count, Number, fits

from .counts import PREFIX, RATES, STEP_LOGITS, add_rate_map, add_spike_counts, add_step_logits
from .graph import CURRENTS, LAYOUT, PRECISION, PRECISIONS, metadata
from .int8 import Rounded
from .layouts import LAYOUTS

_CLOSE = 1e-5
"""Allowed difference of a constant, in units of the tensor's largest: another version of PyTorch folds normalisations
with other roundings."""
_TOLD, _BYTE = 3, 255
_FREE = {"tag", "epochs", "seed", "test_reads", "license"}
"""Entries of the metadata that a file may have differently: they say how it came to be."""
OF_WEIGHTS = {"weights_sha256", "neuron"}
"""Those that are others where the weights are: what these do says more."""


def layout_of(proto: onnx.ModelProto) -> str:
    """The layout that a file says it has.

    Raises:
        ZooError: it says none, or one that there is not.
    """
    return _said(proto, LAYOUT, LAYOUTS)


def precision_of(proto: onnx.ModelProto) -> str:
    """The precision that a file says it has.

    Raises:
        ZooError: it says none, or one that there is not.
    """
    return _said(proto, PRECISION, PRECISIONS)


def rounded_in(proto: onnx.ModelProto) -> dict[str, Rounded]:
    """The convolutions in eight bits of a file.

    Raises:
        ZooError: it does not hold those that it tells of.
    """
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    rounded = {}
    for name, told in metadata(proto, CURRENTS).items():
        if not (isinstance(told, list) and len(told) == _TOLD and _is_form(*told[:2])):
            raise ZooError(f"the graph's metadata {CURRENTS} must give [scale, zero, checksum], not {quoted(told)}")
        scale, zero, _ = told
        if (weight := arrays.get(name)) is None or weight.dtype != np.int8:
            raise ZooError(f"verification failed: the file has no weights {name!r:.100} in eight bits")
        rounded[name] = Rounded(scale, zero, weight)
    return rounded


def _is_form(scale: Any, zero: Any) -> bool:
    """Whether these can be the scale and zero point of bytes."""
    return bool(fits(Number, scale) and scale > 0 and fits(Count, zero) and zero <= _BYTE)


def _said(proto: onnx.ModelProto, key: str, known: list[str]) -> str:
    value = next((p.value for p in proto.metadata_props if p.key == key), None)
    if value not in known:
        raise one_of(f"{key} in the file's metadata", value, known)
    return value


def instrumented_like(known: onnx.ModelProto, proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph `known` with the instruments that `proto` has."""
    outputs = [output.name for output in proto.graph.output]
    if any(name.startswith(PREFIX) for name in outputs):
        known = add_spike_counts(known)
    for name in outputs:
        if name.startswith(RATES):
            known = add_rate_map(known, name.removeprefix(RATES))
    return add_step_logits(known) if STEP_LOGITS in outputs else known


def compare_operations(known: onnx.ModelProto, proto: onnx.ModelProto) -> None:
    """Raise ZooError unless nodes, functions, inputs and outputs are the same."""
    for part in ("node", "input", "output"):
        mine, theirs = (list(map(_bytes, getattr(model.graph, part))) for model in (known, proto))
        if mine != theirs:
            same = zip(mine, theirs, strict=False)
            where = next((i for i, (a, b) in enumerate(same) if a != b), min(len(mine), len(theirs)))
            raise _other(f"{part} {where}")
    mine, theirs = (sorted(map(_bytes, model.functions)) for model in (known, proto))
    if mine != theirs:
        raise _other("functions")


def compare_constants(known: onnx.ModelProto, proto: onnx.ModelProto) -> None:
    """Raise ZooError unless weights and other constants are the same but for rounding."""
    mine, theirs = ({t.name: t for t in model.graph.initializer} for model in (known, proto))
    if mine.keys() != theirs.keys():
        raise _other(f"constant {sorted(mine.keys() ^ theirs.keys())[0]}")
    for name, tensor in mine.items():
        a, b = numpy_helper.to_array(tensor), numpy_helper.to_array(theirs[name])
        if a.shape != b.shape or a.dtype != b.dtype or not _alike(a, b):
            raise ZooError(f"verification failed: the constant {name} in the file is not the network's")


def _alike(known: NDArray[Any], other: NDArray[Any]) -> bool:
    if known.dtype.kind != "f":
        return np.array_equal(known, other)
    allowed: Any = _CLOSE * float(np.abs(known).max(initial=0))
    if known.dtype == np.float16:  # rounds to one of two neighbours
        allowed = allowed + np.finfo(np.float16).eps * np.abs(known)
    return bool((np.abs(known - other) <= allowed).all())


def compare_metadata(known: onnx.ModelProto, proto: onnx.ModelProto, but: Collection[str] = ()) -> None:
    """Raise ZooError unless the file's metadata say of the network what it says itself, `but` for these entries."""
    said = {p.key: p.value for p in proto.metadata_props}
    for entry in known.metadata_props:
        if entry.key not in {*_FREE, *but} and not _same(said.get(entry.key), entry.value):
            raise ZooError(
                f"verification failed: the file's metadata say {entry.key} {said.get(entry.key)!r:.100}, the network "
                f"{entry.value!r:.100}"
            )


def _same(text: str | None, expected: str) -> bool:
    if text is None or text == expected:
        return text == expected
    try:
        return _close(json.loads(text), json.loads(expected))
    except ValueError:
        return False


def _close(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_close, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_close(a[key], b[key]) for key in a)
    if isinstance(a, float) and isinstance(b, float):
        return bool(np.isclose(a, b, rtol=1e-6, atol=0))
    return type(a) is type(b) and a == b


def _bytes(message: Any) -> bytes:
    return message.SerializeToString(deterministic=True)


def _other(what: str) -> ZooError:
    return ZooError(
        f"verification failed: the graph's operations are not those that the network exports to (first: {what})"
    )
