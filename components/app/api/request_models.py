"""Requests of the API. Filters and result options are those of the query model."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, WithJsonSchema

from image_finder.components.configs import first_fault
from image_finder.components.errors import QueryError
from image_finder.components.records.base import Record
from image_finder.components.search.browsing import TimeOrder
from image_finder.components.search.query import (
    MAX_HITS,
    MAX_QUERY_CHARACTERS,
    MAX_TERMS,
    NOT_WEIGHT,
    FilterFields,
    Filters,
    Query,
    ResultFields,
)

MAX_LABELS = 100
# Limits that are documented here and checked by Query, whose messages are better than those of a schema.
_Text = Annotated[str, WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_QUERY_CHARACTERS})]
_REQUIRES_TERMS: dict[str, Any] = {"required": ["terms"]}
# Limits belong to the type inside the union: pydantic may apply those of an optional field to None, a TypeError.
_Identity = Annotated[str, Field(max_length=64, description="id of an indexed image")]
_PartName = Annotated[str, Field(max_length=64, description="name of the part with an uploaded image")]
_NOT = "Terms that rank the images that show them lower; no image is removed."
_PARAMETERS = {"folders": "folder", "cameras": "camera", "not_terms": "not"}


def _exactly_one(*names: str) -> dict[str, Any]:
    """JSON Schema: one of these fields is a string, the others are null or absent."""
    return {"oneOf": [{"required": [name], "properties": {name: {"type": "string"}}} for name in names]}


class _TermParameters(Record):
    q: list[_Text] = Field([], max_length=MAX_TERMS, description="Texts, each a separate term.")
    like: list[str] = Field([], max_length=MAX_TERMS, description="Ids of indexed images to search by.")

    def _terms(self) -> list[dict[str, str]]:
        return [*({"text": text} for text in self.q), *({"like": identity} for identity in self.like)]


class SearchParameters(_TermParameters, FilterFields, ResultFields):
    """Parameters of GET /search. Repeat a parameter for a list."""

    model_config = ConfigDict(alias_generator=lambda name: _PARAMETERS.get(name, name))
    not_terms: list[_Text] = Field([], max_length=MAX_TERMS, description=_NOT)

    def query(self) -> Query:
        options = self.model_dump(exclude={"q", "like", "not_terms"})
        return Query.of_terms(self._terms(), [{"text": text} for text in self.not_terms], **options)


class BrowseParameters(FilterFields):
    """Parameters of GET /images. Repeat a parameter for a list."""

    model_config = ConfigDict(alias_generator=lambda name: _PARAMETERS.get(name, name))
    k: int = Field(20, ge=1, le=MAX_HITS, description="Images per page.")
    order: TimeOrder = Field("newest", description="By capture time, else by the file's last change.")
    cursor: str | None = Field(None, max_length=100, description="`cursor` of the answer with the page before.")

    def filters(self) -> Filters:
        """Raises QueryError."""
        try:
            return Filters.model_validate(self.model_dump(exclude={"k", "order", "cursor"}))
        except ValidationError as error:
            raise QueryError(f"filters: {first_fault(error)}") from error


class QueryTerm(Record):
    """Exactly one of text, like and image; null means absent."""

    model_config = ConfigDict(json_schema_extra=_exactly_one("text", "like", "image"))
    text: _Text | None = None
    like: _Identity | None = None
    image: _PartName | None = None
    weight: float = Field(1.0, gt=0, le=10, allow_inf_nan=False)


class NotTerm(QueryTerm):
    """Exactly one of text, like and image; null means absent. Lowers the rank of images."""

    weight: float = Field(
        NOT_WEIGHT, gt=0, le=10, allow_inf_nan=False, description="Share of the term's cosine that lowers the score."
    )


class SearchBody(ResultFields):
    """Body of POST /search."""

    model_config = ConfigDict(json_schema_extra=_REQUIRES_TERMS)
    terms: list[QueryTerm] = Field([], max_length=MAX_TERMS, json_schema_extra={"minItems": 1})
    not_terms: list[NotTerm] = Field([], alias="not", max_length=MAX_TERMS, description=_NOT)
    filters: Filters = Filters()


class ExplanationParameters(_TermParameters):
    """Parameters of GET /images/{id}/explanation. Repeat a parameter for a list."""

    kind: Literal["query", "attention"] = Field(
        "query", description="Regions that raise the score (query), or weights of the attention pooling (attention)."
    )

    def query(self) -> Query | None:
        """The query to explain; None for the attention pooling. Raises QueryError."""
        return None if self.kind == "attention" else Query.of_terms(self._terms())


class ExplanationBody(Record):
    """Body of POST /images/{id}/explanation."""

    model_config = ConfigDict(json_schema_extra=_REQUIRES_TERMS)
    terms: list[QueryTerm] = Field([], max_length=MAX_TERMS, json_schema_extra={"minItems": 1})


class LabelsBody(Record):
    """Body of POST /labels: exactly one of id and image; null means absent."""

    model_config = ConfigDict(json_schema_extra=_exactly_one("id", "image"))
    id: _Identity | None = None
    image: _PartName | None = None
    labels: list[_Text] = Field(min_length=1, max_length=MAX_LABELS, description="Labels to compare.")
