"""Random re-divisions of two samples: what a distance between them would be if both came from one population.

A permutation test (Good, Permutation Tests, 2000): the pooled items are divided at random into two sides of the sizes
they have, again and again; the distance of the true division is one of the drawn ones if nothing differs. What is
divided are whole items (images, days), never their parts: five captions of one image are not five witnesses.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Sides = NDArray[np.float32]  # (divisions, items): 1 for an item on the first side, 0 on the second
Values = NDArray[np.float64]
Statistic = Callable[[Sides], Values]  # (divisions, items) -> (divisions,), larger is farther apart

_DIVISIONS_AT_ONCE = 250  # bounds the memory: 250 x 10,000 items are 10 MB


class Chance(NamedTuple):
    """A distance beside what chance makes of it.

    threshold: the distance is above it exactly when p_value is at most the rate that was asked for; mean: over the
    random divisions; p_value: share of divisions, the true one included, that lie at least as far apart.
    """

    measured: float
    threshold: float
    mean: float
    p_value: float


def compare_with_chance(
    statistic: Statistic, sizes: tuple[int, int], *, permutations: int, rate: float, seed: int
) -> Chance:
    """The distance of the true division, whose first sizes[0] items are on the first side, among random divisions.

    rate: chance that the distance is above the threshold where nothing differs, at least 1 / (permutations + 1).
    Exact for exchangeable items, whatever their distribution; ties count against a difference.
    O(permutations x cost of the statistic); equal seeds divide alike.
    """
    found = np.concatenate([statistic(sides) for sides in _divisions(sizes, permutations, seed)])
    measured, drawn = found[0], found[1:]
    allowed = math.floor(rate * (permutations + 1) + 1e-9)  # 0.001 x 1,000 is below 1 in binary
    return Chance(
        measured=float(measured),
        threshold=float(np.sort(drawn)[-allowed]),
        mean=float(drawn.mean()),
        p_value=(1 + int(np.count_nonzero(drawn >= measured))) / (permutations + 1),
    )


def _divisions(sizes: tuple[int, int], permutations: int, seed: int) -> Iterator[Sides]:
    rng = np.random.default_rng(seed)
    true = np.repeat(np.array([1, 0], np.float32), sizes)
    yield true[None]
    for start in range(0, permutations, _DIVISIONS_AT_ONCE):
        count = min(_DIVISIONS_AT_ONCE, permutations - start)
        yield rng.permuted(np.broadcast_to(true, (count, len(true))), axis=1)
