import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.errors import QueryError
from image_finder.components.search.labels import MAX_LABELS, Labels, checked_labels, classify
from image_finder.components.search.prompts import TEMPLATES, expand, prompts_of

PLAIN = ("{}",)


@pytest.fixture(scope="module")
def encoder(colour_bundle):
    return OnnxEncoder(colour_bundle, device="cpu", threads=1)


def painted(*colours):
    return np.stack([np.full((8, 8, 3), colour, np.uint8) for colour in colours])


def test_probabilities_are_the_softmax_of_scaled_cosines(encoder):
    labels = Labels(encoder, ["white", "red", "yellow"], templates=PLAIN)
    (found,) = labels.score(encoder.encode_image(painted((255, 0, 0))))
    # Cosines with a red image: red 1, yellow 1/sqrt 2, white 1/sqrt 3; the colour bundle's logit scale is 20.
    weights = {"red": 1.0, "yellow": math.exp(-20 * (1 - 0.7071068)), "white": math.exp(-20 * (1 - 0.5773503))}
    assert [each.label for each in found] == ["red", "yellow", "white"]
    assert [each.score for each in found] == pytest.approx([1, 0.7071068, 0.5773503], abs=1e-5)
    assert weights["yellow"] == pytest.approx(0.002857, abs=1e-6)
    expected = [weights[each.label] / sum(weights.values()) for each in found]
    assert [each.probability for each in found] == pytest.approx(expected, rel=1e-3)


def test_each_image_has_its_label_first_with_the_default_templates(encoder):
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}
    found = classify(encoder, painted(*colours.values()), list(colours))
    assert [answer[0].label for answer in found] == list(colours)
    assert all(answer[0].probability > 0.5 for answer in found)


def test_a_labels_vector_is_the_mean_of_its_prompts_of_length_one(encoder):
    mean = encoder.encode_text([template.format("red") for template in TEMPLATES]).mean(axis=0)
    known = Labels(encoder, ["red", "blue"])
    np.testing.assert_allclose(known.vectors[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_many_labels_of_all_lengths_keep_their_order(encoder):
    words = ["red", "green", "blue", "yellow", "white"]
    names = [" ".join([*["thing"] * (place % 3), words[place % 5], str(place)]) for place in range(150)]
    together = Labels(encoder, names, templates=PLAIN).vectors
    alone = np.concatenate([encoder.encode_text([name]) for name in names])
    np.testing.assert_allclose(together, alone, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(2, 6))
def test_probabilities_sum_to_one_descend_and_follow_the_scores(encoder, seed, n_images, n_labels):
    names = ["red", "green", "blue", "yellow", "white", "else"][:n_labels]
    vectors = np.random.default_rng(seed).normal(size=(n_images, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for answer in Labels(encoder, names, templates=PLAIN).score(vectors):
        assert sum(each.probability for each in answer) == pytest.approx(1, abs=1e-12)
        assert {each.label for each in answer} == set(names)
        assert [each.probability for each in answer] == sorted((each.probability for each in answer), reverse=True)
        assert [each.score for each in answer] == sorted((each.score for each in answer), reverse=True)


def test_no_images_give_no_answers(encoder):
    assert Labels(encoder, ["red", "blue"]).score(np.empty((0, 3), np.float32)) == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "no label is given, at least 2 are needed"),
        (["dog"], "1 label is given, at least 2 are needed: .* add others"),
        (["dog", " \t"], "label 2 of 2 is empty; remove it"),
        (["dog", "cat", " DOG "], "labels 1 and 3 are both 'DOG'; remove one"),
        (["a  b", "a\nb"], "labels 1 and 2 are both 'a b'"),
        (["dog", "c" * 201], "label 2 has 201 characters, the limit is 200"),
        ([str(number) for number in range(MAX_LABELS + 1)], "1,001 labels are given, the limit is 1,000"),
    ],
)
def test_invalid_labels_are_a_one_line_error(labels, message):
    with pytest.raises(QueryError, match=message) as caught:
        checked_labels(labels)
    assert "\n" not in str(caught.value)


def test_labels_of_any_script_and_with_lone_surrogates_are_compared(encoder):
    (found,) = classify(encoder, painted((255, 0, 0)), ["собака", "🐕", "half \ud800", "{}", "red"])
    assert found[0].label == "red"
    assert len(found) == 5
    assert checked_labels([" red  wine ", "beer"]) == ("red wine", "beer")


def test_short_texts_become_prompts_and_sentences_are_unchanged():
    assert expand("dog") == prompts_of("dog")
    assert prompts_of("dog")[2] == "a photo of a dog"
    assert len(expand(" black dog ")) == len(TEMPLATES)
    assert expand("a black dog") == ["a black dog"]
    assert prompts_of("{}", ("a {}",)) == ["a {}"]
