"""Files: written whole or not at all, JSON and YAML read as values only, every mistake one sentence."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import yaml

from .errors import ZooError


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> Path:
    """Write `data` to a temporary file beside `path`, flush it to the disk, then rename it.

    Raises:
        ZooError: the file cannot be written (no space, no permission ...). Nothing is left behind, and a file that
            was at `path` before stays as it was.
    """
    path = Path(path)
    # One name per file: what a killed process left is overwritten by the next write.
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


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which a key that stands twice does not pass."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value} stands twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, origin: str) -> Any:
    """The value of a YAML text.

    Args:
        origin: where it is from, for the error.

    Raises:
        ZooError: it is no YAML of plain values, or a key stands twice in one mapping.
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise ZooError(f"cannot read {origin} as YAML: it is nested too deeply") from None
    # PyYAML leaves what its constructors make of a bad date or number as it comes.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
        raise ZooError(f"cannot read {origin} as YAML: {' '.join(str(error).split())}") from error


def read_yaml(path: Path) -> Any:
    """The value of a YAML file.

    Raises:
        ZooError: it cannot be read, or see `parse_yaml`.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise ZooError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ZooError(f"cannot read {path} as YAML: {error}") from error
    return parse_yaml(text, str(path))
