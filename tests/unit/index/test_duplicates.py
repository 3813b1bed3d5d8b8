import numpy as np
import pytest

from image_finder.components.index.duplicates import NEAR_BITS, NEAR_COSINE, fold


def plainly_folded(hashes, vectors):
    """The rule, word for word: best first, each goes to the first shown one that it is near to."""
    shown, shown_by = [], []
    for row in range(len(hashes)):
        near = (
            other
            for other in shown
            if (int(hashes[row]) ^ int(hashes[other])).bit_count() <= NEAR_BITS
            and vectors[row] @ vectors[other] >= NEAR_COSINE
        )
        shown_by.append(next(near, row))
        if shown_by[-1] == row:
            shown.append(row)
    return shown_by


@pytest.mark.parametrize("count", [0, 1, 40, 700])
def test_folding_equals_a_direct_implementation_of_its_rule(count):
    rng = np.random.default_rng(count)
    hashes = rng.integers(0, 1 << 63, 30, np.uint64)[rng.integers(0, 30, count)]
    for _ in range(9):  # up to nine bits off, so that chains lead further than one step may
        hashes = hashes ^ (np.uint64(1) << rng.integers(0, 64, count).astype(np.uint64))
    vectors = rng.standard_normal((count, 3)).astype(np.float32) + 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = fold(hashes, vectors).tolist()
    assert found == plainly_folded(hashes, vectors)
    if count == 700:
        assert 50 < len(set(found)) < 650


def test_a_chain_of_small_changes_is_not_folded_into_one():
    steps = np.cumsum([0] + [(1 << 8) - 1 << 8 * n for n in range(4)], dtype=np.uint64)  # eight more bits each
    vectors = np.ones((5, 1), np.float32)
    assert fold(steps, vectors).tolist() == [0, 0, 2, 2, 4]
