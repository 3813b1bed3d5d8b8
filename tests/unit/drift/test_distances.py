"""Distances and permutation tests: hand-worked values, and the false alarm rate by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from image_finder.components.drift import distances
from image_finder.components.drift.caption_words import (
    commonest_words,
    image_words,
    images_with_word,
    length_histograms,
    unseen_shares,
    word_frequencies,
)
from image_finder.components.drift.permutation import compare_with_chance


def of_division(statistic, n_first, n_second):
    """The distance when the first n_first items are on the first side."""
    return statistic(np.repeat(np.array([[1, 0]], np.float32), [n_first, n_second], axis=1))[0]


def test_wasserstein_is_the_mean_distance_that_mass_moves():
    assert of_division(distances.wasserstein(np.array([0.0, 0, 1, 3])), 2, 2) == pytest.approx(2)
    assert of_division(distances.wasserstein(np.array([5.0, 5, 5])), 2, 1) == 0


@given(st.lists(st.floats(-50, 50), min_size=4, max_size=30), st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_wasserstein_agrees_with_scipy(values, n_first):
    numbers = np.array(values)
    expected = stats.wasserstein_distance(numbers[:n_first], numbers[n_first:])
    assert of_division(distances.wasserstein(numbers), n_first, len(numbers) - n_first) == pytest.approx(
        expected, abs=1e-6
    )


def test_energy_is_one_for_two_points_and_the_unbiased_formula_between():
    points = np.repeat(np.eye(3, dtype=np.float32)[:2], [4, 3], axis=0)
    assert of_division(distances.energy(points), 4, 3) == pytest.approx(1)
    vectors = np.random.default_rng(0).normal(size=(9, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    apart = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    across, first, second = apart[:5, 5:].mean(), apart[:5, :5].sum() / 20, apart[5:, 5:].sum() / 12
    expected = (2 * across - first - second) / (2 * across)
    assert of_division(distances.energy(vectors.astype(np.float32)), 5, 4) == pytest.approx(expected, abs=1e-6)


def test_jensen_shannon_is_one_bit_for_disjoint_words():
    apart = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    assert of_division(distances.jensen_shannon(apart), 2, 1) == pytest.approx(1)
    halves = np.array([[0.5, 0.5], [1, 0]], np.float32)
    expected = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)) - 0.5
    assert of_division(distances.jensen_shannon(halves), 1, 1) == pytest.approx(expected, abs=1e-6)


def test_rises_are_one_sided():
    assert of_division(distances.rise_of_mean(np.array([0.0, 0, 1])), 2, 1) == 1
    assert of_division(distances.rise_of_mean(np.array([1.0, 1, 0])), 2, 1) == -1
    rise = distances.rise_of_share(np.array([1.0, 1, 9]), np.array([10.0, 30, 10]))
    assert of_division(rise, 2, 1) == pytest.approx(0.9 - 0.05)


def test_an_image_weighs_the_same_with_any_number_of_captions():
    one, five = image_words(["a red dog"]), image_words(["a red dog"] * 5)
    for of_one, of_five in (length_histograms([one, five]), word_frequencies([one, five], ["red", "dog"])):
        np.testing.assert_allclose(of_one, of_five, atol=1e-6)
    np.testing.assert_allclose(word_frequencies([five], ["red", "dog"]), [[1 / 3, 1 / 3, 1 / 3]], atol=1e-6)


def test_words_are_counted_as_people_write_them():
    words = image_words(["A T-shirt isn\u2019t a Hemd, Größe 7!", ""])
    assert words.lengths == (7, 0)
    assert words.counts == {"a": 2, "t-shirt": 1, "isn\u2019t": 1, "hemd": 1, "größe": 1, "7": 1}
    assert commonest_words([words, image_words(["b b a"])], 2) == ["a", "b"]


def test_a_word_is_unseen_when_no_other_image_has_it():
    training = [["a dog", "a dog"], ["a cat"], ["the cat"]]
    seen_in = images_with_word(training)
    assert seen_in == {"a": 2, "dog": 1, "cat": 2, "the": 1}
    images = [image_words(captions) for captions in training]
    np.testing.assert_allclose(unseen_shares(images, seen_in, counted_themselves=True), [0.5, 0, 0.5])
    np.testing.assert_allclose(
        unseen_shares([image_words(["the new dog"])], seen_in, counted_themselves=False), [1 / 3]
    )


@given(st.integers(0, 10_000), st.sampled_from([0.02, 0.05, 0.2]))
@settings(max_examples=60, deadline=None)
def test_a_distance_is_above_its_threshold_exactly_when_its_p_value_is_within_the_rate(seed, rate):
    values = np.random.default_rng(seed).integers(0, 4, 16).astype(float)  # few values: many ties
    found = compare_with_chance(distances.wasserstein(values), (10, 6), permutations=99, rate=rate, seed=seed)
    assert (found.measured > found.threshold) == (found.p_value <= rate + 1e-12)


def test_equal_items_have_distance_zero_and_p_value_one():
    found = compare_with_chance(distances.wasserstein(np.ones(40)), (20, 20), permutations=99, rate=0.5, seed=0)
    assert (found.measured, found.threshold, found.p_value) == (0, 0, 1)


def test_the_divisions_depend_on_the_seed():
    values = np.random.default_rng(1).normal(size=50)
    runs = [
        compare_with_chance(distances.wasserstein(values), (30, 20), permutations=300, rate=0.05, seed=seed)
        for seed in (7, 7, 8)
    ]
    assert runs[0] == runs[1]
    assert runs[0].threshold != runs[2].threshold


@pytest.mark.parametrize("name", ["wasserstein", "energy", "lengths"])
def test_the_false_alarm_rate_is_the_configured_one(name):
    """400 pairs of equal samples at a rate of 10 %: 40 alarms expected, 3.3 sigma are 20."""
    rng = np.random.default_rng(5)
    alarms = 0
    for run in range(400):
        if name == "wasserstein":
            statistic = distances.wasserstein(rng.gamma(2, 1, 50))
        elif name == "energy":
            vectors = rng.normal(size=(50, 4)) + np.array([1, 0, 0, 0])
            statistic = distances.energy((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))
        else:  # five captions of one image are nearly of one length: as 250 independent items they would alarm far too often
            lengths = 5 + rng.integers(0, 10, (50, 1)) + rng.integers(0, 2, (50, 5))
            histograms = np.stack([np.bincount(each, minlength=17) for each in lengths]) / 5
            statistic = distances.wasserstein_of_counts(histograms)
        found = compare_with_chance(statistic, (30, 20), permutations=99, rate=0.1, seed=run)
        alarms += found.measured > found.threshold
    assert 20 <= alarms <= 60
