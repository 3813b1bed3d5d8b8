"""What the API is asked, as its OpenAPI document tells it."""

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from image_finder.components.search.query import (
    MAX_HITS,
    MAX_QUERY_CHARACTERS,
    MAX_REACH,
    MAX_TERMS,
    NEGATIVE_WEIGHT,
    Filters,
)

MAX_LABELS = 100
# Told, not checked: the query's own words for it are better than those of a schema.
_Text = Annotated[str, WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_QUERY_CHARACTERS})]
# Limits belong to the type beside None, never to the field: pydantic may apply those of a field to None, a TypeError.
_Identity = Annotated[str, Field(max_length=64, description="id of an image of the index")]
_PartName = Annotated[str, Field(max_length=64, description="name of the part that holds an uploaded image")]


def _exactly_one(*names: str) -> dict[str, Any]:
    """JSON Schema of: one of these fields is a string, the others are null or left out."""
    return {"oneOf": [{"required": [name], "properties": {name: {"type": "string"}}} for name in names]}


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class SearchParameters(_Asked):
    """What GET /search takes; lists by repeating the parameter."""

    q: list[_Text] = Field([], max_length=MAX_TERMS, description="texts that are wanted, each a term of its own")
    unwanted: list[_Text] = Field(
        [],
        alias="not",
        max_length=MAX_TERMS,
        description="texts that lower the rank of images that show them; no image is removed",
    )
    like: list[str] = Field([], max_length=MAX_TERMS, description="ids of images that are wanted")
    folder: list[str] = Field(
        [], max_length=64, description="labels of folders, see /facets; what is below counts, an unknown one is refused"
    )
    since: date | None = Field(None, description="first day")
    until: date | None = Field(None, description="last day, included")
    camera: list[str] = Field([], max_length=64, description="parts of camera names, in any case")
    min_px: int = Field(0, ge=0, le=1_000_000, description="shortest side, pixels")
    orientation: Literal["landscape", "portrait", "square"] | None = None
    has_gps: bool | None = None
    min_score: float | None = Field(None, ge=-100, le=100)
    k: int = Field(20, ge=1, le=MAX_HITS, description="hits on a page")
    offset: int = Field(0, ge=0, le=MAX_REACH, description="hits before the page")
    all: bool = Field(False, description="show near-duplicates, which are folded otherwise")

    def values(self) -> dict[str, object]:
        """The same as Query.parse takes it."""
        return {
            "terms": [*({"text": text} for text in self.q), *({"like": identity} for identity in self.like)],
            "negatives": [{"text": text, "weight": NEGATIVE_WEIGHT} for text in self.unwanted],
            "filters": {
                **self.model_dump(include={"since", "until", "min_px", "orientation", "has_gps"}),
                "folders": self.folder,
                "cameras": self.camera,
            },
            **self.model_dump(include={"k", "offset", "min_score"}),
            "fold": not self.all,
        }


class WantedTerm(_Asked):
    """Exactly one of text, like and image; null counts as left out."""

    model_config = ConfigDict(json_schema_extra=_exactly_one("text", "like", "image"))
    text: _Text | None = None
    like: _Identity | None = None
    image: _PartName | None = None
    weight: float = Field(1.0, gt=0, le=10, allow_inf_nan=False)


class UnwantedTerm(WantedTerm):
    """Exactly one of text, like and image; null counts as left out. Images that show it rank lower; none is removed."""

    weight: float = Field(
        NEGATIVE_WEIGHT, gt=0, le=10, allow_inf_nan=False, description="share of its cosine that lowers the score"
    )


class SearchBody(_Asked):
    """What POST /search takes."""

    model_config = ConfigDict(json_schema_extra={"required": ["terms"]})  # told, not checked: see _Text
    terms: list[WantedTerm] = Field([], max_length=MAX_TERMS, json_schema_extra={"minItems": 1})
    negatives: list[UnwantedTerm] = Field(
        [], max_length=MAX_TERMS, description="terms that lower the rank of images that show them; no image is removed"
    )
    filters: Filters = Filters()
    k: int = Field(20, ge=1, le=MAX_HITS)
    offset: int = Field(0, ge=0, le=MAX_REACH)
    min_score: float | None = Field(None, ge=-100, le=100)
    fold: bool = True


class ExplanationParameters(_Asked):
    """What GET /images/{id}/explanation takes; lists by repeating the parameter."""

    q: list[_Text] = Field([], max_length=MAX_TERMS, description="texts, each a term")
    like: list[str] = Field([], max_length=MAX_TERMS, description="ids of images of the index")
    kind: Literal["query", "attention"] = Field(
        "query", description="what raises the score for the query, or the weights of the attention pooling"
    )

    def values(self) -> dict[str, object]:
        """The terms as Query.parse takes them."""
        return {"terms": [*({"text": text} for text in self.q), *({"like": identity} for identity in self.like)]}


class ExplanationBody(_Asked):
    """What POST /images/{id}/explanation takes."""

    model_config = ConfigDict(json_schema_extra={"required": ["terms"]})  # described, not checked: see _Text
    terms: list[WantedTerm] = Field([], max_length=MAX_TERMS, json_schema_extra={"minItems": 1})


class LabelsBody(_Asked):
    """What POST /labels takes: exactly one of id and image; null counts as left out."""

    model_config = ConfigDict(json_schema_extra=_exactly_one("id", "image"))
    id: _Identity | None = None
    image: _PartName | None = None
    labels: list[_Text] = Field(min_length=1, max_length=MAX_LABELS, description="what the image may show")
