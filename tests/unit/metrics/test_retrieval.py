"""Retrieval metrics against hand-worked tables, brute force and a naive argsort."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_finder.components.configs import EvaluationConfig
from image_finder.components.errors import ConfigError, DataError, QualityError
from image_finder.components.metrics.retrieval import (
    EvaluatedOn,
    bootstrap_recalls,
    evaluate_retrieval,
    first_match_ranks,
    named_recalls,
    percentile_interval,
    pick_examples,
    random_recall_at_k,
    recall_at_k,
    report_ranks,
    require_quality,
)
from image_finder.components.records.retrieval import RetrievalReport

IDENTITY = EvaluatedOn(dataset="scenes", data_version="abc", split="val")
CONFIG = EvaluationConfig(ks=(1, 2, 3), bootstrap_samples=200)


def unit(rows):
    rows = np.asarray(rows, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def random_case(seed, n_images=13, n_captions=40, dim=8, noise=1.0):
    """Continuous random vectors (no ties); every image but the last has a caption."""
    rng = np.random.default_rng(seed)
    owners = np.concatenate([np.arange(n_images - 1), rng.integers(n_images - 1, size=n_captions - n_images + 1)])
    rng.shuffle(owners)
    images = unit(rng.standard_normal((n_images, dim)))
    return images, unit(images[owners] + noise * rng.standard_normal((n_captions, dim))), owners


def one_hot_case():
    """Three images on the axes, four captions; similarities to the images (x, y, z) can be read off the rows.

    caption 0, of x: x nearest (rank 1).   caption 1, of y: x, then y (rank 2).
    caption 2, of z: x, y, then z (rank 3). caption 3, of x: y, then x (rank 2).
    image x: caption 0 has 0.9 and 2 more; its own caption 0 is nearest (rank 1).
    image y: by column 1 caption 3 (.8), 1 (.6), 2, 0: own caption 1 second (rank 2).
    image z: by column 2 caption 2 (.4): nearest (rank 1).
    """
    texts = unit([[0.9, 0.3, 0.1], [0.75, 0.6, 0.1], [0.7, 0.55, 0.4], [0.5, 0.8, 0.2]])
    return np.eye(3, dtype=np.float32), texts, np.array([0, 1, 2, 0])


def test_ranks_of_a_hand_worked_table():
    ranks = first_match_ranks(*one_hot_case())
    assert ranks.text_to_image.tolist() == [1, 2, 3, 2]
    assert ranks.image_to_text.tolist() == [1, 2, 1]
    assert ranks.captioned_images.tolist() == [0, 1, 2]


def test_report_of_a_hand_worked_table():
    report = evaluate_retrieval(*one_hot_case(), config=CONFIG, identity=IDENTITY)
    assert report.text_to_image.recall == {1: 0.25, 2: 0.75, 3: 1.0}
    assert report.image_to_text.recall == {1: 2 / 3, 2: 1.0, 3: 1.0}
    assert report.mean_recall == pytest.approx((0.25 + 0.75 + 1 + 2 / 3 + 1 + 1) / 6)
    assert (report.text_to_image.n_queries, report.text_to_image.gallery_size) == (4, 3)
    assert (report.image_to_text.n_queries, report.image_to_text.gallery_size) == (3, 4)
    assert (report.text_to_image.median_rank, report.image_to_text.median_rank) == (2.0, 1.0)
    assert report.text_to_image.random_recall == pytest.approx({1: 1 / 3, 2: 2 / 3, 3: 1.0})
    # x has two captions among four: misses 1 with 1/2, 2 with 1/6; y and z have one each
    assert report.image_to_text.random_recall == pytest.approx(
        {1: (1 / 2 + 1 / 4 + 1 / 4) / 3, 2: (5 / 6 + 1 / 2 + 1 / 2) / 3, 3: (1 + 3 / 4 + 3 / 4) / 3}
    )
    assert (report.dataset, report.data_version, report.split) == ("scenes", "abc", "val")
    assert (report.n_images, report.n_captions) == (3, 4)


def test_report_survives_json():
    report = evaluate_retrieval(
        *one_hot_case(), config=CONFIG, identity=IDENTITY, slices={"half": ["a", "a", "b", "b"]}
    )
    assert RetrievalReport.model_validate_json(report.model_dump_json()) == report


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


def test_a_model_that_scores_everything_alike_finds_nothing():
    same = np.tile(unit([[1, 2, 2]]), (20, 1))
    ranks = first_match_ranks(same, np.repeat(same, 2, axis=0), np.repeat(np.arange(20), 2))
    assert set(ranks.text_to_image.tolist()) == {20}
    assert set(ranks.image_to_text.tolist()) == {39}  # 38 foreign captions stand before the better of the two own
    assert named_recalls(ranks, (1, 5, 10)) == dict.fromkeys(
        ("t2i_r1", "t2i_r5", "t2i_r10", "i2t_r1", "i2t_r5", "i2t_r10"), 0.0
    )


def test_an_image_that_is_in_the_gallery_twice_costs_its_captions_one_rank():
    images = unit([[1, 0], [0, 1], [1, 0]])
    ranks = first_match_ranks(images, unit([[1, 0.1], [0.1, 1]]), np.array([0, 1]))
    assert ranks.text_to_image.tolist() == [2, 1]


def test_equal_captions_of_one_image_do_not_stand_in_each_others_way():
    images = np.eye(2, dtype=np.float32)
    texts = unit([[1, 0.2], [1, 0.2], [1, 0.2], [0.2, 1]])
    ranks = first_match_ranks(images, texts, np.array([0, 0, 0, 1]))
    assert ranks.image_to_text.tolist() == [1, 1]


def test_images_without_captions_stand_in_the_gallery_but_ask_nothing():
    images = unit([[1, 0], [1, 0.1], [0, 1]])
    report = evaluate_retrieval(images, unit([[1, 0.1]]), np.array([0]), config=CONFIG, identity=IDENTITY)
    assert report.text_to_image.recall == {1: 0.0, 2: 1.0, 3: 1.0}
    assert (report.image_to_text.n_queries, report.image_to_text.recall[1]) == (1, 1.0)


def test_gallery_of_one_image_works():
    one = unit([[3, 4]])
    report = evaluate_retrieval(one, one, np.array([0]), config=CONFIG, identity=IDENTITY)
    assert report.mean_recall == 1.0
    assert report.text_to_image.random_recall == {1: 1.0, 2: 1.0, 3: 1.0}
    assert (report.mean_recall_interval.low, report.mean_recall_interval.high) == (1.0, 1.0)


def test_recall_counts_ranks_up_to_and_including_k():
    ranks = np.array([1, 2, 5, 6, 30])
    assert [recall_at_k(ranks, k) for k in (1, 2, 4, 5, 6, 29, 30, 1000)] == [0.2, 0.4, 0.4, 0.6, 0.8, 0.8, 1.0, 1.0]


@pytest.mark.parametrize(("ranks", "k", "message"), [([], 1, "0 queries"), ([1], 0, "k = 0")])
def test_recall_of_nothing_is_refused(ranks, k, message):
    with pytest.raises(DataError, match=message):
        recall_at_k(np.array(ranks, dtype=np.int64), k)


@pytest.mark.parametrize("k", [1, 2, 3, 6, 9])
def test_random_baseline_agrees_with_all_orders_of_a_small_gallery(k):
    n_right = np.array([1, 3, 1, 2])
    orders = list(itertools.permutations(range(6)))
    hits = [sum(min(order[:count]) < k for order in orders) / len(orders) for count in n_right]
    assert random_recall_at_k(6, n_right, k) == pytest.approx(sum(hits) / 4, abs=1e-12)


def test_random_baseline_of_one_right_item_is_k_over_n_at_full_precision():
    assert random_recall_at_k(25_000, np.ones(3, np.int64), 1) == 1 / 25_000


def test_random_vectors_score_the_random_baseline():
    rng = np.random.default_rng(0)
    owners = np.repeat(np.arange(400), 3)
    report = evaluate_retrieval(
        unit(rng.standard_normal((400, 64))),
        unit(rng.standard_normal((1200, 64))),
        owners,
        config=EvaluationConfig(ks=(40,), bootstrap_samples=100),
        identity=IDENTITY,
    )
    # 1,200 draws at 0.1: standard deviation 0.009; 400 draws at 0.097: 0.015
    assert report.text_to_image.recall[40] == pytest.approx(report.text_to_image.random_recall[40], abs=0.035)
    assert report.image_to_text.recall[40] == pytest.approx(report.image_to_text.random_recall[40], abs=0.06)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_intervals_hold_their_estimate(seed):
    report = evaluate_retrieval(*random_case(seed, 60, 200), config=CONFIG, identity=IDENTITY)
    for direction in (report.text_to_image, report.image_to_text):
        for k, recall in direction.recall.items():
            assert direction.interval[k].low <= recall <= direction.interval[k].high
    assert report.mean_recall_interval.low < report.mean_recall < report.mean_recall_interval.high


def test_five_equal_captions_an_image_are_worth_no_more_than_one():
    images, texts, owners = random_case(3, 40, 39)
    single = evaluate_retrieval(images, texts, owners, config=CONFIG, identity=IDENTITY)
    fivefold = evaluate_retrieval(
        images, np.repeat(texts, 5, axis=0), np.repeat(owners, 5), config=CONFIG, identity=IDENTITY
    )
    assert fivefold.text_to_image.n_queries == 5 * single.text_to_image.n_queries
    assert fivefold.text_to_image.recall == single.text_to_image.recall
    assert fivefold.text_to_image.interval == single.text_to_image.interval


def test_bootstrap_width_is_that_of_the_binomial_law():
    hits = (np.arange(400) % 2).astype(np.float64)[:, None]
    interval = percentile_interval(bootstrap_recalls(hits, np.ones_like(hits), samples=4000, seed=0)[:, 0])
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 400), rel=0.08)


def test_bootstrap_depends_on_its_seed_alone():
    case = random_case(4)
    first, again, other = (
        evaluate_retrieval(*case, config=EvaluationConfig(bootstrap_samples=150, seed=seed), identity=IDENTITY)
        for seed in (5, 5, 6)
    )
    assert first == again
    assert first.mean_recall_interval != other.mean_recall_interval
    assert first.text_to_image.recall == other.text_to_image.recall


def test_slices_divide_the_queries_but_search_the_whole_gallery():
    slices = {"length": ["14 words or more", "9-13 words", "9-13 words", ""]}
    report = evaluate_retrieval(*one_hot_case(), config=CONFIG, identity=IDENTITY, slices=slices)
    found = [(part.slice, part.value, part.n_queries, part.recall) for part in report.slices]
    assert found == [
        ("length", "9-13 words", 2, {1: 0.0, 2: 0.5, 3: 1.0}),
        ("length", "14 words or more", 1, {1: 1.0, 2: 1.0, 3: 1.0}),
    ]


def test_one_slice_of_all_captions_equals_the_whole():
    images, texts, owners = random_case(6)
    report = evaluate_retrieval(
        images, texts, owners, config=CONFIG, identity=IDENTITY, slices={"all": ["yes"] * len(texts)}
    )
    assert report.slices[0].recall == report.text_to_image.recall
    assert report.slices[0].interval == report.text_to_image.interval


def test_slice_labels_that_do_not_fit_the_captions_are_refused():
    with pytest.raises(DataError, match="slice 'length' has 3 labels, expected one for each of 4 captions"):
        evaluate_retrieval(*one_hot_case(), config=CONFIG, identity=IDENTITY, slices={"length": ["a", "b", "a"]})


@pytest.mark.parametrize("ks", [(), (0, 1), (5, 5)])
def test_useless_cut_offs_are_refused(ks):
    with pytest.raises(ConfigError, match="ks is"):
        evaluate_retrieval(*one_hot_case(), config=EvaluationConfig(ks=ks), identity=IDENTITY)


def broken(images=None, texts=None, owners=None):
    case = one_hot_case()
    given_ = (images, texts, owners)
    return tuple(part if other is None else other for part, other in zip(case, given_, strict=True))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (broken(images=2 * np.eye(3)), r"image_embeddings row 0 has length 2.0000, expected 1 within 0.001"),
        (broken(images=1.002 * np.eye(3)), r"row 0 has length 1.0020"),
        (broken(texts=np.full((4, 3), np.nan)), r"text_embeddings: 4 of 4 rows hold NaN or infinity"),
        (broken(texts=np.eye(4)), r"image_embeddings have 3 components and text_embeddings 4"),
        (broken(images=np.zeros((0, 3))), r"image_embeddings has shape \(0, 3\)"),
        (broken(images=np.eye(3, dtype=np.int64)), r"type int64, expected a non-empty table of floats"),
        (
            broken(owners=np.array([0, 1])),
            r"image_of_caption has shape \(2,\) and type int64, expected \(4,\) integers",
        ),
        (broken(owners=np.array([0.0, 1, 2, 0])), r"type float64, expected \(4,\) integers"),
        (broken(owners=np.array([0, 1, 2, 3])), r"image_of_caption goes from 0 to 3, expected rows 0 to 2"),
        (broken(owners=np.array([0, 1, 2, -1])), r"image_of_caption goes from -1 to 2"),
    ],
)
def test_vectors_that_cannot_be_compared_are_refused_in_one_line(case, message):
    with pytest.raises(DataError, match=message) as caught:
        first_match_ranks(*case)
    assert "\n" not in str(caught.value)


def test_rows_within_the_tolerance_are_taken():
    images, texts, owners = one_hot_case()
    assert first_match_ranks(images * 1.0009, texts.astype(np.float16), owners).text_to_image.tolist() == [1, 2, 3, 2]


def report_with(recall, random_recall=0.01):
    """A real report whose text-to-image recall@10 and baseline are set."""
    report = evaluate_retrieval(*random_case(0), config=EvaluationConfig(bootstrap_samples=100), identity=IDENTITY)
    values = {10: recall} if recall is not None else {1: 0.5}
    direction = report.text_to_image.model_copy(
        update={"recall": values, "random_recall": dict.fromkeys(values, random_recall), "gallery_size": 1000}
    )
    return report.model_copy(update={"text_to_image": direction})


@pytest.mark.parametrize("recall", [0.3, 0.31, 1.0])
def test_gate_passes_at_and_above_its_floors(recall):
    require_quality(report_with(recall), EvaluationConfig(min_recall_at_10=0.3, min_times_random=30))


@pytest.mark.parametrize(
    ("recall", "floors", "message"),
    [
        (0.2999, {"min_recall_at_10": 0.3}, r"recall@10 on scenes val \(1,000 images\) is 0.2999: below .* 0.3000"),
        (0.019, {}, r"is 0.0190: 1.90 times random \(0.0100\), below min_times_random 2"),
        (0.01, {"min_recall_at_10": 0.3}, r"below min_recall_at_10 0.3000, and 1.00 times random"),
        (math.nan, {"min_times_random": 0.0}, r"was not measured"),
        (None, {"min_times_random": 0.0}, r"was not measured.*let evaluation.ks hold 10"),
    ],
)
def test_gate_refuses_below_a_floor_and_says_what_was_measured(recall, floors, message):
    with pytest.raises(QualityError, match=message) as caught:
        require_quality(report_with(recall), EvaluationConfig(**floors))
    assert "\n" not in str(caught.value)


def test_gate_says_when_the_gallery_is_too_small_to_pass():
    with pytest.raises(QualityError, match="the gallery is too small to pass"):
        require_quality(report_with(1.0, random_recall=0.8), EvaluationConfig())


def test_examples_are_the_extremes_by_rank_then_margin_with_their_nearest_images():
    case = one_hot_case()
    ranks = first_match_ranks(*case)
    examples = pick_examples(*case[:2], ranks, count=2, top=2)
    assert [(e.caption_row, e.rank, e.hit_rows) for e in examples.best] == [(0, 1, (0, 1)), (1, 2, (0, 1))]
    assert [(e.caption_row, e.rank, e.hit_rows) for e in examples.worst] == [(2, 3, (0, 1)), (3, 2, (1, 0))]
    assert examples.best[0].hit_scores == pytest.approx(case[1][0, :2].tolist())
    assert examples.image_rows == (0, 1, 2)


def test_each_image_is_asked_for_once_a_side():
    images, texts, owners = random_case(2)
    examples = pick_examples(images, texts, first_match_ranks(images, texts, owners), count=50)
    for side in (examples.best, examples.worst):
        assert sorted(example.image_row for example in side) == list(range(12))


def test_place_of_the_own_image_among_the_hits_is_its_rank_even_with_ties():
    images = unit([[1, 0], [1, 0], [1, 0], [0, 1]])
    texts = unit([[1, 0.1]])
    ranks = first_match_ranks(images, texts, np.array([0]))
    (example,) = pick_examples(images, texts, ranks, top=4).best
    assert example.rank == 3
    assert example.hit_rows == (1, 2, 0, 3)
