"""Records of a retrieval measurement."""

from pydantic import Field

from image_finder.components.former_names import SliceName
from image_finder.components.records.base import Record


class Interval(Record):
    """Two-sided 95 % interval."""

    low: float
    high: float

    def text(self, form: str = ".1f", *, times: int = 100) -> str:
        """Both ends, in percent unless `times` is 1, for example [28.0, 33.0]."""
        return f"[{times * self.low:{form}}, {times * self.high:{form}}]"


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

    slice: SliceName
    value: SliceName
    n_queries: int
    recall: dict[int, float]
    interval: dict[int, Interval]


class EvaluatedOn(Record):
    dataset: str
    data_version: str
    split: str  # part of the data set, or name of an extra evaluation set

    def of_set(self, name: str) -> "EvaluatedOn":
        """The identity of an extra evaluation set of the same data version."""
        return EvaluatedOn(dataset=self.dataset, data_version=self.data_version, split=name)


class RetrievalReport(EvaluatedOn):
    """Hit-rate recall@k (1 if any right item is among the k nearest) in both directions."""

    n_images: int
    n_captions: int
    text_to_image: DirectionReport
    image_to_text: DirectionReport
    mean_recall: float
    mean_recall_interval: Interval
    slices: tuple[SliceReport, ...]
    bootstrap_samples: int
    seed: int
    extra_sets: "dict[str, RetrievalReport]" = Field(default_factory=dict, exclude_if=lambda sets: not sets)

    @property
    def sets(self) -> "dict[str, RetrievalReport]":
        """The main report by its split, then those of the extra sets by name."""
        return {self.split: self, **self.extra_sets}

    @property
    def mean_over_sets(self) -> float:
        """Mean of mean recall over all sets: what promotion compares."""
        found = [report.mean_recall for report in self.sets.values()]
        return sum(found) / len(found)
