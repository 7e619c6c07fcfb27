"""Files that are either whole or absent."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from .errors import ZooError


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> Path:
    """Write `data` to a temporary file beside `path`, flush it to the disk, then rename it.

    Raises:
        ZooError: the file cannot be written (no space, no permission ...). Nothing is left behind, and a file that
            was at `path` before stays as it was.
    """
    path = Path(path)
    # One name a file: what a killed process left is overwritten by the next write.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ZooError(f"cannot write {path}: {error.strerror}") from error
    return path


def write_json(path: str | os.PathLike[str], value: Any) -> Path:
    """Write `value` as indented JSON, atomically."""
    return atomic_write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file; a missing or malformed one raises ZooError with its name."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise ZooError(f"no such file: {path}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ZooError(f"cannot read {path} as JSON: {error}") from error


def sha256_of(data: bytes | str | os.PathLike[str]) -> str:
    """The sha256 of some bytes, or of the file at a path, as 64 hexadecimal digits."""
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    with open(data, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
