"""Keywords of networks: how a name or an object with numbers is read, and within which bounds numbers lie."""

import operator
from collections.abc import Mapping
from typing import Any

from .errors import ZooError, one_of, quoted

Spec = str | Mapping[str, Any]
"""A keyword of a network: a name, or an object of a name and numbers."""
MOST_TIMESTEPS = 128
MOST_CLASSES = 30_000
MOST = 10_000
"""Of channels, layers, heads ...: beyond any network, and little enough to count to."""
_LARGEST, _SMALLEST = 1e30, 1e-30  # of numbers that float32 computes with


def split_spec(kind: str, spec: Any, known: Mapping[str, list[str]]) -> tuple[str, dict[str, Any]]:
    """Splits "name" or {"name": ..., key: value, ...} into the name and the rest; `known` has the keys of each name."""
    if not isinstance(spec, str | Mapping):
        raise ZooError(f'{kind} takes a name or an object {{"name": ...}}, not {quoted(spec)}')
    given = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = given.pop("name", None)
    if not isinstance(name, str) or name not in known:
        raise one_of(kind, name, list(known))
    if unknown := [key for key in given if key not in known[name]]:
        raise one_of(f"key of {kind} {name}", unknown[0], known[name])
    return name, given


def check_number(name: str, value: Any, low: float = 0.0, high: float = _LARGEST) -> float:
    """Returns `value` as a float, if it is a number in [low, high]; NaN, infinities and booleans are none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ZooError(f"{name} must be a number in [{low:g}, {high:g}], not {quoted(value)}")
    return float(value)


def check_positive(name: str, value: Any) -> float:
    """Returns `value` as a float, if it is a number that float32 holds, greater than 0."""
    return check_number(name, value, _SMALLEST)


def check_flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ZooError(f"{name} must be true or false, not {quoted(value)}")
    return value


def check_integer(name: str, value: Any, low: int, high: int = MOST) -> int:
    """Returns `value` as an int, if it is an integer (NumPy's and a tensor's, too) in [low, high]."""
    try:
        number = operator.index(value)
    except (TypeError, ValueError):
        number = low - 1
    if isinstance(value, bool) or not low <= number <= high:
        raise ZooError(f"{name} must be an integer from {low} to {high}, not {quoted(value)}")
    return number


def check_timesteps(value: Any) -> int:
    return check_integer("timesteps", value, 1, MOST_TIMESTEPS)
