"""Requests of the API. Filters and result options are those of the query model, under the names of the command line."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, ValidationError, WithJsonSchema
from pydantic_core import CoreSchema

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
MAX_QUERIES = 32  # of POST /searches
MAX_TEXTS, MAX_IMAGES = 64, 16  # of POST /embed
_TEXT_SCHEMA = {"type": "string", "minLength": 1, "maxLength": MAX_QUERY_CHARACTERS}
# Limits that are documented here and checked by Query, whose messages are better than those of a schema.
_Text = Annotated[str, WithJsonSchema(_TEXT_SCHEMA)]
# Limits belong to the type inside the union: pydantic may apply those of an optional field to None, a TypeError.
_Identity = Annotated[str, Field(max_length=64, description="id of an indexed image")]
_PartName = Annotated[str, Field(max_length=64, description="name of the part with an uploaded image")]
_NOT = "Terms that rank the images that show them lower; no image is removed."
_TERMS = "Texts, ids of indexed images and uploaded images, each with a weight; in addition to q and like."
# Field of Filters and Query -> its name in requests, which is that of the option on the command line.
NAMES = {"folders": "folder", "cameras": "camera", "not_terms": "not", "has_gps": "gps"}
_NAMED = ConfigDict(alias_generator=lambda name: NAMES.get(name, name))


def _exactly_one(*names: str) -> dict[str, Any]:
    """JSON Schema: one of these fields is a string, the others are null or absent."""
    return {"oneOf": [{"required": [name], "properties": {name: {"type": "string"}}} for name in names]}


class QueryTerm(Record):
    """Exactly one of text, like and image; null means absent."""

    model_config = ConfigDict(json_schema_extra=_exactly_one("text", "like", "image"))
    text: _Text | None = None
    like: _Identity | None = None
    image: _PartName | None = None
    weight: float = Field(1.0, gt=0, le=10, allow_inf_nan=False)

    def values(self, image: Callable[[str], bytes]) -> dict[str, object]:
        """The values of a term of Query. image: returns an upload by the name of its part."""
        values = self.model_dump(exclude_none=True)
        if self.image is not None:
            values["image"] = image(self.image)
        return values


class NotTerm(QueryTerm):
    """Exactly one of text, like and image; null means absent. Lowers the rank of images."""

    weight: float = Field(
        NOT_WEIGHT, gt=0, le=10, allow_inf_nan=False, description="Share of the term's cosine that lowers the score."
    )


class _OrText:
    """Documents that a text is accepted in place of a term."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [_TEXT_SCHEMA, handler(schema)]}


def _as_term(value: object) -> object:
    return {"text": value} if isinstance(value, str) else value


_NotTerm = Annotated[NotTerm, BeforeValidator(_as_term), _OrText()]


class TermParameters(Record):
    """Texts and indexed images. Repeat a parameter for a list."""

    q: list[_Text] = Field([], max_length=MAX_TERMS, description="Texts, each a separate term.")
    like: list[_Identity] = Field([], max_length=MAX_TERMS, description="Ids of indexed images to search by.")

    def values(self) -> list[dict[str, object]]:
        """The values of terms of Query."""
        texts: list[dict[str, object]] = [{"text": text} for text in self.q]
        return texts + [{"like": identity} for identity in self.like]


class _SearchFields(ResultFields, FilterFields, TermParameters):  # fields of the last class come first
    model_config = _NAMED

    def options(self) -> dict[str, Any]:
        names = {*FilterFields.model_fields, *ResultFields.model_fields}
        return self.model_dump(include=names)


class SearchParameters(_SearchFields):
    """Parameters of GET /search. Repeat a parameter for a list."""

    not_terms: list[_Text] = Field([], max_length=MAX_TERMS, description=_NOT)

    def query(self) -> Query:
        """Raises QueryError."""
        return Query.of_terms(self.values(), [{"text": text} for text in self.not_terms], **self.options())


class SearchBody(_SearchFields):
    """A query: the parameters of GET /search as JSON, and terms with weights."""

    terms: list[QueryTerm] = Field([], max_length=MAX_TERMS, description=_TERMS)
    not_terms: list[_NotTerm] = Field([], max_length=MAX_TERMS, description=_NOT)

    def query(self, image: Callable[[str], bytes]) -> Query:
        """image: returns an upload by the name of its part. Raises QueryError and what image raises."""
        terms = [*self.values(), *(term.values(image) for term in self.terms)]
        return Query.of_terms(terms, [term.values(image) for term in self.not_terms], **self.options())


class SearchesBody(Record):
    """Body of POST /searches."""

    queries: list[SearchBody] = Field(
        min_length=1, max_length=MAX_QUERIES, description="Queries of texts and indexed images; no uploads."
    )


class BrowseParameters(FilterFields):
    """Parameters of GET /images. Repeat a parameter for a list."""

    model_config = _NAMED
    k: int = Field(20, ge=1, le=MAX_HITS, description="Images per page.")
    order: TimeOrder = Field("newest", description="By capture time, else by the file's last change.")
    cursor: str | None = Field(None, max_length=100, description="`cursor` of the answer with the page before.")

    def filters(self) -> Filters:
        """Raises QueryError."""
        try:
            return Filters.model_validate(self.model_dump(exclude={"k", "order", "cursor"}))
        except ValidationError as error:
            raise QueryError(f"filters: {first_fault(error)}") from error


class ExplanationParameters(TermParameters):
    """Parameters of GET /images/{id}/explanation. Repeat a parameter for a list."""

    kind: Literal["query", "attention"] = Field(
        "query", description="Regions that raise the score (query), or weights of the attention pooling (attention)."
    )

    def query(self) -> Query | None:
        """The query to explain; None for the attention pooling. Raises QueryError."""
        return None if self.kind == "attention" else Query.of_terms(self.values())


class ExplanationBody(TermParameters):
    """Body of POST /images/{id}/explanation."""

    terms: list[QueryTerm] = Field([], max_length=MAX_TERMS, description=_TERMS)

    def query(self, image: Callable[[str], bytes]) -> Query:
        """See SearchBody.query."""
        return Query.of_terms([*self.values(), *(term.values(image) for term in self.terms)])


_LABELS = "Labels to compare, at least two."


class LabelsParameters(Record):
    """Parameters of POST /labels. Repeat a parameter for a list."""

    labels: list[_Text] = Field([], max_length=MAX_LABELS, description=_LABELS)


class LabelsBody(Record):
    """Body of POST /labels: exactly one of id and image; null means absent."""

    model_config = ConfigDict(json_schema_extra=_exactly_one("id", "image"))
    id: _Identity | None = None
    image: _PartName | None = None
    labels: list[_Text] = Field([], min_length=1, max_length=MAX_LABELS, description=_LABELS)


class EmbedBody(Record):
    """Body of POST /embed."""

    texts: list[_Text] = Field([], max_length=MAX_TEXTS, description="Texts to embed.")
    images: list[_PartName] = Field([], max_length=MAX_IMAGES, description="Names of the parts with uploaded images.")
