"""Records of the calibration of a model's scores."""

from itertools import pairwise
from typing import Annotated

from pydantic import Field, field_validator

from image_finder.components.records.base import PartName, Record

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
    """Logistic model of whether a hit shows what a text says; features: see search.matching.

    A hit is good if its probability reaches min_probability, the lowest value at which precision held on queries that
    the coefficients were not fitted to.
    """

    coefficients: tuple[float, ...] = Field(min_length=len(MATCH_FEATURES), max_length=len(MATCH_FEATURES))
    intercept: float = Field(allow_inf_nan=False)
    min_probability: float = Field(gt=0, lt=1)
    precision: float = Field(ge=0, le=1, description="share of good hits that were right, in the worst gallery")
    n_queries: int = Field(ge=1)


class MatchModels(Record):
    """Models for texts of one or two content words and for longer ones; None if not fitted."""

    short: MatchModel | None
    long: MatchModel | None


N_QUANTILES = 21  # 0, 5, ..., 100 %


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(high < low for low, high in pairwise(values)):
        raise ValueError("quantiles must not descend")
    return values


_Cosine = Annotated[float, Field(ge=-1.001, le=1.001)]  # float32 vectors have unit length to 1e-3; NaN is out of range


class Scores(Record):
    """Meaning of a model's cosines as far as it is known; stored as scores.json.

    The probabilities of labels are the softmax of scaled cosines, as with CLIP. With a bias they are the sigmoid of scaled
    cosines plus bias, as with SigLIP (Zhai et al. 2023), where labels do not compete.
    """

    logit_scale: float = Field(gt=0, allow_inf_nan=False, description="factor of cosines")
    logit_bias: float | None = Field(
        None, allow_inf_nan=False, exclude_if=lambda bias: bias is None, description="added before a sigmoid"
    )
    good_match: _Cosine | None = None  # None: not measured, no claim is made about a text
    matches: MatchModels | None = None  # None: no hit is called good


class ScoreCalibration(Scores):
    """Scores that were measured on held-out images.

    good_match: 5 % quantile of the best cosine in the gallery, over captions whose image is in the gallery; a query
    whose best cosine is lower does worse than 95 % of queries that have an answer.
    """

    good_match: _Cosine
    quantiles: tuple[_Cosine, ...] = Field(
        min_length=N_QUANTILES,
        max_length=N_QUANTILES,
        description="cosines of true caption-image pairs at 0, 5, ..., 100 %",
    )
    n_captions: int = Field(ge=1)
    gallery_size: int = Field(ge=1)
    dataset: str
    data_version: str
    split: PartName

    _check_quantiles = field_validator("quantiles")(_ascending)
