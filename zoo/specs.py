"""Specs: what the keywords neuron, surrogate and scaling take, a name or a name with numbers."""

from collections.abc import Mapping
from typing import Any

from .errors import ZooError, one_of


def split_spec(kind: str, spec: Any, known: Mapping[str, list[str]]) -> tuple[str, dict[str, Any]]:
    """Split "name" or {"name": ..., key: value, ...} into the name and the rest; `known` has the keys of each name.

    Raises:
        ZooError: neither of the two forms, an unknown name or an unknown key.
    """
    if not isinstance(spec, str | Mapping):
        raise ZooError(f'{kind} takes a name or an object {{"name": ...}}, not {spec!r}')
    given = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = given.pop("name", None)
    if not isinstance(name, str) or name not in known:
        raise one_of(kind, name, list(known))
    for key in given:
        if key not in known[name]:
            raise one_of(f"key of {kind} {name}", key, known[name])
    return name, given


def check_number(name: str, value: Any, low: float = 0.0, high: float = 1e300) -> float:
    """`value` as a float, if it is a number in [low, high]; NaN, infinities and booleans are none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ZooError(f"{name} must be a number in [{low:g}, {high:g}], not {value!r}")
    return float(value)


def check_positive(name: str, value: Any) -> float:
    """`value` as a float, if it is a finite number greater than 0."""
    if check_number(name, value) == 0:
        raise ZooError(f"{name} must be greater than 0, not {value!r}")
    return float(value)


def check_flag(name: str, value: Any) -> bool:
    """`value`, if it is true or false."""
    if not isinstance(value, bool):
        raise ZooError(f"{name} must be true or false, not {value!r}")
    return value


def check_integer(name: str, value: Any, low: int) -> int:
    """`value`, if it is an integer of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ZooError(f"{name} must be an integer of {low} or more, not {value!r}")
    return value
