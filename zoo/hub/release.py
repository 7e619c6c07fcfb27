"""What a release of a trained network consists of: the files of a run directory, checked against each other.

Everything must speak of the same weights: a result or an ONNX file of others is refused.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple

import yaml

from ..checkpoint import CONFIG, WEIGHTS, is_pickle, read_checkpoint
from ..errors import ZooError
from ..files import read_json, read_yaml
from ..provenance import without_folders

RECIPE, LOG, RESULT = "recipe.yaml", "summary.csv", "result.json"
RESULTS, EVAL_RESULTS = "results/", ".eval_results/"
# Keys of a recipe that say where a run happened; the rest decides its result.
_PLACE = ("data_dir", "out", "resume", "download", "tensorboard", "checkpoint_minutes", "device")
# What the card cannot do without; `python -m leaderboard` checks results in full.
_NEEDED: dict[str, dict[str, type | UnionType]] = {
    "accuracy": {"dataset": str, "split": str, "images": int, "top1": int | float, "timesteps": int},
    "onnx": {"latency": list},
}

_NUMBERS = ("images", "top1", "top5", "spikes_per_image", "energy_nj", "timesteps", "train_seconds")


class Release(NamedTuple):
    """The files of a release but its card, by their path in the repository, and what the card is made from."""

    files: dict[str, bytes]
    config: dict[str, Any]
    recipe: dict[str, Any]
    results: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """`architecture.tag`."""
        return f"{self.config['architecture']}.{self.config['pretrained_cfg']['tag']}"


def collect(run: Path, onnx: Sequence[Path] = (), results: Sequence[Path] = ()) -> Release:
    """Read and check a release.

    Args:
        run: a finished run directory of `recipes.train`: model.safetensors, config.json, recipe.yaml, summary.csv, and
            result.json if it was measured.
        onnx: files of `python -m export` from these weights.
        results: result files of `recipes.validate` and `export.bench_ort`, of these weights.

    Raises:
        ZooError: a file is missing, broken, of other weights, or cannot be published under its name.
    """
    if not run.is_dir():
        raise ZooError(f"no run directory {run}: `python -m recipes.train` makes one")
    if missing := [name for name in (WEIGHTS, CONFIG, RECIPE, LOG) if not (run / name).is_file()]:
        raise ZooError(f"{run} is no finished run: it lacks {', '.join(missing)}")
    config = read_checkpoint(run).config
    if not config["pretrained_cfg"].get("tag"):
        raise ZooError(f"{run / CONFIG} names no tag: a release is called architecture.tag")
    sha256 = config["weights_sha256"]
    recipe = _read_recipe(run / RECIPE)
    files = {name: (run / name).read_bytes() for name in (WEIGHTS, CONFIG, LOG)}
    files[RECIPE] = yaml.safe_dump(recipe, sort_keys=False).encode()
    read = []
    if (run / RESULT).is_file():
        read.append(_read_result(run / RESULT, sha256))
        files[RESULT] = (run / RESULT).read_bytes()
    for path in results:
        read.append(_read_result(path, sha256))
        _add(files, RESULTS + path.name, path, ".json")
    for path in onnx:
        _check_onnx(path, sha256)
        _add(files, path.name, path, ".onnx")
    return Release(files, config, recipe, read)


def _add(files: dict[str, bytes], name: str, path: Path, suffix: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", path.name) or path.suffix != suffix or is_pickle(path.name):
        raise ZooError(f"cannot publish {path} under its name: expected letters, digits, - _ . and {suffix} at the end")
    if name in files:
        raise ZooError(f"two files would be published as {name}: rename {path}")
    files[name] = path.read_bytes()


def _read_recipe(path: Path) -> dict[str, Any]:
    recipe = read_yaml(path)
    if not isinstance(recipe, dict):
        raise ZooError(f"{path} holds no recipe")
    return {key: _nameless(value) for key, value in recipe.items() if key not in _PLACE}


def _nameless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nameless(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_nameless(inner) for inner in value]
    return without_folders(value) if isinstance(value, str) else value


def _read_result(path: Path, weights_sha256: str) -> dict[str, Any]:
    result = read_json(path)
    kind = result.get("kind") if isinstance(result, dict) else None
    if kind not in _NEEDED:
        raise ZooError(f"{path} is no result of recipes.validate or export.bench_ort")
    if result.get("weights_sha256") != weights_sha256:
        raise ZooError(
            f"{path} was measured on other weights (sha256 {str(result.get('weights_sha256'))[:12]}..., here "
            f"{weights_sha256[:12]}...): measure these with `python -m recipes.validate` or `export.bench_ort`"
        )
    for key, expected in _NEEDED[kind].items():
        if not isinstance(result.get(key), expected):
            raise ZooError(f"{path}: {key!r} is {reprlib.repr(result.get(key))}, not what {kind} results hold there")
    for row in result.get("latency") or []:
        if not isinstance(row, dict) or not all(
            _is_number(row.get(key)) for key in ("p50_ms", *row.keys() & {"p95_ms"})
        ):
            raise ZooError(f"{path}: 'latency' holds {reprlib.repr(row)}, which export.bench_ort does not write")
    try:
        json.dumps(result, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise ZooError(f"{path} cannot be published: {error}") from error
    for key in _NUMBERS:
        if result.get(key) is not None and not _is_number(result[key]):
            raise ZooError(f"{path}: {key!r} is {reprlib.repr(result[key])}, not a number")
    if not isinstance(result.get("synaptic_operations") or {}, dict):
        raise ZooError(f"{path}: 'synaptic_operations' must be an object, not {result['synaptic_operations']!r}")
    return dict(result)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300  # so is no NaN


def _check_onnx(path: Path, weights_sha256: str) -> None:
    import onnx  # slow to import, and only needed here
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        proto = onnx.load_model_from_string(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise ZooError(f"cannot read {path} as ONNX: {' '.join(str(error).split())}") from error
    stated = {prop.key: prop.value for prop in proto.metadata_props}.get("weights_sha256")
    if stated != weights_sha256:
        raise ZooError(
            f"{path} was exported from other weights (sha256 {str(stated)[:12]}..., here {weights_sha256[:12]}...): "
            "export these with `python -m export`"
        )
