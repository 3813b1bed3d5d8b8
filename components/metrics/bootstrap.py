"""Bootstrap: confidence intervals of recall by resampling images; knows nothing of models or files.

Captions of one image succeed and fail together, so whole images are drawn, with all their queries. Drawing captions one
by one would make the interval too narrow (Davison and Hinkley 1997, section 3.8). The gallery is never resampled.
"""

import numpy as np
from numpy.typing import NDArray

from image_finder.components.arrays import FloatVector, IntVector
from image_finder.components.metrics.ranks import MatchRanks
from image_finder.components.records.retrieval import Interval

_SAMPLES_AT_A_TIME = 100  # bounds the memory: 100 x 5,000 images are 4 MB


def row_of_caption(ranks: MatchRanks) -> IntVector:
    """(n_captions,) row of each caption's image in captioned_images."""
    return np.searchsorted(ranks.captioned_images, ranks.image_of_caption)


def per_image(image: IntVector, n_captioned: int, values: NDArray[np.generic] | None = None) -> NDArray[np.float64]:
    """(n_captioned,) sum of the values of each image's queries; their number without values.

    image: (n_queries,) rows.
    """
    return np.bincount(image, weights=values, minlength=n_captioned).astype(np.float64)


def bootstrap_recalls(
    hits: NDArray[np.float64], queries: NDArray[np.float64], *, samples: int, seed: int
) -> NDArray[np.float64]:
    """Recalls in `samples` resamplings of the images with replacement: (samples, n_measures).

    hits, queries: (n_captioned, n_measures) hits and queries of each image. All measures share the draws, so their
    mean can be taken draw by draw. A measure without queries in a draw is NaN there.
    """
    rng = np.random.default_rng(seed)
    n_captioned = len(hits)
    draws = []
    for start in range(0, samples, _SAMPLES_AT_A_TIME):
        n_draws = min(_SAMPLES_AT_A_TIME, samples - start)
        picks = rng.integers(n_captioned, size=(n_draws, n_captioned)) + n_captioned * np.arange(n_draws)[:, None]
        weights = np.bincount(picks.ravel(), minlength=n_draws * n_captioned).reshape(n_draws, n_captioned)
        weights = weights.astype(np.float64)  # integers would bypass BLAS
        denominator = weights @ queries
        undefined = np.full_like(denominator, np.nan)
        draws.append(np.divide(weights @ hits, denominator, where=denominator > 0, out=undefined))
    return np.concatenate(draws)


def percentile_interval(draws: FloatVector) -> Interval:
    """The middle 95 % of bootstrap draws; ignores NaN."""
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Interval(low=float(low), high=float(high))
