"""Typed models of what files and command lines hold: fields say their type, limits and meaning once, in pydantic."""

from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from .errors import ZooError, one_of, quoted

LARGEST = 10**18
"""The largest number in a file: far beyond any measurement, yet small enough to compute with and to draw."""
LONGEST = 10_000
"""The most characters of a text in a file."""


def _printable(text: str) -> str:
    if not text.strip() or len(text) > LONGEST or not text.isprintable():
        raise ValueError(f"expected printable text of at most {LONGEST:,} characters")
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        for key, item in value.items():
            _plain(key), _plain(item)
    elif isinstance(value, list):
        for item in value:
            _plain(item)
    elif isinstance(value, str) and value:
        _printable(value)
    elif isinstance(value, int | float) and not -LARGEST <= value <= LARGEST:
        raise ValueError("expected finite numbers")
    return value


Text = Annotated[str, AfterValidator(_printable)]
"""A text that a page and a terminal can show as it is."""
Name = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")]
"""The name of an architecture or a data set, which becomes that of a folder."""
Tag = Annotated[str, Field(pattern="^([A-Za-z0-9_-][A-Za-z0-9_.-]{0,99})?$")]
"""What follows the name of an architecture and a dot: the name of a training, "" for none."""
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Number = Annotated[float, Field(ge=0, le=LARGEST)]
Percent = Annotated[float, Field(ge=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]
Integer = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Object = Annotated[dict[str, Any], AfterValidator(_plain)]
"""A JSON object of any keys, whose texts are printable and whose numbers are finite, however deep they lie."""


_STRICT = ConfigDict(strict=True, allow_inf_nan=False)


class Model(BaseModel):
    """An object whose keys are its fields: an unknown key, a number that is not finite or `true` for 1 is an error."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, **_STRICT)


AnyModel = TypeVar("AnyModel", bound=BaseModel)


def parse(kind: type[AnyModel], value: Any, what: str) -> AnyModel:
    """Builds a model from plain values.

    Args:
        kind: the model.
        value: an object of JSON or YAML values.
        what: how an error begins, such as the name of a file or "recipe key".

    Raises:
        ZooError: one line that names the first wrong key, its value and what the field takes.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise sentence(error, kind, what) from None


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """Returns what checks values of a type as strictly as the fields of a `Model`."""
    return TypeAdapter(kind, config=None if isinstance(kind, type) and issubclass(kind, BaseModel) else _STRICT)


def fits(kind: Any, value: Any) -> bool:
    """Returns whether a value is of a type of this file, of a model, or of a list or a choice of them."""
    try:
        adapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


def sentence(invalid: ValidationError, kind: type[BaseModel], what: str) -> ZooError:
    """Returns the first mistake that pydantic found as one line; see `parse`."""
    error = invalid.errors(include_url=False)[0]
    *outer, last = error["loc"] or ("",)
    if error["type"] == "extra_forbidden" and not outer:
        return one_of(what if what.endswith("key") else f"{what} key", last, list(kind.model_fields))
    where = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if error["type"] == "missing":
        return ZooError(f"{what}: {where} is missing")
    given = f", not {quoted(error['input'])}" if error["type"] not in ("value_error", "extra_forbidden") else ""
    return ZooError(f"{what} {where}: {message}{given}" if where else f"{what}: {message}{given}")
