"""Former names of stored fields: what an earlier version wrote is read under today's names."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, model_validator


class AcceptsFormerNames(BaseModel):
    """Base of stored models: a key of `former_names` is read as the field that it maps to."""

    former_names: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _with_current_names(cls, values: Any) -> Any:  # noqa: ANN401 - whatever is to be validated
        if not cls.former_names or not isinstance(values, dict):
            return values
        return {cls.former_names.get(name, name): value for name, value in values.items()}
