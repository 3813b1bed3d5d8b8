"""Records of a search: images, hits and facets. Fields that the HTTP API returns, too, are described for its document."""

from datetime import date, datetime
from typing import Annotated

from pydantic import Field, WithJsonSchema

from image_finder.components.records.base import Record

# JSON Schema's "date-time" (RFC 3339) requires a time zone, which cameras do not write.
LocalTime = Annotated[datetime, WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$"})]


class ImageFacts(Record):
    """Metadata of an image from its file and captions."""

    id: str = Field(description="id of an indexed image, stable while its path does not change")
    name: str
    folder: str = Field(description="label: name of the indexed folder and of the subfolders")
    captions: tuple[str, ...]
    width_px: int = Field(description="as displayed")
    height_px: int
    bytes: int
    taken_at: LocalTime | None = Field(description="capture time: the camera's local time, without time zone")
    modified_at: datetime | None = Field(description="modification time of the file, with UTC offset")
    camera: str = Field(description="empty if unknown")
    latitude: float | None = Field(description="degrees, WGS84")
    longitude: float | None


class IndexedImage(ImageFacts):
    """An image of an index. uri: absolute path as text."""

    uri: str
    sha256: str


class MatchFacts(Record):
    rank: int = Field(description="counted from 1 over all pages")
    score: float
    good: bool | None = Field(
        description="whether it is a good match; with order=match, good matches come first. Null if unknown: for queries with images, "
        "libraries of fewer than 50 images and models without match calibration"
    )
    duplicates: tuple[str, ...] = Field(description="ids of the near-duplicates folded into this hit")


class Hit(IndexedImage, MatchFacts):
    """One search result."""


class TruncatedText(Record):
    """A text of a query that was too long for the model."""

    used: str = Field(description="beginning that was searched for")
    unused: str = Field(description="rest that was ignored")


class ResultFacts(Record):
    """Properties of an answer to a query."""

    candidates: int = Field(description="images that match the filters")
    more: bool = Field(description="whether there is a next page")
    matches_well: bool | None = Field(
        description="false if no hit matches the texts well; null for queries with images"
    )
    unmet: tuple[str, ...] = Field(
        (), description="words that never occurred in the training captions; results may be unrelated"
    )
    truncated: tuple[TruncatedText, ...] = Field((), description="texts that were too long for the model")


class SearchResult(ResultFacts):
    hits: tuple[Hit, ...]


class BrowsedImages(Record):
    """A page of images by time."""

    images: tuple[IndexedImage, ...]
    candidates: int = Field(description="images that match the filters")
    cursor: str | None = Field(description="for the next page; null after the last image")


class Facet(Record):
    """A value of images, and how many have it."""

    value: str
    count: int


class Facets(Record):
    """Values that the filters offer."""

    folders: tuple[Facet, ...]
    cameras: tuple[Facet, ...]
    first_day: date | None
    last_day: date | None
    with_gps: int
    images: int
