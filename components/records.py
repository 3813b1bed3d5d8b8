"""Frozen results that stages hand to each other and store as JSON; knows nothing of how they are computed."""

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict

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


class PromotionDecision(Record):
    """Whether a candidate becomes champion, and why."""

    promoted: bool
    candidate_version: str
    champion_version: str | None
    reasons: tuple[str, ...]
    candidate_mean_recall: float
    champion_mean_recall: float | None


class Hit(Record):
    """One search result."""

    rank: int
    score: float
    id: str
    uri: str
    captions: tuple[str, ...]
