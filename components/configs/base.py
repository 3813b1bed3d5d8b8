"""Base of all configurations: frozen, validated, with one-line error messages."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from image_finder.components.errors import ConfigError
from image_finder.components.former_names import AcceptsFormerNames
from image_finder.components.text import shortened

_OF_WHOLE = {"value_error", "missing", "too_long", "too_short"}  # faults of a whole record or list

# Commit of a Hugging Face repository; branches and tags can change.
Revision = Annotated[str, StringConstraints(pattern="^[0-9a-f]{40}$")]
Share = Annotated[float, Field(ge=0, le=1)]


class Config(AcceptsFormerNames):
    """Base: immutable; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Build from plain values (YAML, JSON). Raises ConfigError with the first fault."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{cls.__name__}: {first_fault(error)}") from error


def first_fault(error: ValidationError) -> str:
    """The first fault of a pydantic error as `key: what, got value`, and the number of others.

    A fault of several values names them itself, so their record is not shown.
    """
    faults = error.errors(include_url=False)
    fault = faults[0]
    key = "".join(f"{part}." for part in fault["loc"]).removesuffix(".")
    value = fault["input"]
    whole = fault["type"] in _OF_WHOLE and isinstance(value, dict | list | tuple | BaseModel)
    shown = repr(value) if isinstance(value, str | bytes | dict | list | tuple) else str(value)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{f'{key}: ' if key else ''}{fault_message(fault)}{'' if whole else f', got {shortened(shown, 80)}'}{more}"


def fault_message(fault: Mapping[str, Any]) -> str:
    """The message of a pydantic fault without the name of a validator's exception."""
    return str(fault["msg"]).removeprefix("Value error, ")
