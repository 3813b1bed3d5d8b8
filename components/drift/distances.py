"""Distances between two samples, computed for many divisions of their items at once; knows nothing of the items.

Every function returns a Statistic: (divisions, items) of ones and zeros in, one distance per division out. SciPy computes
Wasserstein distances of one division per call (0.5 ms; 999 divisions of 3,000 items take 0.5 s against 0.16 s here) and
energy distances of scalars only; its permutation test and entropy are used.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from image_finder.components.arrays import FloatMatrix, Vectors
from image_finder.components.drift.permutation import Sides, Statistic, Values


def wasserstein(values: Values) -> Statistic:
    """Wasserstein-1 distance of one number per item: the mean distance that mass has to move. values: (items,)."""
    order = np.argsort(values, kind="stable")
    gaps = np.diff(values[order])

    def of(sides: Sides) -> Values:
        first = np.cumsum(sides[:, order], axis=1, dtype=np.float64)[:, :-1]
        second = np.arange(1, len(values)) - first
        n_first, n_second = _sizes(sides)
        distance: Values = np.abs(first / n_first - second / n_second) @ gaps
        return distance

    return of


def wasserstein_of_counts(histograms: Values) -> Statistic:
    """Wasserstein-1 distance of one distribution over integers per item: (items, integers), rows sum to 1."""

    def of(sides: Sides) -> Values:
        first, second = _means(sides, histograms)
        distance: Values = np.abs(np.cumsum(first - second, axis=1)).sum(axis=1)
        return distance

    return of


def jensen_shannon(frequencies: FloatMatrix) -> Statistic:
    """Jensen-Shannon divergence in bits, 0 to 1, of one distribution per item: (items, words), rows sum to 1."""

    def of(sides: Sides) -> Values:
        # A mean can be a rounding error below 0.
        first, second = (np.maximum(mean, 0) for mean in _means(sides, frequencies))
        of_middle, of_first, of_second = (
            stats.entropy(shares, base=2, axis=1) for shares in ((first + second) / 2, first, second)
        )
        divergence: Values = of_middle - (of_first + of_second) / 2
        return divergence

    return of


def rise_of_mean(values: Values) -> Statistic:
    """Mean of the second side minus mean of the first, of (items,) numbers: one-sided."""

    def of(sides: Sides) -> Values:
        first, second = _means(sides, values[:, None])
        rise: Values = (second - first)[:, 0]
        return rise

    return of


def rise_of_share(counts: Values, totals: Values) -> Statistic:
    """Share counts / totals, (items,) each, of the second side minus that of the first: one-sided."""

    def of(sides: Sides) -> Values:
        both = np.stack([counts, totals], axis=1)
        first = sides.astype(np.float64) @ both
        second = both.sum(axis=0) - first
        rise: Values = second[:, 0] / second[:, 1] - first[:, 0] / first[:, 1]
        return rise

    return of


def energy(vectors: Vectors) -> Statistic:
    """Energy distance of unit vectors, (items, dim), as a share of its maximum.

    (2 E|X-Y| - E|X-X'| - E|Y-Y'|) / 2 E|X-Y|: 0 for equal populations, 1 for two distinct points (Szekely and Rizzo,
    Energy statistics, 2013). The numerator is unbiased, so chance can bring it slightly below 0. It detects every
    difference of distributions and has no bandwidth. O(items^2 x (dim + divisions)), items^2 x 4 bytes of memory.
    """
    apart = np.sqrt(np.maximum(2 - 2 * (vectors @ vectors.T), 0))
    np.fill_diagonal(apart, 0)
    of_item = apart.sum(axis=1, dtype=np.float64)

    def of(sides: Sides) -> Values:
        n_first, n_second = (size[:, 0] for size in _sizes(sides))
        within_first = np.einsum("ij,ij->i", sides @ apart, sides, dtype=np.float64)
        across = sides.astype(np.float64) @ of_item - within_first
        within_second = of_item.sum() - within_first - 2 * across
        mean_across = across / (n_first * n_second)
        mean_within = within_first / (n_first * (n_first - 1)) + within_second / (n_second * (n_second - 1))
        share: Values = (2 * mean_across - mean_within) / np.maximum(2 * mean_across, 1e-12)
        return share

    return of


def _sizes(sides: Sides) -> tuple[Values, Values]:
    """Number of items on each side: (divisions, 1)."""
    first: Values = sides.sum(axis=1, dtype=np.float64)[:, None]
    return first, sides.shape[1] - first


def _means(sides: Sides, rows: NDArray[np.floating]) -> tuple[Values, Values]:
    """Mean row of each side: (divisions, columns)."""
    n_first, n_second = _sizes(sides)
    first = (sides @ rows).astype(np.float64)
    return first / n_first, (rows.sum(axis=0, dtype=np.float64) - first) / n_second
