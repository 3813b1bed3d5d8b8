"""Base of all records."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

PartName = Literal["train", "val", "test"]


class Record(BaseModel):
    """Base: immutable, JSON in and out, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
