"""What the API answers, as its OpenAPI document tells it."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from image_finder.components.records.search import Facets, IndexedImage, SearchResult

# JSON Schema's "date-time" (RFC 3339) demands a zone, which cameras do not write.
_LocalTime = Annotated[datetime, WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$"})]


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True)


class ImageAnswer(_Told):
    """What is known of one image."""

    id: str = Field(description="id of an image of the index")
    name: str
    folder: str
    captions: list[str]
    width_px: int
    height_px: int
    bytes: int
    taken_at: _LocalTime | None = Field(description="the camera's local time, without a zone")
    modified_at: datetime | None = Field(description="of the file, with the UTC offset of the server's time zone")
    camera: str
    latitude: float | None
    longitude: float | None
    path: str | None = Field(None, description="on the server; only with --show-paths")

    @classmethod
    def of(cls, image: IndexedImage, *, show_path: bool) -> "ImageAnswer":
        """The answer for an image; its path only if shown."""
        return cls.model_validate(_public(image, show_path=show_path))


class HitAnswer(ImageAnswer):
    """One search result."""

    rank: int = Field(description="counted from 1 over all pages")
    score: float
    good: bool | None = Field(
        description="whether it is a good match; hits before a good one are good too. Null where that cannot be said: for "
        "queries with images, libraries of fewer than 50 images and models without match calibration"
    )
    duplicates: list[str] = Field(description="ids of the near-duplicates this one stands for")


class TruncatedAnswer(_Told):
    """A text of the query that was used in part."""

    used: str = Field(description="the beginning, which was searched for")
    unused: str = Field(description="the rest, which exceeds the model's limit")


class SearchAnswer(_Told):
    """The page of hits."""

    hits: list[HitAnswer]
    candidates: int = Field(description="images that pass the filters")
    more: bool
    matches_well: bool | None = Field(description="false if no hit matches the texts well; null unless by text")
    unmet: list[str] = Field(
        description="words of the query in no caption the model was trained on: their hits are guesses"
    )
    truncated: list[TruncatedAnswer] = Field(description="texts of the query that exceed what the model reads")
    notice: str = Field("", description="that the library is empty, and what to do; absent otherwise")
    took_ms: dict[str, float] = Field(description="stages, the waiting for a place included")
    generation: str = Field(description="name of the index that answered")
    bundle: str = Field(description="identity of the model")

    @classmethod
    def of(cls, result: SearchResult, *, show_paths: bool, **facts: object) -> "SearchAnswer":
        """The answer for a result. facts: took_ms, generation, bundle, perhaps notice."""
        values = {name: getattr(result, name) for name in ("candidates", "more", "matches_well", "unmet")}
        hits = [_public(hit, show_path=show_paths) for hit in result.hits]
        truncated = [text.model_dump() for text in result.truncated]
        return cls.model_validate({"hits": hits, "truncated": truncated, **values, **facts})


class LabelAnswer(_Told):
    """How well one label fits."""

    label: str
    probability: float = Field(description="share among the labels given, 0 to 1")
    score: float = Field(description="cosine")


class LabelsAnswer(_Told):
    """The labels, most probable first."""

    labels: list[LabelAnswer]


class BundleInfo(_Told):
    """The model that answers."""

    sha256: str
    dataset: str
    data_version: str
    image_trunk: str
    text_trunk: str
    embedding_dim: int
    starter: bool = Field(description="whether it is the model that comes with the package")


class InfoAnswer(_Told):
    """What is searched, with what, and within which limits."""

    version: str
    gallery: str
    generation: str
    images: int
    failed: int = Field(description="files that could not be indexed")
    bundle: BundleInfo
    good_match: float
    up_to_date: bool = Field(
        description="false while a newer index is there that cannot be opened, or folders are not watched that should be"
    )
    limits: dict[str, int]


class HealthAnswer(_Told):
    """Whether the server can answer."""

    status: Literal["live", "ready", "stale"] = Field(
        description="stale: the newest index cannot be opened, or folders are not watched that should be"
    )
    generation: str = ""
    images: int = 0
    watching: str = Field(
        "",
        description="events: the system reports changes of the folders; polling: they are looked through at intervals; "
        "empty: they are not watched",
    )
    pending: str | None = Field(
        None, description="the index belongs to the version before the champion; names the command that completes it"
    )


class FacetsAnswer(Facets):
    """What the filters can choose among."""


class ErrorFacts(_Told):
    """What went wrong."""

    code: str
    message: str
    request_id: str


class ErrorAnswer(_Told):
    """The form of every answer that is not the wanted one."""

    error: ErrorFacts


def _public(image: IndexedImage, *, show_path: bool) -> dict[str, object]:
    """What may be told of an image; without its path that is left unset, so that it is left out of the answer."""
    values = {name: getattr(image, name) for name in type(image).model_fields if name not in {"uri", "sha256"}}
    return {**values, "path": image.uri} if show_path else values
