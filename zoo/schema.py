"""Typed models of what files and command lines hold: fields say their type, limits and meaning once, in pydantic."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import ZooError, one_of, quoted


class Model(BaseModel):
    """An object whose keys are its fields: an unknown key, a number that is not finite or `true` for 1 is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


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
