"""One measurement as a JSON object: how it is made, and what it must hold, a table from key to check for each kind.

Kind "accuracy" is a network in PyTorch on a data set, kind "onnx" its graph in ONNX Runtime. What is unknown is null.
"""

import json
import os
import re
import reprlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from .data import DataSet
from .errors import ZooError, one_of
from .files import read_json, sha256_of
from .network import SpikingNetwork
from .plugins import is_plugins
from .provenance import provenance
from .scaling.spec import resolve_scaling
from .specs import MOST_TIMESTEPS

# Far beyond any measurement, yet small enough to compute with and to draw. NaN fails the comparison too.
_LIMIT = 1e18
# The fewest spikes per image that are any: one spike in a trillion images.
_FEWEST = 1e-12
# Of a text: characters, all of them printable.
_LONGEST = 10_000


class Check(NamedTuple):
    """What is expected, in words for the error message, and the test for it."""

    expected: str
    test: Callable[[Any], bool]


Checks = dict[str, Check]
"""From the keys of an object to what they hold."""


def is_number(value: Any, low: float = 0.0, high: float = _LIMIT) -> bool:
    """Whether `value` is a finite int or float in [low, high]; true and false are no numbers here."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def is_int(value: Any, low: int = 0) -> bool:
    """Whether `value` is an int of at least `low`; true and false are no numbers here."""
    return isinstance(value, int) and is_number(value, low)


def when(result: dict[str, Any]) -> datetime:
    """The date of a result, as a time that can be compared: without a zone it is UTC.

    Raises:
        ValueError: the date is not ISO 8601.
    """
    date = datetime.fromisoformat(result["date"])
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _is_date(value: Any) -> bool:
    try:
        return bool(when({"date": value}))
    except (TypeError, ValueError):
        return False


def _is_latency(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() - _FURTHER_LATENCY.keys() == {"batch", "threads", "p50_ms", "p95_ms", "runs"}
        and all(is_int(value[key], 1) for key in ("batch", "threads", "runs"))
        and all(check.test(value[key]) for key, check in _FURTHER_LATENCY.items() if key in value)
        and is_number(value["p50_ms"])
        and is_number(value["p95_ms"], low=value["p50_ms"])
    )


def _is_reference(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"top1", "spikes_per_image", "citation"}
        and (value["top1"] is None or is_number(value["top1"], 0, 100))
        and (value["spikes_per_image"] is None or _is_count(value["spikes_per_image"]))
        and TEXT.test(value["citation"])
    )


def _matches(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _choice(*values: Any) -> Check:
    # The type as well: in Python 1 == True == 1.0.
    return Check(
        " or ".join(map(repr, values)), lambda value: any(value == v and type(value) is type(v) for v in values)
    )


def _or_null(check: Check) -> Check:
    return Check(f"{check.expected}, or null", lambda value: value is None or check.test(value))


def _is_count(value: Any) -> bool:
    return is_number(value) and (value == 0 or value >= _FEWEST)


TEXT = Check("a non-empty string", lambda value: isinstance(value, str) and value.strip() != "")
# Dataset, model and tag become folder names, so what could lead out of the results folder is not a name.
NAME = Check("a name of letters, digits, _ and -, at most 100", _matches(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}"))
TAG = Check(
    "a tag of letters, digits, _ . and -, at most 100, or an empty string",
    _matches(r"([A-Za-z0-9_-][A-Za-z0-9_.-]{0,99})?"),
)
NUMBER = Check("a finite number, 0 or more", is_number)
PERCENT = Check("a percentage, 0 to 100", lambda value: is_number(value, 0, 100))
COUNT = Check("an integer, 0 or more", is_int)
POSITIVE = Check("an integer, 1 or more", lambda value: is_int(value, 1))
INTEGER = Check("an integer", lambda value: isinstance(value, int) and is_number(value, -_LIMIT))
SHA256 = Check("64 lower-case hexadecimal digits", _matches(r"[0-9a-f]{64}"))
DATE = Check("an ISO 8601 date, such as 2026-01-31T12:00:00Z", _is_date)
DICT = Check("an object", lambda value: isinstance(value, dict))
SPIKES = Check(f"a finite number, 0 or at least {_FEWEST:g}", _is_count)
STEPS = Check("a list of spikes per image", lambda value: isinstance(value, list) and all(map(_is_count, value)))
LAYERS = Check(
    "an object from layer to spikes per image", lambda value: DICT.test(value) and all(map(_is_count, value.values()))
)
SHARE = Check("a share, 0 to 1", lambda value: is_number(value, 0, 1))
RATES = Check(
    "an object from layer to firing rate, 0 to 1",
    lambda value: DICT.test(value) and all(map(SHARE.test, value.values())),
)
OPERATIONS = Check(
    "an object of Effective_ACs, Effective_MACs and Dense, numbers of 0 or more",
    lambda value: (
        DICT.test(value)
        and value.keys() == {"Effective_ACs", "Effective_MACs", "Dense"}
        and all(map(is_number, value.values()))
    ),
)
SCALING = Check('an object with a "name"', lambda value: DICT.test(value) and TEXT.test(value.get("name")))
_MACHINE = {
    "system": _or_null(TEXT), "cpu": _or_null(TEXT), "cores": _or_null(POSITIVE), "threads": POSITIVE,
    "gpu": _or_null(TEXT),
}  # fmt: skip
MACHINE = Check(
    "an object with system, cpu, gpu (strings or null), cores and threads (integers)",
    lambda value: DICT.test(value) and all(key in value and _MACHINE[key].test(value[key]) for key in _MACHINE),
)
TIMES = Check("a list of milliseconds", lambda value: isinstance(value, list) and all(map(is_number, value)))
_FURTHER_LATENCY: Checks = {
    "p90_ms": NUMBER, "p99_ms": NUMBER, "images_per_second": NUMBER, "ms": TIMES, "peak_bytes": _or_null(COUNT),
}  # fmt: skip
"""Keys of a latency that older measurements lack; `ms` is every timed run in order."""
LATENCY = Check(
    f"a list of {{batch, threads, p50_ms, p95_ms, runs}} with p50_ms <= p95_ms; also {', '.join(_FURTHER_LATENCY)}",
    lambda value: isinstance(value, list) and all(map(_is_latency, value)),
)
REFERENCE = Check("an object of top1, spikes_per_image (numbers or null) and citation (a string)", _is_reference)

_SPIKES = {
    "spikes_per_image": _or_null(SPIKES),
    "spikes_per_layer": _or_null(LAYERS),
    "spikes_per_step": _or_null(STEPS),
    "timesteps": Check(
        f"an integer, 1 to {MOST_TIMESTEPS}", lambda value: is_int(value, 1) and value <= MOST_TIMESTEPS
    ),
}
_PROVENANCE = {"command": TEXT, "commit": _or_null(TEXT), "date": DATE, "versions": DICT, "machine": MACHINE}

REQUIRED: dict[str, Checks] = {
    "accuracy": {
        "schema": _choice(1),
        "kind": _choice("accuracy"),
        "model": NAME,
        "tag": TAG,
        "dataset": NAME,
        "split": _choice("test", "validation"),
        "train_images": _or_null(POSITIVE),
        "images": POSITIVE,
        "top1": PERCENT,
        "top5": _or_null(PERCENT),
        **_SPIKES,
        "params": COUNT,
        "epochs": _or_null(COUNT),
        "seed": _or_null(INTEGER),
        "scaling": _or_null(SCALING),
        "precision": _choice("fp32", "bf16", "fp16"),
        "train_seconds": _or_null(NUMBER),
        "comparison": TEXT,
        "test_reads": _or_null(COUNT),
        **_PROVENANCE,
        "data_sha256": _or_null(SHA256),
        "weights_sha256": SHA256,
    },
    "onnx": {
        "schema": _choice(1),
        "kind": _choice("onnx"),
        "model": NAME,
        "tag": TAG,
        "dataset": _or_null(NAME),
        "split": _or_null(_choice("test")),
        "images": _or_null(POSITIVE),
        "top1": _or_null(PERCENT),
        **_SPIKES,
        "latency": LATENCY,
        "provider": TEXT,
        "optimization": TEXT,
        "epochs": _or_null(COUNT),
        "seed": _or_null(INTEGER),
        "test_reads": _or_null(COUNT),
        "weights_sha256": SHA256,
        "onnx_sha256": SHA256,
        "onnx_bytes": POSITIVE,
        **_PROVENANCE,
    },
}
"""The keys of a result file, in its order."""
COSTS: Checks = {
    "firing_rates": _or_null(RATES),
    "activation_sparsity": _or_null(SHARE),
    "membrane_updates": _or_null(NUMBER),
    "Effective_ACs": _or_null(NUMBER),
    "Effective_MACs": _or_null(NUMBER),
    "Dense": _or_null(NUMBER),
    "products": _or_null(OPERATIONS),
    "stem": _or_null(OPERATIONS),
    "footprint_bytes": _or_null(COUNT),
    "connection_sparsity": _or_null(SHARE),
    "energy_uj": _or_null(NUMBER),
}
"""What `zoo.metrics.evaluate` counts beside accuracy and spikes; results older than these keys lack them."""


def _list_of(keys: Checks) -> Check:
    """A list of objects that hold exactly these keys."""
    return Check(
        f"a list of {{{', '.join(keys)}}}",
        lambda value: (
            isinstance(value, list)
            and all(
                DICT.test(item) and item.keys() == keys.keys() and all(keys[k].test(item[k]) for k in item)
                for item in value
            )
        ),
    )


_ANCESTOR = {
    "name": TEXT, "weights_sha256": SHA256, "epochs": _or_null(COUNT), "train_seconds": _or_null(NUMBER),
    "recipe_sha256": _or_null(SHA256),
}  # fmt: skip
STARTED_FROM = _list_of(_ANCESTOR)
"""The checkpoints that a training goes back to, nearest first, each with what its own training took."""
SEAL = "content_sha256"
SEALED_SINCE = datetime(2026, 11, 26, tzinfo=UTC)
"""Results from before have no seal, and trainings no hash of their recipe."""
OPTIONAL: Checks = {
    "reference": _or_null(REFERENCE),
    "recipe_sha256": _or_null(SHA256),
    "started_from": STARTED_FROM,
    SEAL: SHA256,
    "note": Check("a string", lambda value: isinstance(value, str)),
    **COSTS,
    "plugins": Check("a list of {file, sha256}, or null", is_plugins),
    "partial": _choice(True, False),
    "train_precision": _choice("fp32", "bf16", "fp16"),
    "resumed_with": _list_of({"commit": _or_null(TEXT), "versions": DICT, "machine": MACHINE}),
}

_OPERATOR = {"operator": TEXT, "nodes": POSITIVE, "ms": NUMBER, "share": SHARE}
GRAPH: Checks = {
    "precision": _choice("fp32", "fp16", "int8"),
    "layout": _choice("flat", "function"),
    "profile": _list_of(_OPERATOR),
}
"""What kind "onnx" has beside: precision and layout of the file, and milliseconds of each kind of operator in a run.
Results older than these keys lack them."""


def _not_null(key: str) -> Check:
    check = REQUIRED["accuracy"][key]
    expected = f"{check.expected.removesuffix(', or null')}, as in the result of a training run"
    return Check(expected, lambda value: value is not None and check.test(value))


TRAINED = {
    "accuracy": REQUIRED["accuracy"]
    | {key: _not_null(key) for key in ("spikes_per_image", "train_images", "epochs", "seed", "train_seconds")}
}
"""`REQUIRED` of what `recipes.train` writes, which knows how the network was trained."""
ARM = {"plan": TEXT, "arm": TEXT, "train_loss": NUMBER, "recipe": DICT}
"""What `recipes.ablate` adds to it. The leaderboard refuses these keys: it would take arms for seeds of one row."""


def accuracy_record(
    model: SpikingNetwork,
    scores: dict[str, Any],
    data: DataSet,
    *,
    tag: str,
    split: str,
    weights_sha256: str | None,
    comparison: str | None,
    epochs: int | None,
    seed: int | None,
    test_reads: int | None,
    train_images: int | None = None,
    train_seconds: float | None = None,
    origin: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The measurement of a network in float32, kind "accuracy".

    Args:
        scores: see `zoo.metrics.evaluate`.
        data: what `split` ("test" or "validation") is of.
        comparison: the name of the comparison that the training was part of, `test_reads` of whose runs read the test
            set; architecture.tag without one.
        epochs, seed, train_images, train_seconds: of the training.
        origin: see `zoo.provenance.provenance`; that of this moment, where the network is, by default.
    """
    architecture = model.pretrained_cfg["architecture"]
    rule = resolve_scaling(model.model_args["scaling"])
    return {
        "schema": 1, "kind": "accuracy", "model": architecture, "tag": tag, "dataset": data.name, "split": split,
        "train_images": train_images, **{key: value for key, value in scores.items() if key != "loss"},
        "timesteps": model.timesteps, "params": sum(p.numel() for p in model.parameters()), "epochs": epochs,
        "seed": seed, "scaling": rule and rule._asdict(), "precision": "fp32", "train_seconds": train_seconds,
        "comparison": comparison or ".".join(filter(None, (architecture, tag))), "test_reads": test_reads,
        **(origin or provenance(gpu=next(model.parameters()).is_cuda)),
        "data_sha256": data.sha256, "weights_sha256": weights_sha256,
    }  # fmt: skip


def onnx_record(
    graph: bytes,
    about: dict[str, Any],
    scores: dict[str, Any],
    latency: list[dict[str, Any]],
    *,
    dataset: str | None,
    provider: str,
    optimization: str,
    profile: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """The measurement of a graph in ONNX Runtime, kind "onnx".

    Args:
        graph: the .onnx file.
        about: its metadata: architecture, tag, timesteps, precision, layout, weights_sha256; of the training epochs,
            seed and test_reads.
        scores: images, top1 in percent, spikes_per_image, spikes_per_layer, spikes_per_step; None without images.
        latency: batch, threads, p50_ms, p95_ms and runs of each setting, and what else `LATENCY` knows.
        dataset: whose test images these were.
        profile: operator, nodes, ms and share of each kind of operator.
    """
    return {
        "schema": 1, "kind": "onnx", "model": about["architecture"], "tag": about["tag"], "dataset": dataset,
        "split": None if dataset is None or scores["images"] is None else "test", **scores,
        "timesteps": about["timesteps"], "latency": latency, "provider": provider, "optimization": optimization,
        "epochs": about["epochs"], "seed": about["seed"], "test_reads": about["test_reads"],
        "weights_sha256": about["weights_sha256"], "onnx_sha256": sha256_of(graph), "onnx_bytes": len(graph),
        "precision": about["precision"], "layout": about["layout"],
        **({} if profile is None else {"profile": profile}),
        **provenance(gpu=provider.startswith(("CUDA", "Tensorrt"))),
    }  # fmt: skip


MEASUREMENT: dict[str, Checks] = {
    "measurement": {
        "schema": _choice(1),
        "kind": _choice("measurement"),
        "model": NAME,
        "tag": TAG,
        "dataset": NAME,
        "weights_sha256": SHA256,
        "images": POSITIVE,
        "partial": _choice(True, False),
        "recipe": _or_null(DICT),
        "recipe_sha256": _or_null(SHA256),
        "started_from": STARTED_FROM,
        "spikes_differ": Check(
            "an object from precision and layout to a count",
            lambda value: DICT.test(value) and all(map(COUNT.test, value.values())),
        ),
        "parts": Check("a list of measurements", lambda value: isinstance(value, list) and len(value) > 0),
        **_PROVENANCE,
        "plugins": OPTIONAL["plugins"],
    }
}
"""What `python -m leaderboard measure` writes: in `parts` measurements of one checkpoint on one data set, each a result
of its own; whether they are of a part of the test set; its recipe, and what it started from; spikes that a graph counts
otherwise than PyTorch."""


def seal(result: dict[str, Any]) -> dict[str, Any]:
    """A result with the sha256 of its content, `content_sha256`, by which a later change by hand shows.

    It proves no more than that: whoever changes a number can write a new hash, too. What proves a number is to measure
    it again.
    """
    return result | {SEAL: content_sha256(result)}


def content_sha256(result: dict[str, Any]) -> str:
    """The sha256 of all that a result says, in whatever order and layout."""
    content = {key: value for key, value in result.items() if key != SEAL}
    return sha256_of(json.dumps(content, sort_keys=True).encode())


def read(
    path: str | os.PathLike[str], required: dict[str, Checks] = REQUIRED, optional: Checks = OPTIONAL
) -> dict[str, Any]:
    """Read a result file and check it.

    Raises:
        ZooError: no such file, no JSON, or see `check`.
    """
    return check(read_json(path), str(path), required, optional)


def check(
    result: Any, origin: str, required: dict[str, Checks] = REQUIRED, optional: Checks = OPTIONAL
) -> dict[str, Any]:
    """Check one result (the content of a JSON file) against the schema of its kind, and return it.

    Args:
        result: the parsed JSON; anything but an object is refused.
        origin: the name of the file, for the error message.
        required: from each kind that is expected to its keys.
        optional: further keys.

    Raises:
        ZooError: a key is missing, unknown, or holds a bad value; names the file, the key, the value and what is
            expected.
    """
    if not isinstance(result, dict):
        raise ZooError(f"{origin}: holds {reprlib.repr(result)}, expected one JSON object")
    kind = result.get("kind")
    if not isinstance(kind, str) or kind not in required:
        raise _bad(origin, "kind", kind, " or ".join(map(repr, required)))
    if kind == "onnx":
        optional = optional | GRAPH
    known = optional | required[kind]
    for key in result:
        if key not in known:
            raise ZooError(f"{origin}: {one_of('key', key, sorted(known))}")
    for key, expected in known.items():
        if key not in result:
            if key not in required[kind]:
                continue
            raise ZooError(f"{origin}: key {key!r} is missing, expected {expected.expected}")
        if not expected.test(result[key]):
            raise _bad(origin, key, result[key], expected.expected)
        _check_leaves(origin, key, result[key])
    steps = result.get("spikes_per_step")
    if steps is not None and len(steps) != result["timesteps"]:
        raise _bad(origin, "spikes_per_step", steps, f"one number for each of the {result['timesteps']} timesteps")
    return result


def _check_leaves(origin: str, key: str, value: Any) -> None:
    """Reject, however deep, what JSON lets through and no page or terminal should get: numbers beyond measure, escape
    sequences, text without end."""
    if isinstance(value, dict):
        for name, item in value.items():
            _check_leaves(origin, key, name)
            _check_leaves(origin, f"{key}.{name}", item)
    elif isinstance(value, list):
        for item in value:
            _check_leaves(origin, key, item)
    elif isinstance(value, int | float) and not isinstance(value, bool) and not is_number(value, -_LIMIT):
        raise _bad(origin, key, value, "a finite number")
    elif isinstance(value, str) and not (len(value) <= _LONGEST and value.isprintable()):
        raise _bad(origin, key, value, f"printable text of at most {_LONGEST:,} characters")


def _bad(origin: str, key: str, value: Any, expected: str) -> ZooError:
    return ZooError(f"{origin}: key {key!r} is {reprlib.repr(value)}, expected {expected}")
