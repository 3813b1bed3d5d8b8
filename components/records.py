"""Frozen results that stages hand to each other and store as JSON; knows nothing of how they are computed."""

import hashlib
from datetime import date, datetime
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

PartName = Literal["train", "val", "test"]


class Record(BaseModel):
    """Base: immutable, JSON in and out, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetManifest(Record):
    """Identity of a data set's content: the data version."""

    name: str
    layout: str
    root: str
    n_images: int
    n_captions: int
    n_images_of_part: dict[str, int]
    annotations_sha256: dict[str, str]
    pictures_sha256: str  # over the sorted (file name, content hash) pairs of all readable pictures
    mean_caption_characters: float
    unreadable_pictures: int

    @property
    def version(self) -> str:
        """Short data version: 12 hex digits over annotations and pictures."""
        parts = [f"{part}:{digest}" for part, digest in sorted(self.annotations_sha256.items())]
        return hashlib.sha256("\n".join([*parts, self.pictures_sha256]).encode()).hexdigest()[:12]


class ExpectationResult(Record):
    """One expectation: what was checked, over how many rows, and how many failed it."""

    name: str
    column: str
    description: str
    severity: Literal["quarantine", "error", "warning"]
    success: bool
    n_checked: int
    n_failed: int
    observed: str = ""
    examples: tuple[str, ...] = ()


class ValidationReport(Record):
    """Outcome of the data validation. `quarantined` maps a reason to the caption ids it removed."""

    dataset: str
    data_version: str
    n_images: int
    n_captions: int
    n_valid_captions: int
    expectations: tuple[ExpectationResult, ...]
    quarantined: dict[str, tuple[int, ...]]
    max_quarantined_share: float
    success: bool

    @property
    def quarantined_share(self) -> float:
        """Share of the captions that were quarantined, 0 to 1."""
        return (self.n_captions - self.n_valid_captions) / self.n_captions if self.n_captions else 0.0


class EpochRecord(Record):
    """What one epoch of training measured."""

    epoch: int  # counted from 1
    loss: float
    head_rate: float
    trunk_rate: float
    logit_scale: float
    pictures_per_s: float
    seconds: float
    val_recall: dict[str, float]  # t2i_r1, t2i_r5, ... as shares
    val_mean_recall: float


class Interval(Record):
    """Two-sided 95 % interval."""

    low: float
    high: float


class DirectionReport(Record):
    """Retrieval in one direction. Keys of the dictionaries are k; values are shares, 0 to 1."""

    n_queries: int
    gallery_size: int
    recall: dict[int, float]
    interval: dict[int, Interval]
    random_recall: dict[int, float]
    median_rank: float


class SliceReport(Record):
    """Text-to-image recall of the captions in one slice, searched in the whole gallery."""

    slice: str
    value: str
    n_queries: int
    recall: dict[int, float]
    interval: dict[int, Interval]


class RetrievalReport(Record):
    """Hit-rate recall@k (1 if any right item is among the k nearest) in both directions."""

    dataset: str
    data_version: str
    split: PartName
    n_images: int
    n_captions: int
    text_to_image: DirectionReport
    image_to_text: DirectionReport
    mean_recall: float
    mean_recall_interval: Interval
    slices: tuple[SliceReport, ...]
    bootstrap_samples: int
    seed: int


MATCH_FEATURES = (
    "cosine",
    "z",
    "log_share",
    "spread",
    "log_excess",
    "rarest_word",
    "mean_word",
    "words",
)


class MatchModel(Record):
    """Logistic model of whether a hit shows what a text says; its features are those of components.search.matching.

    A hit is good if its probability reaches min_probability, which is the least at which precision held on queries that
    the coefficients were not fitted to.
    """

    coefficients: tuple[float, ...] = Field(min_length=len(MATCH_FEATURES), max_length=len(MATCH_FEATURES))
    intercept: float = Field(allow_inf_nan=False)
    min_probability: float = Field(gt=0, lt=1)
    precision: float = Field(ge=0, le=1, description="share of good hits that were right, in the worst gallery")
    n_queries: int = Field(ge=1)


class MatchModels(Record):
    """When a hit is called good, for texts of one or two content words and longer ones; None where that cannot be said."""

    short: MatchModel | None
    long: MatchModel | None


N_QUANTILES = 21  # 0, 5, ..., 100 %


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(high < low for low, high in pairwise(values)):
        raise ValueError("quantiles must not descend")
    return values


_Cosine = Annotated[float, Field(ge=-1.001, le=1.001)]  # float32 vectors are unit to 1e-3; NaN is within no limits


class ScoreCalibration(Record):
    """What cosines of a model mean, measured on pictures it was not trained on; a bundle carries it as scores.json.

    good_match: 5 % quantile, over captions whose picture is in the gallery, of the best cosine in the gallery; a query
    whose best cosine is below it does worse than 95 % of queries that had an answer.
    """

    logit_scale: float = Field(gt=0, allow_inf_nan=False, description="factor of cosines before a softmax")
    good_match: _Cosine
    quantiles: tuple[_Cosine, ...] = Field(
        min_length=N_QUANTILES,
        max_length=N_QUANTILES,
        description="cosines of true caption-picture pairs at 0, 5, ..., 100 %",
    )
    n_captions: int = Field(ge=1)
    gallery_size: int = Field(ge=1)
    dataset: str
    data_version: str
    split: PartName
    matches: MatchModels | None = None  # None: no hit is called good

    _check_quantiles = field_validator("quantiles")(_ascending)


class ParityCase(Record):
    """Torch against ONNX for one tower, batch size and input."""

    tower: Literal["image", "text"]
    batch: int
    case: str
    min_cosine: float
    max_difference: float


class ParityReport(Record):
    """Torch against ONNX over all cases, with the limits they were held to."""

    cases: tuple[ParityCase, ...]
    min_cosine: float
    max_difference: float
    torch_recall_at_10: float
    onnx_recall_at_10: float
    n_pictures: int
    passed: bool
    reasons: tuple[str, ...]


class BundleMeasurement(Record):
    """What a promotion asks of a bundle, measured on its ONNX towers as they would serve."""

    report: RetrievalReport
    text_ms: float  # median from one caption to its vector, on the CPU
    image_ms: float  # median from the pixels of one picture, decoded and resized before, to its vector, on the CPU
    bundle_mb: float  # all files, 1 MB = 10^6 bytes
    embedding_dim: int
    device: Literal["cpu", "cuda"]  # that found the vectors of the report
    threads: int  # processor cores that ONNX Runtime may use
    test_sha256: str  # over the captions searched with and their pictures: the same test has the same
    code_sha256: str  # of the code that measured


class SliceDifference(Record):
    """Candidate minus champion on one slice: recall averaged over all k, a share; below zero it fell."""

    slice: str
    value: str
    n_queries: int
    difference: float
    interval: Interval


class Comparison(Record):
    """Candidate minus champion on the same queries: mean recall over both directions and all k, and every slice."""

    gain: float
    interval: Interval  # paired bootstrap, clustered by picture
    slices: tuple[SliceDifference, ...]
    n_pictures: int
    bootstrap_samples: int


class PromotionCheck(Record):
    """Outcome of one rule of a promotion. What was not measured (None, NaN) never passes."""

    name: str
    measured: float | None
    required: str  # in words, e.g. "at least 0.0500"
    passed: bool
    detail: str = ""


class PromotionDecision(Record):
    """Whether a candidate becomes champion, and why. Not forced, it is promoted only if every check passed."""

    promoted: bool
    candidate_version: str
    champion_version: str | None  # before the decision
    reasons: tuple[str, ...]
    checks: tuple[PromotionCheck, ...]
    candidate_mean_recall: float | None  # None where it was not measured; NaN could not be read back from JSON
    champion_mean_recall: float | None
    gain: float | None
    gain_interval: Interval | None
    forced: bool = False

    @model_validator(mode="after")
    def _promoted_by_every_check_or_by_force(self) -> Self:
        failed = [check.name for check in self.checks if not check.passed]
        if self.promoted and not self.forced and (failed or not self.checks):
            raise ValueError(f"promoted although these checks failed: {', '.join(failed) or 'none was made'}")
        return self


class Picture(Record):
    """One picture of an index, as far as its file and its captions tell."""

    id: str  # stable as long as the file keeps its place
    uri: str  # absolute path as text
    folder: str  # label: name of the indexed folder, then the folders below it
    name: str
    captions: tuple[str, ...]
    sha256: str
    bytes: int
    width_px: int  # as displayed
    height_px: int
    taken_at: datetime | None  # the camera's local time, without a zone
    modified_at: datetime | None  # of the file, with the UTC offset of this machine's time zone
    camera: str  # "" if unknown
    latitude: float | None  # degrees, WGS84
    longitude: float | None


class Hit(Picture):
    """One search result."""

    rank: int  # counted from 1 over all pages
    score: float
    good: bool | None  # whether it is a good match, as every hit before it; None where that cannot be said
    duplicates: tuple[str, ...]  # ids of the near-duplicates that this one stands for


class TruncatedText(Record):
    """A text of a query that exceeds the model's limit: the beginning that was used, and the rest, which was not."""

    used: str
    unused: str


class SearchResult(Record):
    """Answer to one query.

    matches_well: whether any hit is good or scores as the best hits of captions whose image was in the gallery; None
    unless the query is of texts.
    """

    hits: tuple[Hit, ...]
    candidates: int  # pictures that pass the filters
    more: bool  # whether there is a next page
    matches_well: bool | None
    unmet: tuple[str, ...] = ()  # words of the query that the model's training captions lack: their hits are guesses
    truncated: tuple[TruncatedText, ...] = ()  # texts of the query that were used in part


class Facet(Record):
    """A value that pictures have, and how many have it."""

    value: str
    count: int


class Facets(Record):
    """What the filters can choose among."""

    folders: tuple[Facet, ...]
    cameras: tuple[Facet, ...]
    first_day: date | None
    last_day: date | None
    with_gps: int
    pictures: int
