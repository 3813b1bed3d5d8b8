"""Former names of stored fields: what an earlier version wrote is read under today's names."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, model_validator


class AcceptsFormerNames(BaseModel):
    """Base of stored models: a key of `former_names` is read as the field that it maps to."""

    former_names: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _with_current_names(cls, values: Any) -> Any:  # noqa: ANN401 - whatever is to be validated
        if not cls.former_names or not isinstance(values, dict):
            return values
        return {cls.former_names.get(name, name): value for name, value in values.items()}


_FORMER_SLICES = {
    "text to picture": "text to image",
    "picture to text": "image to text",
    "picture shape": "image shape",
    "captions of the picture": "captions of the image",
}


def _current_slice(name: Any) -> Any:  # noqa: ANN401 - pydantic validates the type afterwards
    return ": ".join(_FORMER_SLICES.get(part, part) for part in name.split(": ")) if isinstance(name, str) else name


SliceName = Annotated[str, BeforeValidator(_current_slice)]  # a slice, one of its values, or "slice: value"
