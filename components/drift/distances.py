"""Distances between two samples, computed for many divisions of their items at once; knows nothing of what they are.

Every function returns a Statistic: (divisions, items) of ones and zeros to one distance a division.
"""

import numpy as np
from numpy.typing import NDArray

from image_finder.components.arrays import FloatMatrix, Vectors
from image_finder.components.drift.divisions import Sides, Statistic, Values


def wasserstein(values: Values) -> Statistic:
    """Wasserstein-1 distance of one number an item, (items,), in its unit: how far mass must move on average. Exact."""
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
    """The same for a distribution over whole numbers an item, (items, numbers), rows sum to 1."""

    def of(sides: Sides) -> Values:
        first, second = _means(sides, histograms)
        distance: Values = np.abs(np.cumsum(first - second, axis=1)).sum(axis=1)
        return distance

    return of


def jensen_shannon(frequencies: FloatMatrix) -> Statistic:
    """Jensen-Shannon divergence in bits, 0 to 1, of one distribution an item, (items, words), rows sum to 1."""

    def of(sides: Sides) -> Values:
        first, second = _means(sides, frequencies)
        middle = (first + second) / 2
        return _entropy(middle) - (_entropy(first) + _entropy(second)) / 2

    return of


def rise_of_mean(values: Values) -> Statistic:
    """Mean of the second side minus mean of the first, of one number an item, (items,): one-sided."""

    def of(sides: Sides) -> Values:
        first, second = _means(sides, values[:, None])
        rise: Values = (second - first)[:, 0]
        return rise

    return of


def rise_of_share(counts: Values, totals: Values) -> Statistic:
    """Share counts / totals over the second side minus that over the first, both (items,): one-sided."""

    def of(sides: Sides) -> Values:
        both = np.stack([counts, totals], axis=1)
        first = sides.astype(np.float64) @ both
        second = both.sum(axis=0) - first
        rise: Values = second[:, 0] / second[:, 1] - first[:, 0] / first[:, 1]
        return rise

    return of


def energy(vectors: Vectors) -> Statistic:
    """Energy distance as a share of its largest value, of unit vectors (items, dim).

    (2 E|X-Y| - E|X-X'| - E|Y-Y'|) / 2 E|X-Y|, 0 for equal populations, 1 for two single points (Szekely and Rizzo,
    Energy statistics, 2013); unbiased numerator, so a little below 0 by chance. It sees any difference of the
    distributions and has no bandwidth to choose. O(items^2 x (dim + divisions)), items^2 x 4 bytes of memory.
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
    """Items on the first and on the second side: (divisions, 1) each."""
    first: Values = sides.sum(axis=1, dtype=np.float64)[:, None]
    return first, sides.shape[1] - first


def _means(sides: Sides, rows: NDArray[np.floating]) -> tuple[Values, Values]:
    """Mean row of the first and of the second side: (divisions, columns) each."""
    n_first, n_second = _sizes(sides)
    first = (sides @ rows).astype(np.float64)
    return first / n_first, (rows.sum(axis=0, dtype=np.float64) - first) / n_second


def _entropy(shares: Values) -> Values:
    """Bits, (divisions,); shares may be a rounding error below 0."""
    kept = np.maximum(shares, 1e-300)
    entropy: Values = -(np.maximum(shares, 0) * np.log2(kept)).sum(axis=1)
    return entropy
