"""Calibration of scores: what cosines of a model mean, from pairs it was not trained on; knows nothing of models or files.

A cosine alone tells a person nothing: with one model true pairs lie around 0.3, with another around 0.6. Two facts make
it readable: how true pairs of caption and image score, and how the best hit scores when there is something to find.
"""

import numpy as np
from numpy.typing import NDArray

from image_finder.components.arrays import FloatMatrix, IntVector
from image_finder.components.errors import DataError
from image_finder.components.metrics.retrieval import TILE_SCORES, EvaluatedOn, checked_vectors, chunks
from image_finder.components.records.calibration import N_QUANTILES, ScoreCalibration

_MISSED = 0.05  # share of answerable queries that the threshold calls unanswered
_DECIMALS = 6  # what float32 cosines hold


def calibrate_scores(
    image_embeddings: FloatMatrix,
    text_embeddings: FloatMatrix,
    image_of_caption: IntVector,
    *,
    logit_scale: float,
    identity: EvaluatedOn,
    chunk_rows: int | None = None,
) -> ScoreCalibration:
    """Quantiles of the cosines of true pairs, and the 5 % quantile of every caption's best cosine in the gallery.

    Arguments as in `first_match_ranks`, never more than 4 million cosines at a time; logit_scale: the model's factor
    before a softmax, above 0. Captions are taken as they are, without prompt templates. Raises DataError.
    """
    images, texts, owners = checked_vectors(image_embeddings, text_embeddings, image_of_caption)
    if not (np.isfinite(logit_scale) and logit_scale > 0):
        raise DataError(
            f"logit_scale is {logit_scale}, expected a finite number above 0: the model's training diverged"
        )
    if chunk_rows is not None and chunk_rows < 1:
        raise DataError(f"chunk_rows is {chunk_rows}, expected at least 1")
    gallery = images.astype(np.float64)  # in float32 a sum depends on the shape of its chunk
    own, best = np.empty(len(texts), np.float32), np.empty(len(texts), np.float32)
    for part in chunks(len(texts), chunk_rows or max(1, TILE_SCORES // len(images))):
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
