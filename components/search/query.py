"""Query: the search request of command line, HTTP API, page and Python API.

The score of an image x is x . unit(sum w_i p_i), with unit vectors p_i of the terms: a cosine. The terms of `not`
lower it, see components/search/negation.py.
"""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from image_finder.components.configs import first_fault
from image_finder.components.errors import QueryError
from image_finder.components.records.base import Record

MAX_QUERY_CHARACTERS = 1000
MAX_TERMS = 16
MAX_HITS = 500
MAX_REACH = 5000  # offset + k: after so many pages a more precise query finds more
# The largest weight that keeps the images of the query among the first 20, to within 0.1. Of 14.8, and 3.3 that show the
# `not` term, 14.7 and 1.5 remain; with 0.5 15.0 and 1.8, with 0.8 14.2 and 1.2. Mean of 397 pairs: bench_negation.py --choosing.
NOT_WEIGHT = 0.65
EXAMPLE = "'a dog running on the beach'"

Duplicates = Literal["fold", "show"]
Order = Literal["match", "newest", "oldest"]
# By time, only images that match are sorted: those that are good matches or reach min_score, at most so many.
MAX_SORTED = 1000
UNKNOWN_SORTED = 100  # leading hits that are sorted if it is unknown which ones match


class Term(Record):
    """Part of a query: either a text, an image's bytes or the id of an indexed image."""

    text: str | None = None
    image: bytes | None = Field(None, repr=False)
    like: str | None = Field(None, max_length=64)
    weight: float = Field(1.0, gt=0, le=10)

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if [self.text, self.image, self.like].count(None) != 2:
            raise ValueError("a term is either a text, an image or the id of an image")
        return self


class NotTerm(Term):
    weight: float = Field(NOT_WEIGHT, gt=0, le=10)


class FilterFields(Record):
    """Fields of Filters, from which command line and HTTP API derive their options."""

    folders: tuple[str, ...] = Field(
        (), max_length=64, description="Only images in this folder and its subfolders (repeatable)."
    )
    since: date | None = Field(
        None,
        description="Taken on or after this day. The day is that of the capture (EXIF, camera's local time), else of the "
        "file's last change in the time zone of the machine that searches.",
    )
    until: date | None = Field(None, description="Taken on or before this day.")
    cameras: tuple[str, ...] = Field(
        (), max_length=64, description="Only cameras with this in their name, in any case (repeatable)."
    )
    min_px: int = Field(0, ge=0, le=1_000_000, description="Only images with a shorter side of at least N pixels.")
    orientation: Literal["landscape", "portrait", "square"] | None = Field(None, description="Only this shape.")
    name: str | None = Field(
        None,
        min_length=1,
        max_length=255,
        description="Only images with this in their file name, in any case; * matches any characters.",
    )
    has_gps: bool | None = Field(None, description="Only images with, or without, a known location.")


class Filters(FilterFields):
    """Conditions that an image must meet, all of them, to be a hit."""

    @model_validator(mode="after")
    def _days_are_ordered(self) -> Self:
        if self.since and self.until and self.since > self.until:
            raise ValueError(f"since ({self.since}) must not be after until ({self.until})")
        return self


class ResultFields(Record):
    """Fields that select hits, from which command line and HTTP API derive their options."""

    k: int = Field(20, ge=1, le=MAX_HITS, description="Images per page.")
    offset: int = Field(0, ge=0, le=MAX_REACH, description="Images before the page.")
    min_score: float | None = Field(None, ge=-100, le=100, description="Only images with at least this score.")
    order: Order = Field(
        "match",
        description="Best match first, or images that match by time: the good matches or, with a minimum score, those that "
        f"reach it; if no image is known to match, the {UNKNOWN_SORTED} best.",
    )
    duplicates: Duplicates = Field(
        "fold", description="Near-duplicates: show one image for all of them (fold), or each (show)."
    )


class Query(ResultFields):
    """A search request.

    Query.parse, Query.of_text and Query.of_terms raise errors that can be shown to users.
    """

    model_config = ConfigDict(populate_by_name=True)

    terms: tuple[Term, ...] = Field(min_length=1, max_length=MAX_TERMS)
    not_terms: tuple[NotTerm, ...] = Field((), max_length=MAX_TERMS, validation_alias="not")
    filters: Filters = Filters()

    @model_validator(mode="after")
    def _can_be_answered(self) -> Self:
        if self.offset + self.k > MAX_REACH:
            raise ValueError(f"offset ({self.offset}) and k ({self.k}) must not add up to more than {MAX_REACH}")
        for text in self.texts:
            require_text(text)
        return self

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of all terms, those of `not` last."""
        return tuple(term.text for term in (*self.terms, *self.not_terms) if term.text is not None)

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Build from plain values. Raises QueryError with one line for the first fault."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            if error.errors(include_url=False)[0]["loc"] == ("terms",):
                raise QueryError(
                    f"the query is empty; give a text, an image or the id of an image, e.g. {EXAMPLE}"
                ) from error
            raise QueryError(f"query: {first_fault(error)}") from error

    @classmethod
    def of_terms(
        cls, terms: Iterable[Mapping[str, object]], not_terms: Iterable[Mapping[str, object]] = (), **options: object
    ) -> Self:
        """Build from the plain values of terms. Raises QueryError.

        options: the other fields; those of `filters` are given beside them.
        """
        filters = {name: options.pop(name) for name in Filters.model_fields if name in options}
        return cls.parse({"terms": [*terms], "not": [*not_terms], "filters": filters, **options})

    @classmethod
    def of_text(cls, text: str, *, not_terms: Iterable[str] = (), **options: object) -> Self:
        """A query of one text. Raises QueryError."""
        return cls.of_terms([{"text": text}], [{"text": each} for each in not_terms], **options)


def require_text(text: str) -> str:
    """The stripped text. Raises QueryError if it is empty or too long.

    Replaces lone surrogates, which a terminal with another encoding may pass and tokenizers refuse.
    """
    text = text.encode("utf-8", "replace").decode().strip()
    if not text:
        raise QueryError(f"the query is empty; describe the image, e.g. {EXAMPLE}")
    if len(text) > MAX_QUERY_CHARACTERS:
        raise QueryError(f"the query has {len(text)} characters, the limit is {MAX_QUERY_CHARACTERS}; shorten it")
    return text
