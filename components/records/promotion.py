"""Records of a comparison of two models and of the promotion decision."""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from image_finder.components.former_names import SliceName
from image_finder.components.records.base import Record
from image_finder.components.records.retrieval import Interval


class SliceDifference(Record):
    """Challenger minus champion on one slice: recall averaged over all k; negative is worse."""

    slice: SliceName
    value: SliceName
    n_queries: int
    difference: float
    interval: Interval
    of_set: str = Field("", exclude_if=lambda name: not name)  # extra evaluation set; "" for the main one


class SetDifference(Record):
    """Challenger minus champion on one evaluation set: mean recall; negative is worse."""

    name: str
    difference: float
    interval: Interval


class Comparison(Record):
    """Challenger minus champion on the same queries; gain: mean recall, all directions and k, mean over all sets."""

    former_names: ClassVar = {"n_pictures": "n_images"}

    gain: float
    interval: Interval  # paired bootstrap, clustered by image
    slices: tuple[SliceDifference, ...]
    n_images: int
    bootstrap_samples: int
    sets: tuple[SetDifference, ...] = Field((), exclude_if=lambda sets: not sets)  # empty without extra sets


class PromotionCheck(Record):
    """Outcome of one rule of a promotion. A missing measurement (None, NaN) fails."""

    name: str
    measured: float | None
    required: str  # in words, e.g. "at least 0.0500"
    passed: bool
    detail: str = ""


class PromotionDecision(Record):
    """Whether a challenger becomes champion, and why; unless forced, every check must pass."""

    former_names: ClassVar = {
        "candidate_version": "challenger_version",
        "candidate_mean_recall": "challenger_mean_recall",
    }

    promoted: bool
    challenger_version: str
    champion_version: str | None  # before the decision
    reasons: tuple[str, ...]
    checks: tuple[PromotionCheck, ...]
    challenger_mean_recall: float | None  # None if not measured, since JSON has no NaN
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
