"""Calibration of scores: meaning of a model's cosines, from pairs it was not trained on; knows nothing of models or files.

A cosine alone means little: true pairs score about 0.3 with one model and 0.6 with another. Two facts make it
readable: how true pairs of caption and image score, and how the best hit scores when the gallery has a right one.
"""

import numpy as np
from numpy.typing import NDArray

from image_finder.components.arrays import FloatMatrix, IntVector
from image_finder.components.errors import DataError
from image_finder.components.metrics.ranks import checked_vectors, chunks
from image_finder.components.records.calibration import N_QUANTILES, ScoreCalibration
from image_finder.components.records.retrieval import EvaluatedOn

_MISSED = 0.05  # share of answerable queries whose best hit falls below the threshold
_DECIMALS = 6  # precision of float32 cosines


def calibrate_scores(
    image_embeddings: FloatMatrix,
    text_embeddings: FloatMatrix,
    image_of_caption: IntVector,
    *,
    logit_scale: float,
    identity: EvaluatedOn,
    chunk_rows: int | None = None,
) -> ScoreCalibration:
    """Quantiles of true pairs' cosines, and the 5 % quantile of each caption's best cosine.

    Arguments as in `first_match_ranks`; logit_scale: the model's factor before the softmax, above 0. Captions are used
    without prompt templates. Raises DataError.
    """
    images, texts, owners = checked_vectors(image_embeddings, text_embeddings, image_of_caption)
    if not (np.isfinite(logit_scale) and logit_scale > 0):
        raise DataError(f"logit_scale is {logit_scale}, expected a finite number above 0: the training diverged")
    gallery = images.astype(np.float64)  # in float32 a sum depends on the shape of its chunk
    own, best = np.empty(len(texts), np.float32), np.empty(len(texts), np.float32)
    for part in chunks(len(texts), len(images), chunk_rows):
        scores = (texts[part].astype(np.float64) @ gallery.T).astype(np.float32)
        own[part] = scores[np.arange(len(scores)), owners[part]]
        best[part] = scores.max(axis=1)
    return ScoreCalibration(
        logit_scale=float(logit_scale),
        good_match=_quantiles(best, np.array([_MISSED]))[0],
        quantiles=_quantiles(own, np.linspace(0, 1, N_QUANTILES)),
        n_captions=len(texts),
        gallery_size=len(images),
        **identity.model_dump(),
    )


def _quantiles(cosines: NDArray[np.float32], shares: NDArray[np.float64]) -> tuple[float, ...]:
    found: list[float] = np.quantile(cosines.astype(np.float64), shares).round(_DECIMALS).tolist()
    return tuple(found)
