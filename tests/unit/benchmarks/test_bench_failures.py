"""Error analysis: differences between kinds of captions, and the worst queries of a kind."""

import numpy as np
import pytest

from image_finder.components.metrics.ranks import MatchRanks, first_match_ranks
from tests.benchmarks.bench_failures import differences, worst_queries
from tests.support.retrieval import one_hot_case


def ranks_of(text_to_image, image_of_caption):
    """Ranks of captions; image to text and margins are not read."""
    owners = np.array(image_of_caption)
    captioned = np.unique(owners)
    unread = np.zeros(len(owners), np.float32)
    return MatchRanks(100, owners, captioned, np.array(text_to_image), np.ones(len(captioned), np.int64), unread)


def test_a_difference_is_the_recall_of_the_members_minus_that_of_all_others():
    ranks = ranks_of([1, 6, 6, 6] * 20 + [1, 1, 1, 11] * 10, range(120))
    found = differences(ranks, np.arange(120) < 80)
    assert {k: each.value for k, each in found.items()} == pytest.approx({1: 0.25 - 0.75, 5: 0.25 - 0.75, 10: 1 - 0.75})
    assert found[1].interval.low < -0.5 < found[1].interval.high < 0
    assert 0 < found[10].interval.low < 0.25 < found[10].interval.high


def test_no_difference_has_the_interval_zero_if_all_captions_have_one_rank():
    ranks = ranks_of([3] * 100, range(100))
    found = differences(ranks, np.arange(100) < 50)
    assert [(each.value, each.interval.low, each.interval.high) for each in found.values()] == [(0, 0, 0)] * 3


def test_images_are_resampled_with_all_their_captions():
    members = np.arange(400) % 2 == 0
    text_to_image = np.where(np.arange(400) // 8 % 2 == 0, 1, 20)
    text_to_image[~members] = 1
    widths = []
    for image_of_caption in (np.arange(400), np.arange(400) // 8):
        interval = differences(ranks_of(text_to_image, image_of_caption), members)[1].interval
        widths.append(interval.high - interval.low)
    assert widths[1] > 1.7 * widths[0]  # twice as wide in theory: four members of an image succeed together


def test_small_groups_have_no_difference():
    ranks = ranks_of([1] * 100, range(100))
    assert set(differences(ranks, np.arange(100) < 30)) == {1, 5, 10}
    assert differences(ranks, np.arange(100) < 29) == differences(ranks, np.arange(100) >= 29) == {}


def test_the_worst_queries_are_those_of_the_kind_with_the_image_that_came_first():
    images, texts, owners = one_hot_case()
    ranks = first_match_ranks(images, texts, owners)
    found = worst_queries(images, texts, ranks, np.array([True, True, False, True]), 5)
    assert [(each.caption_row, each.image_row, each.rank, each.hit_rows) for each in found] == [
        (3, 0, 2, (1,)),
        (1, 1, 2, (0,)),
    ]


def test_captions_that_find_their_image_first_are_not_among_the_worst():
    images, texts, owners = one_hot_case()
    ranks = first_match_ranks(images, texts, owners)
    assert worst_queries(images, texts, ranks, np.array([True, False, False, False]), 5) == ()
    assert worst_queries(images, texts, ranks, np.array([False] * 4), 5) == ()
