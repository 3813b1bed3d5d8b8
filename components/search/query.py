"""Query: what is looked for, as a person may say it in the shell, over HTTP or on the page; knows nothing of indexes.

The score of an image x is x . unit(sum w_i p_i), with unit vectors p of the wanted terms: a cosine. Unwanted terms lower
it, see image_finder.components.search.negation.
"""

from datetime import date
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from image_finder.components.configs import first_fault
from image_finder.components.errors import QueryError
from image_finder.components.records.base import Record

MAX_QUERY_CHARACTERS = 1000
MAX_TERMS = 16
MAX_HITS = 500
MAX_REACH = 5000  # offset + k: a person who has turned so many pages asks something else
# The largest weight that keeps the wanted images among the first 20, to within 0.1: of 14.8, with 3.3 unwanted ones, 14.7
# and 1.5 remain; with 0.5 15.0 and 1.8, with 0.8 14.2 and 1.2. Mean of 397 pairs: bench_negation.py --choosing.
NEGATIVE_WEIGHT = 0.65
EXAMPLE = "'a dog running on the beach'"


class Term(Record):
    """One thing that is wanted or not: exactly one of a text, an image's bytes, the id of an image in the index."""

    text: str | None = None
    image: bytes | None = Field(None, repr=False)
    like: str | None = Field(None, max_length=64)
    weight: float = Field(1.0, gt=0, le=10)

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if [self.text, self.image, self.like].count(None) != 2:
            raise ValueError("a term is either a text, an image or the id of an image")
        return self


class Filters(Record):
    """Which images are looked at; all that are given must hold."""

    folders: tuple[str, ...] = Field((), max_length=64, description="labels of folders; what lies below them counts")
    since: date | None = Field(
        None,
        description="first day; of the capture (EXIF, the camera's local time), else of the file's last change in the time zone of the machine that searches",
    )
    until: date | None = Field(None, description="last day, included")
    cameras: tuple[str, ...] = Field((), max_length=64, description="parts of camera names, in any case")
    min_px: int = Field(0, ge=0, le=1_000_000, description="shortest side, pixels")
    orientation: Literal["landscape", "portrait", "square"] | None = None
    has_gps: bool | None = None

    @model_validator(mode="after")
    def _days_are_ordered(self) -> Self:
        if self.since and self.until and self.since > self.until:
            raise ValueError(f"since ({self.since}) must not be after until ({self.until})")
        return self


class Query(Record):
    """A whole question. Build it with Query.parse or Query.of_text, whose errors are fit to be shown."""

    terms: tuple[Term, ...] = Field(min_length=1, max_length=MAX_TERMS)
    negatives: tuple[Term, ...] = Field((), max_length=MAX_TERMS)
    filters: Filters = Filters()
    k: int = Field(20, ge=1, le=MAX_HITS, description="hits on a page")
    offset: int = Field(0, ge=0, le=MAX_REACH, description="hits before the page")
    min_score: float | None = Field(None, ge=-100, le=100)
    fold: bool = Field(True, description="show one of several near-duplicates")

    @model_validator(mode="after")
    def _can_be_answered(self) -> Self:
        if self.offset + self.k > MAX_REACH:
            raise ValueError(f"offset ({self.offset}) and k ({self.k}) must not add up to more than {MAX_REACH}")
        for term in (*self.terms, *self.negatives):
            if term.text is not None:
                require_text(term.text)
        return self

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Build from plain values. Raises QueryError with one line for the first fault."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise QueryError(_told(error)) from error

    @classmethod
    def of_text(cls, text: str, *, unwanted: tuple[str, ...] = (), **values: object) -> Self:
        """A query of one text. Raises QueryError."""
        negatives = [{"text": each, "weight": NEGATIVE_WEIGHT} for each in unwanted]
        return cls.parse({"terms": [{"text": text}], "negatives": negatives, **values})


def require_text(text: str) -> str:
    """The text as a tokenizer can read it. Raises QueryError if it is empty or too long.

    Halves of characters reach a program from a terminal of another encoding; tokenizers refuse them.
    """
    text = text.encode("utf-8", "replace").decode().strip()
    if not text:
        raise QueryError(f"the query is empty; say what the image shows, e.g. {EXAMPLE}")
    if len(text) > MAX_QUERY_CHARACTERS:
        raise QueryError(f"the query has {len(text)} characters, at most {MAX_QUERY_CHARACTERS} are read; shorten it")
    return text


def _told(error: ValidationError) -> str:
    if error.errors(include_url=False)[0]["loc"] == ("terms",):
        return f"the query is empty; name a text, an image or the id of an image, e.g. {EXAMPLE}"
    return f"query: {first_fault(error)}"
