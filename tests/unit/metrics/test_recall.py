"""Recall, intervals, slices and the quality gate against hand-worked tables and brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_finder.components.configs import EvaluationConfig
from image_finder.components.errors import ConfigError, DataError, QualityError
from image_finder.components.metrics.bootstrap import bootstrap_recalls, percentile_interval
from image_finder.components.metrics.recall import (
    random_recall_at_k,
    recall_at_k,
    require_quality,
)
from image_finder.components.records.retrieval import RetrievalReport
from tests.support.retrieval import CONFIG, IDENTITY, evaluate_retrieval, one_hot_case, random_case, unit


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


def test_images_without_captions_are_in_the_gallery_but_are_not_queries():
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
def test_recall_without_queries_or_with_k_below_one_is_refused(ranks, k, message):
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
def test_intervals_contain_their_estimate(seed):
    report = evaluate_retrieval(*random_case(seed, 60, 200), config=CONFIG, identity=IDENTITY)
    for direction in (report.text_to_image, report.image_to_text):
        for k, recall in direction.recall.items():
            assert direction.interval[k].low <= recall <= direction.interval[k].high
    assert report.mean_recall_interval.low < report.mean_recall < report.mean_recall_interval.high


def test_five_equal_captions_per_image_count_no_more_than_one():
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


def test_the_bootstrap_depends_only_on_its_seed():
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
def test_invalid_cut_offs_are_refused(ks):
    with pytest.raises(ConfigError, match="ks is"):
        evaluate_retrieval(*one_hot_case(), config=EvaluationConfig(ks=ks), identity=IDENTITY)


def report_with(recall, random_recall=0.01):
    """A real report whose text-to-image recall@10 and baseline are set."""
    report = evaluate_retrieval(*random_case(0), config=EvaluationConfig(bootstrap_samples=100), identity=IDENTITY)
    values = {10: recall} if recall is not None else {1: 0.5}
    direction = report.text_to_image.model_copy(
        update={"recall": values, "random_recall": dict.fromkeys(values, random_recall), "gallery_size": 1000}
    )
    return report.model_copy(update={"text_to_image": direction})


@pytest.mark.parametrize("recall", [0.3, 0.31, 1.0])
def test_the_gate_passes_at_and_above_its_floors(recall):
    require_quality(report_with(recall), EvaluationConfig(min_recall_at_10=0.3, min_times_random=30))


@pytest.mark.parametrize(
    ("recall", "floors", "message"),
    [
        (0.2999, {"min_recall_at_10": 0.3}, r"recall@10 on scenes val \(1,000 images\) is 0.2999: below .* 0.3000"),
        (0.019, {}, r"is 0.0190: 1.90 times random \(0.0100\), below min_times_random 2"),
        (0.01, {"min_recall_at_10": 0.3}, r"below min_recall_at_10 0.3000, and 1.00 times random"),
        (math.nan, {"min_times_random": 0.0}, r"was not measured"),
        (None, {"min_times_random": 0.0}, r"was not measured: add 10 to evaluation.ks"),
    ],
)
def test_the_gate_fails_below_a_floor_and_reports_the_measured_value(recall, floors, message):
    with pytest.raises(QualityError, match=message) as caught:
        require_quality(report_with(recall), EvaluationConfig(**floors))
    assert "\n" not in str(caught.value)


def on_set(recall, mean_recall=0.5):
    found = report_with(recall).model_copy(update={"split": "coco", "mean_recall": mean_recall})
    return report_with(0.9).model_copy(update={"extra_sets": {"coco": found}})


def floors_of(**floors):
    return EvaluationConfig(extra_sets={"coco": {"annotations": "a.json", "images": "a", **floors}})


def test_the_gate_passes_an_extra_set_at_its_floors():
    require_quality(on_set(0.8), floors_of(min_recall_at_10=0.8, min_mean_recall=0.5))


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (
            on_set(0.7999),
            "evaluation set 'coco' (13 images): text-to-image recall@10 is 0.7999, below min_recall_at_10 0.8000; train",
        ),
        (
            on_set(0.7, 0.3999),
            "recall@10 is 0.7000, below min_recall_at_10 0.8000, and mean recall is 0.3999, below min_mean_recall 0.4000",
        ),
        (on_set(math.nan), "text-to-image recall@10 is nan, below min_recall_at_10 0.8000"),
        (report_with(0.9), "evaluation set 'coco' was not measured"),
    ],
)
def test_the_gate_fails_below_a_floor_of_an_extra_set_and_names_it(report, message):
    with pytest.raises(QualityError) as caught:
        require_quality(report, floors_of(min_recall_at_10=0.8, min_mean_recall=0.4))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_report_of_several_sets_has_their_mean_and_reads_reports_without_any():
    report = on_set(0.7, mean_recall=0.3)
    assert list(report.sets) == ["val", "coco"]
    assert report.mean_over_sets == (report.mean_recall + 0.3) / 2
    assert RetrievalReport.model_validate_json(report.model_dump_json()) == report
    alone = report_with(0.9)
    assert alone.mean_over_sets == alone.mean_recall
    assert "extra_sets" not in alone.model_dump()
    assert RetrievalReport.model_validate_json(alone.model_dump_json()) == alone


def test_the_gate_says_when_the_gallery_is_too_small_to_pass():
    with pytest.raises(QualityError, match="no model can pass with so small a gallery"):
        require_quality(report_with(1.0, random_recall=0.8), EvaluationConfig())
