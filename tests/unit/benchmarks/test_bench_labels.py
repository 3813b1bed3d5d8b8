"""Accuracy of zero-shot labels: ranks of right labels and the level of a constant answer."""

import pytest

from tests.benchmarks.bench_labels import by_names, by_word, first_right_ranks, missed_labels, most_frequent
from tests.benchmarks.label_sets import LabelSet

RIGHT = [frozenset("a"), frozenset("ab"), frozenset("c"), frozenset("a")]


def test_the_rank_is_that_of_the_first_right_label():
    answers = ["abc", "cba", "abc", "bca"]
    assert first_right_ranks(answers, RIGHT).tolist() == [1, 2, 3, 3]


def test_the_most_frequent_labels_reach_the_share_of_images_for_which_one_of_them_is_right():
    right = [frozenset("a"), frozenset("ab"), frozenset("b"), frozenset("c"), frozenset("a")]
    assert [most_frequent(right, k) for k in (1, 2, 3)] == pytest.approx([0.6, 0.8, 1])


def test_an_image_counts_for_one_word_if_most_captions_name_this_word_alone():
    captions = [["a dog", "dogs", "grass"], ["a dog", "a cat"], ["a dog", "grass"], ["a cat"], ["hotdog"]]
    found = by_word(captions, ["cat", "dog"])
    assert dict(zip(found.rows, found.right, strict=True)) == {0: {"dog"}, 3: {"cat"}}


def test_images_without_a_named_label_do_not_count():
    found = by_names("animals", [["a dog", "a cat"], ["grass"], ["cats"]], LabelSet({"cat": ("cat",), "dog": ("dog",)}))
    assert (found.rows, found.right) == ([0, 2], [{"cat", "dog"}, {"cat"}])
    assert found.labels == ["cat", "dog"]


def test_missed_labels_are_ordered_by_the_images_that_lack_them_among_the_first_five():
    answers = ["abcdefg", "bcdefga", "abcdefg", "bcdefga"]
    right = [frozenset("ag"), frozenset("a"), frozenset("g"), frozenset("b")]
    assert missed_labels(answers, right, 5) == ["g: right for 2, among 5 for 0", "a: right for 2, among 5 for 1"]
    assert missed_labels(answers, right, 1) == ["g: right for 2, among 5 for 0"]
