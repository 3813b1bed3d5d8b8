"""Ranks against hand-worked tables and a naive argsort."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_finder.components.errors import DataError
from image_finder.components.metrics.ranks import first_match_ranks
from image_finder.components.metrics.recall import (
    named_recalls,
    report_ranks,
)
from tests.support.retrieval import CONFIG, IDENTITY, one_hot_case, random_case, unit


def test_ranks_of_a_hand_worked_table():
    ranks = first_match_ranks(*one_hot_case())
    assert ranks.text_to_image.tolist() == [1, 2, 3, 2]
    assert ranks.image_to_text.tolist() == [1, 2, 1]
    assert ranks.captioned_images.tolist() == [0, 1, 2]


def test_ranks_agree_with_a_naive_argsort_of_the_whole_similarity_matrix():
    images, texts, owners = random_case(1)
    similarity = texts @ images.T
    text_to_image = [1 + np.argsort(-row).tolist().index(owner) for row, owner in zip(similarity, owners, strict=True)]
    image_to_text = []
    for image in range(len(images) - 1):
        order = np.argsort(-similarity[:, image])
        image_to_text.append(1 + int(np.flatnonzero(owners[order] == image)[0]))
    ranks = first_match_ranks(images, texts, owners)
    assert ranks.text_to_image.tolist() == text_to_image
    assert ranks.image_to_text.tolist() == image_to_text


def test_margin_is_own_score_minus_best_other_score():
    images, texts, owners = one_hot_case()
    expected = [
        texts[0, 0] - texts[0, 1],
        texts[1, 1] - texts[1, 0],
        texts[2, 2] - texts[2, 0],
        texts[3, 0] - texts[3, 1],
    ]
    assert first_match_ranks(images, texts, owners).margins == pytest.approx(expected)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), chunk_rows=st.integers(1, 50))
def test_chunk_size_changes_nothing_even_with_ties(seed, chunk_rows):
    rng = np.random.default_rng(seed)
    images, texts, owners = random_case(seed, dim=33)
    images = images[rng.integers(len(images), size=len(images))]  # equal images under several rows
    texts[::3] = texts[0]
    whole = first_match_ranks(images, texts, owners)
    chunked = first_match_ranks(images, texts, owners, chunk_rows=chunk_rows)
    assert np.array_equal(whole.text_to_image, chunked.text_to_image)
    assert np.array_equal(whole.image_to_text, chunked.image_to_text)
    assert np.array_equal(whole.margins, chunked.margins)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_caption_order_changes_neither_ranks_nor_report(seed):
    images, texts, owners = random_case(seed)
    order = np.random.default_rng(seed).permutation(len(texts))
    plain, shuffled = (first_match_ranks(images, texts[rows], owners[rows]) for rows in (slice(None), order))
    assert np.array_equal(plain.text_to_image[order], shuffled.text_to_image)
    assert np.array_equal(plain.image_to_text, shuffled.image_to_text)
    reports = [report_ranks(ranks, config=CONFIG, identity=IDENTITY) for ranks in (plain, shuffled)]
    assert reports[0] == reports[1]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_gallery_order_changes_nothing(seed):
    images, texts, owners = random_case(seed)
    images[3] = images[5]  # a tie
    order = np.random.default_rng(seed).permutation(len(images))
    plain = first_match_ranks(images, texts, owners)
    shuffled = first_match_ranks(images[order], texts, np.argsort(order)[owners])
    assert np.array_equal(plain.text_to_image, shuffled.text_to_image)
    new_place = np.argsort(order)[plain.captioned_images]
    assert np.array_equal(plain.image_to_text[np.argsort(new_place)], shuffled.image_to_text)


def test_a_model_with_equal_scores_finds_nothing():
    same = np.tile(unit([[1, 2, 2]]), (20, 1))
    ranks = first_match_ranks(same, np.repeat(same, 2, axis=0), np.repeat(np.arange(20), 2))
    assert set(ranks.text_to_image.tolist()) == {20}
    assert set(ranks.image_to_text.tolist()) == {39}  # 38 other captions rank before the better of the image's two
    assert named_recalls(ranks, (1, 5, 10)) == dict.fromkeys(
        ("t2i_r1", "t2i_r5", "t2i_r10", "i2t_r1", "i2t_r5", "i2t_r10"), 0.0
    )


def test_an_image_that_is_in_the_gallery_twice_costs_its_captions_one_rank():
    images = unit([[1, 0], [0, 1], [1, 0]])
    ranks = first_match_ranks(images, unit([[1, 0.1], [0.1, 1]]), np.array([0, 1]))
    assert ranks.text_to_image.tolist() == [2, 1]


def test_equal_captions_of_one_image_do_not_lower_each_others_rank():
    images = np.eye(2, dtype=np.float32)
    texts = unit([[1, 0.2], [1, 0.2], [1, 0.2], [0.2, 1]])
    ranks = first_match_ranks(images, texts, np.array([0, 0, 0, 1]))
    assert ranks.image_to_text.tolist() == [1, 1]


def broken(images=None, texts=None, owners=None):
    case = one_hot_case()
    changed = (images, texts, owners)
    return tuple(part if other is None else other for part, other in zip(case, changed, strict=True))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (broken(images=2 * np.eye(3)), r"image_embeddings row 0 has length 2.0000, expected 1 within 0.001"),
        (broken(images=1.002 * np.eye(3)), r"row 0 has length 1.0020"),
        (broken(texts=np.full((4, 3), np.nan)), r"text_embeddings: 4 of 4 rows contain NaN or infinity"),
        (broken(texts=np.eye(4)), r"image_embeddings have 3 components and text_embeddings 4"),
        (broken(images=np.zeros((0, 3))), r"image_embeddings has shape \(0, 3\)"),
        (broken(images=np.eye(3, dtype=np.int64)), r"type int64, expected a non-empty table of floats"),
        (
            broken(owners=np.array([0, 1])),
            r"image_of_caption has shape \(2,\) and type int64, expected \(4,\) integers",
        ),
        (broken(owners=np.array([0.0, 1, 2, 0])), r"type float64, expected \(4,\) integers"),
        (broken(owners=np.array([0, 1, 2, 3])), r"image_of_caption ranges from 0 to 3, expected rows 0 to 2"),
        (broken(owners=np.array([0, 1, 2, -1])), r"image_of_caption ranges from -1 to 2"),
    ],
)
def test_vectors_that_cannot_be_compared_are_refused_in_one_line(case, message):
    with pytest.raises(DataError, match=message) as caught:
        first_match_ranks(*case)
    assert "\n" not in str(caught.value)


def test_rows_within_the_tolerance_are_accepted():
    images, texts, owners = one_hot_case()
    assert first_match_ranks(images * 1.0009, texts.astype(np.float16), owners).text_to_image.tolist() == [1, 2, 3, 2]
