"""Which hits are called good matches, on made-up cosines and words."""

import numpy as np
import pytest

from image_finder.components.captions.vocabulary import Vocabulary, content_words
from image_finder.components.records.calibration import MATCH_FEATURES, MatchModel, MatchModels
from image_finder.components.search.matching import (
    background,
    count_good,
    match_features,
    model_for,
    probabilities,
    query_words,
)

CAPTIONS = ["a dog on the beach"] * 30 + ["two dogs"] * 10 + ["an owl at night"] * 2


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.of(CAPTIONS)


def model(**weights: float) -> MatchModel:
    coefficients = tuple(weights.pop(name, 0.0) for name in MATCH_FEATURES)
    return MatchModel(
        coefficients=coefficients,
        intercept=weights.pop("intercept", 0.0),
        min_probability=0.5,
        precision=0.8,
        n_queries=1,
    )


@pytest.mark.parametrize("text", ["1234", "猫", "the", "", "🐶🐶", "asdfgh", "a photo of the", "1984 12"])
def test_a_text_without_training_words_has_no_query_words(vocabulary, text):
    assert query_words(text, vocabulary) is None


def test_words_are_counted_by_training_captions_in_singular_and_plural(vocabulary):
    assert content_words("The Dog's 2 owls") == ["dog's", "owls"]
    words = query_words("dogs and a unicorn", vocabulary)
    assert words is not None
    assert (words.rarest, words.words) == (0, 2)
    assert words.mean == pytest.approx(np.log(31) / 2)
    assert query_words("an owl", vocabulary).rarest == 2


def test_a_text_is_long_from_three_content_words_on(vocabulary):
    models = MatchModels(short=model(), long=None)
    assert model_for(models, query_words("a dog on the beach", vocabulary)) is models.short
    assert (
        model_for(models, query_words("a dog runs on the beach", Vocabulary.of(["a dog runs on the beach"] * 30)))
        is None
    )


def test_a_text_is_known_if_its_rarest_word_is_frequent_enough(vocabulary):
    assert query_words("two dogs on a beach", vocabulary).known is False  # "two" in 10 captions
    assert query_words("a dog on the beach", vocabulary).known is True
    assert query_words("a dog and an owl", vocabulary).known is False


def test_matching_images_hardly_change_the_background():
    rng = np.random.default_rng(0)
    unrelated = rng.normal(0.2, 0.05, 2000)
    alone = background(unrelated)
    assert (alone.median, alone.spread) == (pytest.approx(0.2, abs=0.005), pytest.approx(0.05, abs=0.005))
    mixed = background(np.concatenate([unrelated, rng.normal(0.7, 0.02, 200)]))
    assert (mixed.median, mixed.spread) == (pytest.approx(0.2, abs=0.02), pytest.approx(0.05, abs=0.01))
    assert mixed.excess == pytest.approx(200 / 2200, abs=0.005)


def test_features_are_in_the_order_of_the_record(vocabulary):
    words = query_words("a dog", vocabulary)
    unrelated = background(np.linspace(0, 1, 101))
    features = match_features(np.array([0.9, 0.8]), np.array([1.0, 50.0]), 1000, unrelated, words)
    named = dict(zip(MATCH_FEATURES, features[1], strict=True))
    assert named["cosine"] == 0.8
    assert named["z"] == pytest.approx(0.3 / unrelated.spread)
    assert named["log_share"] == pytest.approx(np.log(0.02))  # 50 of 1,000, above 2 % it stays
    assert named["rarest_word"] == named["mean_word"] == pytest.approx(np.log(31))
    assert named["words"] == 1


def test_no_hit_is_good_below_one_that_is_not(vocabulary):
    words, unrelated = query_words("a dog", vocabulary), background(np.linspace(0, 1, 101))
    cosines = np.array([0.9, 0.4, 0.8])  # as in an order that `not` terms have changed
    features = match_features(cosines, np.arange(1.0, 4), 1000, unrelated, words)
    judge = model(cosine=10, intercept=-5)
    assert (probabilities(judge, features) >= 0.5).tolist() == [True, False, True]
    assert count_good(judge, features) == 1
    assert count_good(judge, features[[0, 2]]) == 2
    assert count_good(judge, features[[1]]) == 0
    assert count_good(judge, features[:0]) == 0
