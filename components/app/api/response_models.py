"""Answers of the API."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from image_finder.components.app.api.thumbnail_address import thumbnail_address
from image_finder.components.records.base import Record
from image_finder.components.records.search import ImageFacts, IndexedImage, MatchFacts, ResultFacts, SearchResult
from image_finder.components.search.labels import LabelScore

_PRIVATE = {"uri", "sha256"}
_BUNDLE = "first 16 digits of the SHA-256 of the model's bundle; vectors of equal bundles are comparable"


class ImageAnswer(ImageFacts):
    """Metadata of one image."""

    thumbnail: str = Field(
        description="address of a small JPEG, relative to /api/v1/; add &px= for another size. It changes with the content "
        "of the image, so that a browser keeps the thumbnail for a year"
    )
    path: str | None = Field(None, description="path on the server; only with --show-paths")

    @classmethod
    def of(cls, image: IndexedImage, *, show_path: bool) -> Self:
        """The answer for an image or hit. Without show_path, path stays unset and is thus absent from the JSON."""
        path = {"path": image.uri} if show_path else {}
        thumbnail = thumbnail_address(image.id, image.sha256)
        return cls.model_validate({**image.model_dump(exclude=_PRIVATE), "thumbnail": thumbnail, **path})


class HitAnswer(ImageAnswer, MatchFacts):
    """One search result."""


class SearchAnswer(ResultFacts):
    """A page of hits."""

    hits: list[HitAnswer]
    notice: str = Field("", description="only if the library is empty: what to do")
    took_ms: dict[str, float] = Field(description="durations of the stages, including time in the queue")
    generation: str = Field(description="name of the index generation")
    bundle: str = Field(description=_BUNDLE)

    @classmethod
    def of(cls, result: SearchResult, *, show_paths: bool, **facts: object) -> Self:
        """The answer for a result. facts: took_ms, generation, bundle and optionally notice."""
        values = {name: getattr(result, name) for name in ResultFacts.model_fields}
        hits = [HitAnswer.of(hit, show_path=show_paths) for hit in result.hits]
        return cls.model_validate({"hits": hits, **values, **facts})


class BrowseAnswer(Record):
    """A page of images by time."""

    images: list[ImageAnswer]
    candidates: int = Field(description="images that match the filters")
    cursor: str | None = Field(description="for the next page; null after the last image")
    generation: str = Field(description="name of the index generation")


class ExamplesAnswer(Record):
    """Queries to start from."""

    queries: list[str] = Field(description="texts for which the library has images")


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class EmbedAnswer(_Answer):
    """Unit vectors of texts and images, comparable by their dot product."""

    texts: list[list[float]] = Field(description="for each text, as many numbers as GET /info gives as embedding_dim")
    images: list[list[float]] = Field(description="for each image, as many numbers")
    bundle: str = Field(description=_BUNDLE)


class LabelsAnswer(_Answer):
    """Labels, most probable first."""

    labels: list[LabelScore]


class BundleInfo(_Answer):
    """The current model."""

    sha256: str
    dataset: str
    data_version: str
    image_trunk: str
    text_trunk: str
    embedding_dim: int
    starter: bool = Field(description="whether it is the starter model of the package")


class IndexingAnswer(_Answer):
    """A running update of the library."""

    done: int = Field(description="images read by this update")
    total: int = Field(description="images that it reads")
    remaining_s: float | None = Field(description="estimated; null before the first image")


class ProgressAnswer(_Answer):
    """What can be searched now, and what is being indexed."""

    images: int = Field(description="searchable images")
    generation: str = Field(description="name of the index generation; empty if there is no index yet")
    indexing: IndexingAnswer | None = Field(description="null if no update is running")


class InfoAnswer(_Answer):
    """Index, model and limits of a server."""

    version: str
    gallery: str
    generation: str
    images: int
    failed: int = Field(description="files that could not be read")
    bundle: BundleInfo
    good_match: float | None = Field(description="least best score of a search that matches well; null if not measured")
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
    indexing: IndexingAnswer | None = Field(None, description="the running update of the library, if there is one")
    pending: str | None = Field(
        None, description="if the index does not belong to the champion: the command that completes the change"
    )


class FieldError(_Answer):
    """An invalid parameter, or an invalid value of a body."""

    location: str = Field(
        description="`query.NAME` or `path.NAME` for a parameter; for a body the JSON pointer of the value, which is empty "
        "for the whole body"
    )
    message: str


class Problem(_Answer):
    """Every error answer, as RFC 9457 describes it."""

    type: str = Field(description="address of the description of the code, relative to the server")
    title: str = Field(description="what the code means")
    status: int = Field(description="HTTP status")
    detail: str = Field(description="what happened and what to do")
    code: str = Field(description="stable name of the kind of error, for programs")
    request_id: str = Field(description="id in the server log; empty if the server could not read the request")
    errors: list[FieldError] = Field([], description="invalid parameters or values, at most 20; only if there are any")


class QueryOutcome(_Answer):
    """What became of one query: an answer or an error, the other is null."""

    answer: SearchAnswer | None = None
    error: Problem | None = None


class SearchesAnswer(_Answer):
    """Outcomes of several queries."""

    results: list[QueryOutcome] = Field(description="in the order of the queries")
