"""Answers of the API."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from image_finder.components.records.search import Facets, IndexedImage, SearchResult

# JSON Schema's "date-time" (RFC 3339) requires a time zone, which cameras do not write.
_LocalTime = Annotated[datetime, WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$"})]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class ImageAnswer(_Answer):
    """Metadata of an image."""

    id: str = Field(description="id of an indexed image")
    name: str
    folder: str
    captions: list[str]
    width_px: int
    height_px: int
    bytes: int
    taken_at: _LocalTime | None = Field(description="capture time: the camera's local time, without time zone")
    modified_at: datetime | None = Field(description="modification time of the file, with the server's UTC offset")
    camera: str
    latitude: float | None
    longitude: float | None
    path: str | None = Field(None, description="path on the server; only with --show-paths")

    @classmethod
    def of(cls, image: IndexedImage, *, show_path: bool) -> "ImageAnswer":
        """The answer for an image, with its path if show_path."""
        return cls.model_validate(_public(image, show_path=show_path))


class HitAnswer(ImageAnswer):
    """One search result."""

    rank: int = Field(description="counted from 1 over all pages")
    score: float
    good: bool | None = Field(
        description="whether it is a good match; good matches come first. Null if unknown: for queries with images, "
        "libraries of fewer than 50 images and models without match calibration"
    )
    duplicates: list[str] = Field(description="ids of the near-duplicates folded into this hit")


class TruncatedAnswer(_Answer):
    """A text of the query that was too long for the model."""

    used: str = Field(description="beginning that was searched for")
    unused: str = Field(description="rest that was ignored")


class SearchAnswer(_Answer):
    """A page of hits."""

    hits: list[HitAnswer]
    candidates: int = Field(description="images that match the filters")
    more: bool = Field(description="whether there is a next page")
    matches_well: bool | None = Field(
        description="false if no hit matches the texts well; null for queries with images"
    )
    unmet: list[str] = Field(
        description="words of the query that never occurred in the training captions; results may be unrelated"
    )
    truncated: list[TruncatedAnswer] = Field(description="texts of the query that were too long for the model")
    notice: str = Field("", description="only if the library is empty: what to do")
    took_ms: dict[str, float] = Field(description="durations of the stages, including time in the queue")
    generation: str = Field(description="name of the index generation")
    bundle: str = Field(description="first 16 digits of the SHA-256 of the model's bundle")

    @classmethod
    def of(cls, result: SearchResult, *, show_paths: bool, **facts: object) -> "SearchAnswer":
        """The answer for a result. facts: took_ms, generation, bundle and optionally notice."""
        values = {name: getattr(result, name) for name in ("candidates", "more", "matches_well", "unmet")}
        hits = [_public(hit, show_path=show_paths) for hit in result.hits]
        truncated = [text.model_dump() for text in result.truncated]
        return cls.model_validate({"hits": hits, "truncated": truncated, **values, **facts})


class LabelAnswer(_Answer):
    """How well a label fits."""

    label: str
    probability: float = Field(description="0 to 1; adds up to 1 over the given labels")
    score: float = Field(description="cosine")


class LabelsAnswer(_Answer):
    """Labels, most probable first."""

    labels: list[LabelAnswer]


class BundleInfo(_Answer):
    """The current model."""

    sha256: str
    dataset: str
    data_version: str
    image_trunk: str
    text_trunk: str
    embedding_dim: int
    starter: bool = Field(description="whether it is the starter model of the package")


class InfoAnswer(_Answer):
    """Index, model and limits of a server."""

    version: str
    gallery: str
    generation: str
    images: int
    failed: int = Field(description="files that could not be read")
    bundle: BundleInfo
    good_match: float
    up_to_date: bool = Field(
        description="false if a new index cannot be opened or folders that should be watched are not"
    )
    limits: dict[str, int]


class HealthAnswer(_Answer):
    """State of a server."""

    status: Literal["live", "ready", "stale"] = Field(
        description="stale: a new index cannot be opened, or folders that should be watched are not"
    )
    generation: str = ""
    images: int = 0
    watching: str = Field(
        "",
        description="events: the system reports changes in the folders; polling: folders are scanned at intervals; "
        "empty: folders are not watched",
    )
    pending: str | None = Field(
        None, description="if the index does not belong to the champion: the command that completes the change"
    )


class FacetsAnswer(Facets):
    """Values that the filters accept."""


class ErrorFacts(_Answer):
    """Description of an error."""

    code: str
    message: str
    request_id: str


class ErrorAnswer(_Answer):
    """Every error answer."""

    error: ErrorFacts


def _public(image: IndexedImage, *, show_path: bool) -> dict[str, object]:
    """Public fields of an image. Without show_path, path is absent from the answer."""
    values = {name: getattr(image, name) for name in type(image).model_fields if name not in {"uri", "sha256"}}
    return {**values, "path": image.uri} if show_path else values
