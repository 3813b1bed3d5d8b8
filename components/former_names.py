"""Former names of stored fields: files of earlier versions are read under the current names."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, model_validator


class AcceptsFormerNames(BaseModel):
    """Base of stored models: `former_names` maps a former key to the current field."""

    former_names: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _with_current_names(cls, values: Any) -> Any:  # noqa: ANN401 - pydantic validates the type afterwards
        if not cls.former_names or not isinstance(values, dict):
            return values
        for former, current in cls.former_names.items():
            if former in values and current in values:
                raise ValueError(f"{former} is the former name of {current}: give one of them")
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
