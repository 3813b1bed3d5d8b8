"""What the API is asked, as its OpenAPI document tells it."""

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from image_finder.components.search.query import (
    MAX_HITS,
    MAX_QUERY_CHARACTERS,
    MAX_REACH,
    MAX_TERMS,
    NOT_WEIGHT,
    Duplicates,
    Filters,
    Query,
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

    q: list[_Text] = Field([], max_length=MAX_TERMS, description="texts, each a separate term")
    not_terms: list[_Text] = Field(
        [],
        alias="not",
        max_length=MAX_TERMS,
        description="texts that lower the rank of images that show them; no image is removed",
    )
    like: list[str] = Field([], max_length=MAX_TERMS, description="ids of images to search by")
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
    duplicates: Duplicates = Field("fold", description="fold: show one of several near-duplicates; show: show each")

    def query(self) -> Query:
        """The query of these parameters. Raises QueryError."""
        return Query.of_terms(
            [*({"text": text} for text in self.q), *({"like": identity} for identity in self.like)],
            [{"text": text} for text in self.not_terms],
            folders=self.folder,
            cameras=self.camera,
            **self.model_dump(exclude={"q", "like", "not_terms", "folder", "camera"}),
        )


class QueryTerm(_Asked):
    """Exactly one of text, like and image; null counts as left out."""

    model_config = ConfigDict(json_schema_extra=_exactly_one("text", "like", "image"))
    text: _Text | None = None
    like: _Identity | None = None
    image: _PartName | None = None
    weight: float = Field(1.0, gt=0, le=10, allow_inf_nan=False)


class NotTerm(QueryTerm):
    """Exactly one of text, like and image; null counts as left out. Images that show it rank lower; none is removed."""

    weight: float = Field(
        NOT_WEIGHT, gt=0, le=10, allow_inf_nan=False, description="share of its cosine that lowers the score"
    )


class SearchBody(_Asked):
    """What POST /search takes."""

    model_config = ConfigDict(json_schema_extra={"required": ["terms"]})  # told, not checked: see _Text
    terms: list[QueryTerm] = Field([], max_length=MAX_TERMS, json_schema_extra={"minItems": 1})
    not_terms: list[NotTerm] = Field(
        [],
        alias="not",
        max_length=MAX_TERMS,
        description="terms that lower the rank of images that show them; no image is removed",
    )
    filters: Filters = Filters()
    k: int = Field(20, ge=1, le=MAX_HITS)
    offset: int = Field(0, ge=0, le=MAX_REACH)
    min_score: float | None = Field(None, ge=-100, le=100)
    duplicates: Duplicates = "fold"


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
    terms: list[QueryTerm] = Field([], max_length=MAX_TERMS, json_schema_extra={"minItems": 1})


class LabelsBody(_Asked):
    """What POST /labels takes: exactly one of id and image; null counts as left out."""

    model_config = ConfigDict(json_schema_extra=_exactly_one("id", "image"))
    id: _Identity | None = None
    image: _PartName | None = None
    labels: list[_Text] = Field(min_length=1, max_length=MAX_LABELS, description="what the image may show")
