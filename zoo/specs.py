"""Specs: what the keywords neuron, surrogate and scaling take, a name or a name with numbers."""

import operator
from collections.abc import Mapping
from typing import Any

from .errors import ZooError, one_of, quoted

MOST_TIMESTEPS = 1024
MOST_CLASSES = 30_000
MOST_WEIGHTS = 2**28
"""Of one layer: a gigabyte."""
MOST = 10_000
"""Of channels, layers, heads ...: beyond any network, and little enough to count to."""


def split_spec(kind: str, spec: Any, known: Mapping[str, list[str]]) -> tuple[str, dict[str, Any]]:
    """Split "name" or {"name": ..., key: value, ...} into the name and the rest; `known` has the keys of each name.

    Raises:
        ZooError: neither of the two forms, an unknown name or an unknown key.
    """
    if not isinstance(spec, str | Mapping):
        raise ZooError(f'{kind} takes a name or an object {{"name": ...}}, not {quoted(spec)}')
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
        raise ZooError(f"{name} must be a number in [{low:g}, {high:g}], not {quoted(value)}")
    return float(value)


def check_positive(name: str, value: Any) -> float:
    """`value` as a float, if it is a finite number greater than 0."""
    if check_number(name, value) == 0:
        raise ZooError(f"{name} must be greater than 0, not {quoted(value)}")
    return float(value)


def check_flag(name: str, value: Any) -> bool:
    """`value`, if it is true or false."""
    if not isinstance(value, bool):
        raise ZooError(f"{name} must be true or false, not {quoted(value)}")
    return value


def check_integer(name: str, value: Any, low: int, high: int = MOST) -> int:
    """`value` as an int, if it is an integer (NumPy's and a tensor's, too) in [low, high]."""
    try:
        number = operator.index(value)
    except (TypeError, ValueError):
        number = None
    if isinstance(value, bool) or number is None or not low <= number <= high:
        raise ZooError(f"{name} must be an integer from {low} to {high}, not {quoted(value)}")
    return number


def check_timesteps(value: Any) -> int:
    """`value`, if it can be a number of time steps."""
    return check_integer("timesteps", value, 1, MOST_TIMESTEPS)


def check_weights(rows: int, columns: int) -> None:
    """Raise ZooError if a layer would have more weights than any network's has."""
    if rows * columns > MOST_WEIGHTS:
        raise ZooError(
            f"a layer of {rows:,} x {columns:,} weights is larger than any network's: give smaller images, fewer "
            "channels, or a larger stem_stride"
        )
