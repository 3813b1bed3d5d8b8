import math

import pytest

from components.records import DirectionReport, Interval, RetrievalReport
from model_registry.promotion import decide


def report(mean_recall, *, gallery=10, recall=0.5, **changes):
    interval = Interval(low=0.0, high=1.0)

    def direction(n_queries, gallery_size):
        return DirectionReport(
            n_queries=n_queries,
            gallery_size=gallery_size,
            recall={1: recall, 10: 0.5},
            interval={1: interval, 10: interval},
            random_recall={1: 0.1, 10: 1.0},
            median_rank=2.0,
        )

    values = {
        "dataset": "scratch",
        "data_version": "aaa",
        "split": "test",
        "n_images": 10,
        "n_captions": 50,
        "text_to_image": direction(50, gallery),
        "image_to_text": direction(gallery, 50),
        "mean_recall": mean_recall,
        "mean_recall_interval": interval,
        "slices": (),
        "bootstrap_samples": 100,
        "seed": 0,
    }
    return RetrievalReport(**{**values, **changes})


def decision(candidate, champion, min_gain=0.01, *, version="2", champion_version="1"):
    return decide(
        candidate,
        champion,
        min_gain=min_gain,
        candidate_version=version,
        champion_version=None if champion is None else champion_version,
    )


def test_first_measured_candidate_becomes_champion():
    found = decision(report(0.1), None)
    assert found.promoted
    assert found.champion_version is None
    assert found.champion_mean_recall is None


def test_a_champion_whose_bundle_no_longer_opens_is_replaced_by_a_measured_candidate_only():
    found = decide(report(0.1), None, min_gain=0.9, candidate_version="2", champion_version="1")
    assert found.promoted
    assert found.reasons[0].startswith("champion 1 replaced: its bundle is of a format this version cannot open")
    assert not decide(report(math.nan), None, min_gain=0.0, candidate_version="2", champion_version="1").promoted
    assert not decide(report(0.1), None, min_gain=0.0, candidate_version="1", champion_version="1").promoted


@pytest.mark.parametrize(("mean_recall", "promoted"), [(0.5801, True), (0.58, True), (0.5799, False)])
def test_gain_is_enough_at_and_above_the_margin_only(mean_recall, promoted):
    found = decision(report(mean_recall), report(0.57))
    assert found.promoted is promoted
    assert f"{mean_recall:.4f} against 0.5700" in found.reasons[0]


@pytest.mark.parametrize("tenths", range(1, 99))
def test_gain_of_exactly_the_margin_passes_in_spite_of_binary_fractions(tenths):
    assert decision(report((tenths + 1) / 100), report(tenths / 100)).promoted


def test_equal_recall_keeps_the_champion_even_without_a_margin():
    assert not decision(report(0.5), report(0.5), 0.0).promoted
    assert decision(report(0.5001), report(0.5), 0.0).promoted


def test_worse_candidate_is_kept_out():
    found = decision(report(0.4), report(0.5), 0.0)
    assert not found.promoted
    assert "gain -0.1000" in found.reasons[0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1, 1.1])
def test_recall_that_is_no_share_never_passes(value):
    for candidate, champion in (
        (report(value), None),
        (report(0.9, recall=value), None),
        (report(value), report(0.1)),
        (report(0.9), report(value)),
    ):
        found = decision(candidate, champion)
        assert not found.promoted
        assert "not a share" in found.reasons[0]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (report(0.1, data_version="bbb"), "data version of the candidate is aaa, of the champion bbb"),
        (report(0.1, split="val"), "split of the candidate is test, of the champion val"),
        (report(0.1, gallery=1000), "10 pictures and 50 captions, of the champion 1000 pictures"),
    ],
)
def test_reports_of_different_tests_are_not_compared(other, words):
    found = decision(report(0.9), other)
    assert not found.promoted
    assert len(found.reasons) == 1
    assert words in found.reasons[0]


def test_champion_is_not_promoted_over_itself():
    found = decision(report(0.5), report(0.5), version="1")
    assert not found.promoted
    assert found.reasons == ("version 1 is champion already",)
