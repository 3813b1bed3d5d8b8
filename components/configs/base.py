"""Base of all configurations: frozen, checked, and their faults told in one line."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from image_finder.components.errors import ConfigError
from image_finder.components.former_names import AcceptsFormerNames
from image_finder.components.text import shortened

_OF_WHOLE = {"value_error", "missing", "too_long", "too_short"}  # faults of a record or list, not of one value

# Commit of a repository on the Hugging Face hub. Its branches and tags may move.
Revision = Annotated[str, StringConstraints(pattern="^[0-9a-f]{40}$")]


class Config(AcceptsFormerNames):
    """Base: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Build from plain values (YAML, JSON). Raises ConfigError with one line for the first fault."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{cls.__name__}: {first_fault(error)}") from error


def first_fault(error: ValidationError) -> str:
    """The first fault of a pydantic error as `key: what, got value`, with a count of the rest.

    What concerns several values at once names them itself, and comes without the record they are in.
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
    """What one of pydantic's faults says, without the name of the exception that a validator raised."""
    return str(fault["msg"]).removeprefix("Value error, ")
