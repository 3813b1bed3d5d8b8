"""Configuration of what counts as drift."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from image_finder.components.configs.base import Config

DRIFT_ROWS = 9  # most rows a drift report has; its chance of a false alarm is shared out among so many


class DriftConfig(Config):
    """What counts as drift: a limit of each distance (an effect that matters), and the chance of a false alarm.

    A row drifts only when its distance is above both its limit and the threshold that random re-divisions of the
    images exceed by chance. The limits lie between what Flickr8k's own parts differ by and what other data differ by.
    """

    trigger: Literal["off", "warn", "fail"] = Field(
        "warn", description="off: nothing is measured; warn: drift is reported; fail: it stops the run before training"
    )
    images: Literal["all", "new"] = Field(
        "all", description="new: only images that the champion was not trained on (by content) are compared"
    )
    reference_images: int = Field(2000, ge=50, le=5000, description="training images that a reference keeps")
    compared_images: int = Field(1000, ge=50, le=5000, description="images that are drawn to be compared")
    min_images: int = Field(50, ge=10, description="with fewer images on a side nothing is compared")
    permutations: int = Field(999, ge=99, le=9999, description="random re-divisions of the images of both sides")
    false_alarm_rate: float = Field(
        0.01, gt=0, lt=1, description="chance that any row of a report drifts where nothing did; shared out evenly"
    )
    seed: int = Field(0, ge=0, description="of the draw of images and of the re-divisions")
    max_length: float = Field(1.0, ge=0, description="Wasserstein distance of caption lengths, words")
    max_vocabulary: float = Field(
        0.05, ge=0, le=1, description="Jensen-Shannon divergence of word frequencies above chance, bits"
    )
    max_new_words: float = Field(
        0.02, ge=0, le=1, description="rise of the share of words that no other training image's captions hold"
    )
    max_size: float = Field(
        0.25, ge=0, description="Wasserstein distance of the geometric mean of the sides, octaves (1: twice as large)"
    )
    max_shape: float = Field(0.25, ge=0, description="Wasserstein distance of width over height, octaves")
    max_brightness: float = Field(0.05, ge=0, le=1, description="Wasserstein distance of mean luma, black 0 to white 1")
    max_embedding: float = Field(
        0.02, ge=0, le=1, description="energy distance of the images' vectors as a share of its largest value"
    )
    logs: tuple[str, ...] = Field(
        (), description="files of `image-finder serve`'s log that a training looks at; * and ? stand for any characters"
    )
    recent_days: int = Field(7, ge=1, description="the newest so many days of the logs count as now")
    min_queries: int = Field(100, ge=1, description="with fewer queries in a period nothing is said about it")
    max_unmatched: float = Field(0.5, ge=0, le=1, description="share of text queries that nothing matched well")
    max_unmatched_rise: float = Field(0.1, ge=0, le=1, description="rise of that share over the days before")

    @model_validator(mode="after")
    def _permutations_reach_the_rate(self) -> Self:
        needed = math.ceil(DRIFT_ROWS / self.false_alarm_rate) - 1
        if self.permutations < needed:
            raise ValueError(
                f"permutations ({self.permutations}) must be at least {needed:,} for false_alarm_rate "
                f"({self.false_alarm_rate}): it is shared out among {DRIFT_ROWS} rows"
            )
        return self
