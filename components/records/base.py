"""Base of all records."""

from typing import Literal

from pydantic import ConfigDict

from image_finder.components.former_names import AcceptsFormerNames

PartName = Literal["train", "val", "test"]


class Record(AcceptsFormerNames):
    """Base: immutable, stored as JSON, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
