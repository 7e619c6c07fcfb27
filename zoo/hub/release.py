"""What a release of a trained network consists of: the files of a run directory, checked against each other.

Everything must speak of the same weights: a result or an ONNX file of others is refused.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..checkpoint import CONFIG, WEIGHTS, is_pickle, read_checkpoint
from ..errors import ZooError
from ..files import dump_yaml, read_bytes
from ..result import KINDS, read

RECIPE, LOG, RESULT = "recipe.yaml", "summary.csv", "result.json"
_LIMIT = 2**30  # of a file
RESULTS, EVAL_RESULTS = "results/", ".eval_results/"


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
        run: a finished run directory of `recipes.train`: model.safetensors, config.json, summary.csv, and result.json
            if it was measured. The recipe is that of config.json: recipe.yaml also says where the run happened.
        onnx: files of `python -m export` from these weights.
        results: result files of `recipes.validate` and `export.bench_ort`, of these weights.

    Raises:
        ZooError: a file is missing, broken, of other weights, or cannot be published under its name.
    """
    if not run.is_dir():
        raise ZooError(f"no run directory {run}: `python -m recipes.train` makes one")
    if missing := [name for name in (WEIGHTS, CONFIG, LOG) if not (run / name).is_file()]:
        raise ZooError(f"{run} is no finished run: it lacks {', '.join(missing)}")
    config = read_checkpoint(run).config
    if not config["pretrained_cfg"].get("tag"):
        raise ZooError(f"{run / CONFIG} names no tag: a release is called architecture.tag")
    sha256 = config["weights_sha256"]
    recipe = config.get("recipe")
    if not isinstance(recipe, dict):
        raise ZooError(f"{run / CONFIG} holds no recipe: `zoo.save_checkpoint(..., recipe={{...}})` writes it there")
    files = {name: read_bytes(run / name, _LIMIT) for name in (WEIGHTS, CONFIG, LOG)}
    files[RECIPE] = dump_yaml(recipe).encode()
    measured = []
    if (run / RESULT).is_file():
        measured.append(_read_result(run / RESULT, sha256))
        files[RESULT] = read_bytes(run / RESULT, _LIMIT)
    for path in results:
        measured.append(_read_result(path, sha256))
        _add(files, RESULTS + path.name, path, ".json")
    for path in onnx:
        _check_onnx(path, sha256)
        _add(files, path.name, path, ".onnx")
    return Release(files, config, recipe, measured)


def _add(files: dict[str, bytes], name: str, path: Path, suffix: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", path.name) or path.suffix != suffix or is_pickle(path.name):
        raise ZooError(f"cannot publish {path} under its name: expected letters, digits, - _ . and {suffix} at the end")
    if name in files:
        raise ZooError(f"two files would be published as {name}: rename {path}")
    files[name] = read_bytes(path, _LIMIT)


def _read_result(path: Path, weights_sha256: str) -> dict[str, Any]:
    result = read(path, {kind: KINDS[kind] for kind in ("accuracy", "onnx")})
    if result.get("partial"):
        raise ZooError(f"{path} is of {result['images']} images, a part of the test set: measure without --limit")
    if (of := result["weights_sha256"]) != weights_sha256:
        other = f"other weights (sha256 {of[:12]}..., here {weights_sha256[:12]}...)"
        how = "measure these with `python -m recipes.validate` or `export.bench_ort`"
        raise ZooError(f"{path} was measured on {other}: {how}")
    return result


def _check_onnx(path: Path, weights_sha256: str) -> None:
    import onnx  # slow to import, and only needed here
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        proto = onnx.load_model_from_string(read_bytes(path, _LIMIT))
    except DecodeError as error:
        raise ZooError(f"cannot read {path} as ONNX: {' '.join(str(error).split())}") from error
    of = {prop.key: prop.value for prop in proto.metadata_props}.get("weights_sha256")
    if of != weights_sha256:
        other = f"other weights (sha256 {str(of)[:12]}..., here {weights_sha256[:12]}...)"
        raise ZooError(f"{path} was exported from {other}: export these with `python -m export`")
