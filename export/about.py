"""What an exported file says about its network, read back and checked."""

import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx

from zoo.errors import ZooError
from zoo.files import parse_json
from zoo.schema import Count, Integer, Name, Positive, Sha256, Tag, fits

from .counts import add_spike_outputs
from .graph import LAYOUT, PRECISION, PRECISIONS, SPIKE_VALUES
from .run import create_session, run_session

PRODUCER = "snn-zoo"
TRAINING = ("epochs", "seed", "test_reads")
"""Metadata keys that a file has only if its checkpoint tells them."""

_FIRST = {PRECISION: "fp32", LAYOUT: "flat"}
"""What files were before they said so."""
_ONE_CALL = ("flat", "function")


class About(NamedTuple):
    """The metadata of a file from `to_onnx`."""

    architecture: str
    tag: str
    weights_sha256: str
    timesteps: int
    num_classes: int
    mean: list[float]
    std: list[float]
    input_size: list[int]
    spike_values: dict[str, str]
    epochs: int | None
    seed: int | None
    test_reads: int | None
    labels: list[str] | None
    precision: str
    layout: str


def _is_list(value: Any, *limits: float) -> bool:
    return isinstance(value, list) and all(fits(float, x) and limits[0] <= x <= limits[1] for x in value)


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(fits(Positive, side) for side in value)


def _is_map(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and _is_texts(value.values())


def _is_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _of(kind: Any) -> Any:
    return lambda value: fits(kind, value)


_TEXTS = {
    "architecture": ("a name of letters, digits, _ and -, at most 100", _of(Name)),
    "tag": ("a tag of letters, digits, _ . and -, at most 100, or an empty string", _of(Tag)),
    "weights_sha256": ("64 lower-case hexadecimal digits", _of(Sha256)),
}
_JSON = {
    "timesteps": ("an integer, 1 or more", _of(Positive)),
    "num_classes": ("an integer, 1 or more", _of(Positive)),
    "mean": ("a list of numbers", lambda value: _is_list(value, -1e30, 1e30)),
    "std": ("a list of numbers above 0", lambda value: _is_list(value, 1e-30, 1e30)),
    "input_size": ("[channels, height, width]", _is_size),
    SPIKE_VALUES: ("an object from layer to value, not empty", _is_map),
    "epochs": ("an integer, 0 or more", _of(Count)),
    "seed": ("an integer", _of(Integer)),
    "test_reads": ("an integer, 0 or more", _of(Count)),
    "labels": ("a list of names", lambda value: isinstance(value, list) and _is_texts(value)),
}


def is_ours(proto: onnx.ModelProto) -> bool:
    """Whether a graph says that it is a file from `to_onnx`."""
    return proto.producer_name == PRODUCER or any(p.key == SPIKE_VALUES for p in proto.metadata_props)


def read_about(proto: onnx.ModelProto, path: Path) -> About:
    """The metadata of a graph, each entry checked by itself and against the graph.

    Raises:
        ZooError: an entry is missing, malformed or does not fit the graph.
    """
    texts = _FIRST | {p.key: p.value for p in proto.metadata_props}
    if missing := [key for key in About._fields if key not in texts and key not in (*TRAINING, "labels")]:
        raise ZooError(
            f"{path} lacks the metadata of a file from `python -m export` ({', '.join(missing)}): it comes from "
            "elsewhere or was cut short; export it again"
        )
    values: dict[str, Any] = {key: texts.get(key) for key in About._fields}
    for key, (expected, test) in _TEXTS.items():
        if not test(texts[key]):
            raise _bad(path, key, texts[key], expected)
    for key, (expected, test) in _JSON.items():
        if key in texts:
            try:
                values[key] = parse_json(texts[key], key)
                fits = test(values[key])
            except ZooError:
                fits = False
            if not fits:
                raise _bad(path, key, texts[key], expected)
    about = About(**values)
    if (encoding := parse_json(texts.get("encoding", '"direct"'), "encoding")) in ("rate", "frames"):
        raise ZooError(f"{path} takes frames, of {encoding} encoding: only files that take images are measured")
    channels = about.input_size[0]
    size, classes = _shape(proto.graph.input, "input")[1:], _shape(proto.graph.output, "logits")[1:]
    for key, fits, expected in (
        ("mean", len(about.mean) == channels, f"{channels} numbers, one per channel of input_size"),
        ("std", len(about.std) == channels, f"{channels} numbers, one per channel of input_size"),
        ("input_size", size == about.input_size, f"{size} as in the graph"),
        ("labels", about.labels is None or len(about.labels) == about.num_classes, "a name for each class"),
        ("num_classes", classes == [about.num_classes], f"{classes} as in the graph"),
    ):
        if not fits:
            raise _bad(path, key, texts[key], expected)
    if about.precision not in PRECISIONS:
        raise _bad(path, PRECISION, about.precision, " or ".join(PRECISIONS))
    if about.layout not in _ONE_CALL:
        raise ZooError(
            f"{path} has the layout {about.layout}: only {' and '.join(_ONE_CALL)} are measured; export one of them"
        )
    nodes = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    if loops := [node.op_type for node in nodes if node.op_type in ("Loop", "Scan", "If")]:  # which may have no end
        raise ZooError(f"{path} has a {loops[0]}, and layout {about.layout} has none: it was changed, export it again")
    exposed = add_spike_outputs(proto)
    values_in_graph = {output for node in exposed.graph.node for output in node.output}
    if lost := [value for value in about.spike_values.values() if value not in values_in_graph]:
        raise _bad(path, SPIKE_VALUES, lost[0], "a value in the graph")
    session = create_session(exposed.SerializeToString(), threads=1)
    spikes = run_session(session, list(about.spike_values.values()), np.zeros((1, *size), np.float32))
    for array in spikes:  # [T*B, ...] at B = 1
        if array.shape[:1] != (about.timesteps,):
            raise _bad(path, "timesteps", texts["timesteps"], f"{array.shape[:1]} as in the graph")
        if not np.isin(array, (0, 1)).all():
            raise ZooError(f"{path}: what it calls spikes are not zeros and ones; export it again")
    return about


def _shape(infos: Any, name: str) -> list[int]:
    """The shape of an input or output, 0 where it is dynamic; [] if there is none of that name."""
    return next(([d.dim_value for d in info.type.tensor_type.shape.dim] for info in infos if info.name == name), [])


def _bad(path: Path, key: str, value: Any, expected: str) -> ZooError:
    return ZooError(f"{path}: metadata {key} is {reprlib.repr(value)}, expected {expected}; export it again")
