"""Best and worst queries."""

import numpy as np
import pytest

from image_finder.components.metrics.examples import pick_examples
from image_finder.components.metrics.ranks import first_match_ranks
from tests.support.retrieval import one_hot_case, random_case, unit


def test_examples_are_the_extremes_by_rank_then_margin_with_their_nearest_images():
    case = one_hot_case()
    ranks = first_match_ranks(*case)
    examples = pick_examples(case[0], case[1], ranks, count=2, top=2)
    assert [(e.caption_row, e.rank, e.hit_rows) for e in examples.best] == [(0, 1, (0, 1)), (1, 2, (0, 1))]
    assert [(e.caption_row, e.rank, e.hit_rows) for e in examples.worst] == [(2, 3, (0, 1)), (3, 2, (1, 0))]
    assert examples.best[0].hit_scores == pytest.approx(case[1][0, :2].tolist())
    assert examples.image_rows == (0, 1, 2)


def test_each_image_occurs_once_per_side():
    images, texts, owners = random_case(2)
    examples = pick_examples(images, texts, first_match_ranks(images, texts, owners), count=50)
    for side in (examples.best, examples.worst):
        assert sorted(example.image_row for example in side) == list(range(12))


def test_the_position_of_the_own_image_among_the_hits_is_its_rank_even_with_ties():
    images = unit([[1, 0], [1, 0], [1, 0], [0, 1]])
    texts = unit([[1, 0.1]])
    ranks = first_match_ranks(images, texts, np.array([0]))
    (example,) = pick_examples(images, texts, ranks, top=4).best
    assert example.rank == 3
    assert example.hit_rows == (1, 2, 0, 3)
