"""Base of all records."""

from typing import Literal

from pydantic import ConfigDict

from image_finder.components.former_names import AcceptsFormerNames

PartName = Literal["train", "val", "test"]


class Record(AcceptsFormerNames):
    """Base: immutable, JSON in and out, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
