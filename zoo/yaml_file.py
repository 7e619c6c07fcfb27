"""YAML that a user wrote: values only, and every mistake is one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .errors import ZooError


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
