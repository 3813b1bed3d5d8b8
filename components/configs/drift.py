"""Configuration of drift."""

import math
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from image_finder.components.configs.base import Config, Share

DRIFT_ROWS = 9  # most rows of a drift report; they share its chance of a false alarm


class DriftConfig(Config):
    """Limits of drift: a minimum effect for each distance, and the chance of a false alarm.

    A row drifts if its distance exceeds its limit and the threshold of random permutations of the images. The limits
    are between the differences among Flickr8k's parts and those to other data sets.
    """

    former_names: ClassVar = {
        "pictures": "images",
        "reference_pictures": "reference_images",
        "compared_pictures": "compared_images",
        "min_pictures": "min_images",
    }

    trigger: Literal["off", "warn", "fail"] = Field(
        "warn", description="off: not measured; warn: drift is reported; fail: drift stops the run before training"
    )
    images: Literal["all", "new"] = Field(
        "all", description="all: every image; new: only images, by content, that the champion was not trained on"
    )
    reference_images: int = Field(2000, ge=50, le=5000, description="training images stored in a reference")
    compared_images: int = Field(1000, ge=50, le=5000, description="images sampled for the comparison")
    min_images: int = Field(50, ge=10, description="fewest images on either side for a comparison")
    permutations: int = Field(999, ge=99, le=9999, description="random permutations of the images of both sides")
    false_alarm_rate: float = Field(
        0.01, gt=0, lt=1, description="chance that any row drifts by chance; divided evenly among the rows"
    )
    seed: int = Field(0, ge=0, description="of the sample and the permutations")
    max_length: float = Field(1.0, ge=0, description="Wasserstein distance of caption lengths, words")
    max_vocabulary: Share = Field(0.05, description="Jensen-Shannon divergence of word frequencies above chance, bits")
    max_new_words: Share = Field(
        0.02, description="rise of the share of words that are in no other image's training captions"
    )
    max_size: float = Field(
        0.25, ge=0, description="Wasserstein distance of the geometric mean of the sides, octaves (1: twice as large)"
    )
    max_shape: float = Field(0.25, ge=0, description="Wasserstein distance of width over height, octaves")
    max_brightness: Share = Field(0.05, description="Wasserstein distance of mean luma, black 0 to white 1")
    max_embedding: Share = Field(0.02, description="energy distance of image vectors as a share of its maximum")
    logs: tuple[str, ...] = Field(
        (), description="search logs of `image-finder serve` that a training reads; * and ? match any characters"
    )
    recent_days: int = Field(7, ge=1, description="newest days of the logs that are compared with the days before")
    min_queries: int = Field(100, ge=1, description="fewest queries in a period for a comparison")
    max_unmatched: Share = Field(0.5, description="share of text queries without a good match")
    max_unmatched_rise: Share = Field(0.1, description="rise of that share over the days before")

    @model_validator(mode="after")
    def _permutations_reach_the_rate(self) -> Self:
        needed = math.ceil(DRIFT_ROWS / self.false_alarm_rate) - 1
        if self.permutations < needed:
            raise ValueError(
                f"permutations ({self.permutations}) must be at least {needed:,} for false_alarm_rate "
                f"({self.false_alarm_rate}): {DRIFT_ROWS} rows share it"
            )
        return self
