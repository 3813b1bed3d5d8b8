"""Permutation test: how large a distance between two samples would be if both came from one population.

SciPy divides the pooled items at random into two sides of the given sizes, again and again. Whole items (images, days)
are divided, never their parts, because the five captions of one image are not independent (Good, Permutation Tests, 2000).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Sides = NDArray[np.float32]  # (divisions, items): 1 for an item on the first side, 0 on the second
Values = NDArray[np.float64]
Statistic = Callable[[Sides], Values]  # (divisions, items) -> (divisions,), larger is farther apart

_DIVISIONS_PER_CALL = 250  # bounds the memory: 250 x 10,000 items are 10 MB


class Chance(NamedTuple):
    """A distance and its distribution under random divisions.

    threshold: the distance is above it exactly when p_value is at most the rate; mean: of the random divisions; p_value:
    share of divisions, the true one included, that are at least as far apart.
    """

    measured: float
    threshold: float
    mean: float
    p_value: float


def compare_with_chance(
    statistic: Statistic, sizes: tuple[int, int], *, permutations: int, rate: float, seed: int
) -> Chance:
    """Compare the distance of the first sizes[0] items from the rest with random divisions.

    rate: probability that the distance is above the threshold if nothing differs, at least 1 / (permutations + 1).
    Exact for exchangeable items of any distribution; a tie counts as no difference. The divisions depend on seed
    alone; up to six items, all their orders are used once. O(permutations x cost of the statistic).
    """
    true = np.repeat([1, 0], sizes)

    def of(sides: NDArray[np.int64], axis: int) -> Values:
        return statistic(np.atleast_2d(sides).astype(np.float32)).reshape(sides.shape[:axis])

    found = stats.permutation_test(
        (true,),
        of,
        permutation_type="pairings",  # of items and sides
        n_resamples=permutations,
        batch=_DIVISIONS_PER_CALL,
        vectorized=True,
        alternative="greater",
        rng=np.random.default_rng(seed),
    )
    measured, drawn = float(found.statistic), found.null_distribution
    true_included = math.factorial(len(true)) <= permutations
    n_divisions = len(drawn) if true_included else len(drawn) + 1
    allowed = math.floor(rate * n_divisions + 1e-9)  # 0.001 x 1,000 is below 1 in binary
    threshold = float(np.sort(drawn)[-(allowed + 1 if true_included else allowed)])
    if found.pvalue > rate + 1e-9:  # SciPy counts distances that differ by rounding as equal
        threshold = max(threshold, measured)
    return Chance(measured=measured, threshold=threshold, mean=float(drawn.mean()), p_value=float(found.pvalue))
