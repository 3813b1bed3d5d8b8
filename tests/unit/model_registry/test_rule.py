"""The promotion rule at, just under and just over every limit, and with anything missing."""

import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from image_finder.components.configs import ExtraSetConfig, PromotionConfig, RegistryConfig
from image_finder.components.errors import ConfigError
from image_finder.components.records.data import ExpectationResult, ValidationReport
from image_finder.components.records.export import BundleMeasurement, ParityReport
from image_finder.components.records.promotion import (
    Comparison,
    PromotionDecision,
    SetDifference,
    SliceDifference,
)
from image_finder.components.records.retrieval import DirectionReport, Interval, RetrievalReport
from image_finder.model_registry.rule import MeasuredVersion, Reports, Rollback, decide
from image_finder.pipelines.report_text import decision_text

NO_NUMBERS = [math.nan, math.inf, -math.inf]
CONFIG = PromotionConfig(
    min_mean_recall=0.3,
    min_recall_at_10=0.4,
    min_parity_cosine=0.99,
    max_text_ms=20,
    max_image_ms=40,
    max_bundle_mb=120,
    min_gain=0.01,
    slice_allowance=0.05,
    min_slice_queries=100,
)


def report(mean=0.5, recall_at_10=0.6, **changes):
    def direction(n_queries, gallery_size):
        recall = {1: 0.2, 10: recall_at_10}
        return DirectionReport(
            n_queries=n_queries,
            gallery_size=gallery_size,
            recall=recall,
            interval=dict.fromkeys(recall, Interval(low=0, high=1)),
            random_recall={1: 0.1, 10: 1.0},
            median_rank=2.0,
        )

    values = {
        "dataset": "scratch",
        "data_version": "aaa",
        "split": "test",
        "n_images": 300,
        "n_captions": 1500,
        "text_to_image": direction(1500, 300),
        "image_to_text": direction(300, 1500),
        "mean_recall": mean,
        "mean_recall_interval": Interval(low=0, high=1),
        "slices": (),
        "bootstrap_samples": 100,
        "seed": 0,
    }
    return RetrievalReport(**{**values, **changes})


def measurement(mean=0.5, recall_at_10=0.6, *, of_report=None, **changes):
    values = {
        "report": report(mean, recall_at_10, **(of_report or {})),
        "text_ms": 5.0,
        "image_ms": 10.0,
        "bundle_mb": 100.0,
        "embedding_dim": 512,
        "device": "cpu",
        "threads": 2,
        "test_sha256": "t" * 64,
        "code_sha256": "c" * 64,
    }
    return BundleMeasurement(**{**values, **changes})


def slice_of(difference, n_queries=500, name="caption length", value="1-8 words"):
    interval = Interval(low=difference - 0.01, high=difference + 0.01)
    return SliceDifference(slice=name, value=value, n_queries=n_queries, difference=difference, interval=interval)


def comparison(gain, low=0.001, high=0.2, slices=()):
    return Comparison(
        gain=gain, interval=Interval(low=low, high=high), slices=slices, n_images=300, bootstrap_samples=1000
    )


def validation(quarantined=0, *, success=True, version="aaa", failed=()):
    expectations = tuple(
        ExpectationResult(
            name=name, column="", description="", severity="error", success=False, n_checked=1, n_failed=1
        )
        for name in failed
    )
    return ValidationReport(
        dataset="scratch",
        data_version=version,
        n_images=200,
        n_captions=1000,
        n_valid_captions=1000 - quarantined,
        expectations=expectations,
        quarantined={},
        max_quarantined_share=0.02,
        success=success,
    )


def parity(min_cosine=0.9999, *, passed=True):
    return ParityReport(
        cases=(),
        min_cosine=min_cosine,
        max_difference=0.001,
        torch_recall_at_10=0.6,
        onnx_recall_at_10=0.6,
        n_images=64,
        passed=passed,
        reasons=() if passed else ("cosine of one text is 0.2",),
    )


REPORTS = Reports(validation(), parity())
_UNSET = object()


def decision(ours=_UNSET, theirs=_UNSET, compared=_UNSET, *, reports=REPORTS, config=CONFIG):
    """Challenger 2 against champion 1; by default better by 10 points in everything."""
    ours = measurement(0.6) if ours is _UNSET else ours
    theirs = measurement(0.5) if theirs is _UNSET else theirs
    if compared is _UNSET:
        compared = comparison(ours.report.mean_recall - theirs.report.mean_recall) if ours and theirs else None
    return decide(MeasuredVersion("2", ours), MeasuredVersion("1", theirs), compared, reports=reports, config=config)


def first(ours=_UNSET, *, reports=REPORTS, config=CONFIG):
    """Challenger 2 where there is no champion yet."""
    ours = measurement() if ours is _UNSET else ours
    return decide(MeasuredVersion("2", ours), None, None, reports=reports, config=config)


def failed(found):
    return [check.name for check in found.checks if not check.passed]


def test_a_better_challenger_is_promoted_and_every_rule_says_what_it_measured_and_requires():
    found = decision(compared=comparison(0.1, slices=(slice_of(0.1),)))
    assert found.promoted
    assert (found.challenger_version, found.champion_version) == ("2", "1")
    assert (found.challenger_mean_recall, found.champion_mean_recall, found.gain) == (0.6, 0.5, 0.1)
    assert found.gain_interval == Interval(low=0.001, high=0.2)
    assert [(check.name, check.measured, check.required) for check in found.checks] == [
        ("rollbacks", 0.0, "none in effect"),
        ("data validation", 0.0, "at most 0.0200 quarantined, no failed expectation, same data version"),
        ("challenger measured", 0.6, "every recall between 0 and 1"),
        ("mean recall", 0.6, "at least 0.3000"),
        ("recall@10", 0.6, "at least 0.4000"),
        ("parity", 0.9999, "at least 0.9900"),
        ("text latency", 5.0, "at most 20 ms"),
        ("image latency", 10.0, "at most 40 ms"),
        ("bundle size", 100.0, "at most 120 MB"),
        ("champion measured", 0.5, "every recall between 0 and 1"),
        ("same test", 0.0, "no difference in data version, captions, images, k and code"),
        ("gain", 0.1, "at least 0.0100"),
        ("gain interval", 0.001, "at least 0.0000"),
        ("slice caption length: 1-8 words", 0.1, "at least -0.0500"),
    ]
    assert found.reasons == (
        "mean recall 0.6000 against 0.5000 of champion 1, gain +0.1000 [+0.0010, +0.2000]; all 14 checks passed",
    )


def test_the_first_challenger_needs_the_floors_and_the_validation_only():
    found = first()
    assert found.promoted
    assert found.champion_version is found.champion_mean_recall is found.gain is None
    assert found.reasons == ("first champion: mean recall 0.5000, nothing to compare with; all 9 checks passed",)


UNDER, OVER = -1e-9, 1e-9


@pytest.mark.parametrize(("off", "passes"), [(UNDER, False), (0, True), (OVER, True)])
@pytest.mark.parametrize("has_champion", [True, False])
def test_floors_pass_at_and_above_them_only(off, passes, has_champion):
    decided = decision if has_champion else first
    cases = {
        "mean recall": (measurement(0.3 + off), REPORTS),
        "recall@10": (measurement(0.6, 0.4 + off), REPORTS),
        "parity": (measurement(0.6), Reports(validation(), parity(0.99 + off))),
    }
    for name, (ours, reports) in cases.items():
        found = decided(ours, reports=reports, config=CONFIG.model_copy(update={"min_gain": 0.0}))
        assert (name in failed(found)) is not passes
        if not passes:
            assert not found.promoted


@pytest.mark.parametrize(("off", "passes"), [(UNDER, True), (0, True), (OVER, False)])
@pytest.mark.parametrize("has_champion", [True, False])
def test_latency_and_size_pass_at_and_below_their_limits_only(off, passes, has_champion):
    limits = {"text latency": ("text_ms", 20), "image latency": ("image_ms", 40), "bundle size": ("bundle_mb", 120)}
    for name, (field, limit) in limits.items():
        found = (decision if has_champion else first)(measurement(0.6, **{field: limit + off}))
        assert failed(found) == ([] if passes else [name])
        assert found.promoted is passes


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_time_or_size_of_zero_or_less_fails(value):
    for field in ("text_ms", "image_ms", "bundle_mb"):
        assert not first(measurement(**{field: value})).promoted


@pytest.mark.parametrize(
    ("gain", "promoted"), [(0.0099, False), (0.01, True), (0.0101, True), (0.0, False), (-0.1, False)]
)
def test_gain_is_enough_at_and_above_the_margin_only(gain, promoted):
    found = decision(measurement(0.5 + gain), compared=comparison(gain))
    assert failed(found) == ([] if promoted else ["gain"])
    assert found.promoted is promoted


@pytest.mark.parametrize("hundredths", range(30, 99))
def test_a_gain_of_exactly_the_margin_passes_despite_rounding(hundredths):
    ours, theirs = (hundredths + 1) / 100, hundredths / 100
    assert decision(measurement(ours), measurement(theirs), comparison(ours - theirs)).promoted


def test_without_a_margin_any_gain_above_zero_is_enough_and_none_is_not():
    config = CONFIG.model_copy(update={"min_gain": 0.0})
    assert decision(measurement(0.5001), compared=comparison(0.5001 - 0.5), config=config).promoted
    found = decision(measurement(0.5), compared=comparison(0.0, low=0.0, high=0.0), config=config)
    assert not found.promoted
    assert found.reasons == ("gain 0.0000, required above 0.0000 (mean recall 0.5000 against 0.5000 of version 1)",)


@pytest.mark.parametrize(("low", "promoted"), [(-1e-9, False), (0.0, True), (1e-9, True)])
def test_the_interval_of_the_gain_must_exclude_a_loss(low, promoted):
    found = decision(compared=comparison(0.1, low=low))
    assert failed(found) == ([] if promoted else ["gain interval"])
    assert found.promoted is promoted


def test_an_interval_with_low_above_high_fails():
    assert failed(decision(compared=comparison(0.1, low=0.2, high=0.1))) == ["gain interval"]


@pytest.mark.parametrize(("fall", "promoted"), [(0.05 - 1e-9, True), (0.05, True), (0.05 + 1e-9, False)])
def test_no_slice_may_fall_by_more_than_its_allowance(fall, promoted):
    slices = (slice_of(0.2), slice_of(-fall, value="14 words or more"))
    found = decision(compared=comparison(0.1, slices=slices))
    assert failed(found) == ([] if promoted else ["slice caption length: 14 words or more"])
    assert found.promoted is promoted


def test_an_allowance_is_looked_up_by_value_then_by_slice_then_for_all():
    allowances = {"caption length": 0.1, "caption length: 1-8 words": 0.2}
    config = CONFIG.model_copy(update={"slice_allowances": allowances})
    found = decision(
        compared=comparison(
            0.1,
            slices=(
                slice_of(-0.2),
                slice_of(-0.2, value="9-13 words"),
                slice_of(-0.1, value="14 words or more"),
                slice_of(-0.1, name="license", value="license 1"),
            ),
        ),
        config=config,
    )
    assert failed(found) == ["slice caption length: 9-13 words", "slice license: license 1"]


@pytest.mark.parametrize(("n_queries", "promoted"), [(99, True), (100, False), (101, False)])
def test_a_slice_with_few_queries_is_shown_but_not_judged(n_queries, promoted):
    found = decision(compared=comparison(0.1, slices=(slice_of(-0.5, n_queries),)))
    assert found.promoted is promoted
    if promoted:
        assert found.checks[-1].required == "any, not judged below 100 queries"
        assert found.checks[-1].measured == -0.5


def test_an_allowance_for_an_unknown_slice_is_refused():
    with pytest.raises(
        ConfigError, match="slice_allowances names 'caption lenght': known slices are direction, caption"
    ):
        RegistryConfig.parse({"promotion": {"slice_allowances": {"caption lenght": 0.1}}})


@pytest.mark.parametrize(
    ("report_of_data", "words"),
    [
        (None, "no validation report"),
        (validation(21), "0.0210"),
        (validation(success=False), "the report says failed"),
        (validation(success=False, failed=["ids are unique"]), "failed: ids are unique"),
        (validation(failed=["ids are unique"]), "failed: ids are unique"),
        (validation(version="bbb"), "data version bbb was validated, aaa was measured"),
    ],
)
def test_data_that_failed_validation_prevent_promotion(report_of_data, words):
    for found in (
        decision(reports=Reports(report_of_data, parity())),
        first(reports=Reports(report_of_data, parity())),
    ):
        assert failed(found) == ["data validation"]
        assert words in found.reasons[0]


@pytest.mark.parametrize(("quarantined", "promoted"), [(19, True), (20, True), (21, False)])
def test_quarantine_passes_at_and_below_its_limit_only(quarantined, promoted):
    assert first(reports=Reports(validation(quarantined), parity())).promoted is promoted


def test_an_export_that_failed_its_gate_is_not_promoted_at_any_cosine():
    found = first(reports=Reports(validation(), parity(1.0, passed=False)))
    assert failed(found) == ["parity"]
    assert "failed at export: cosine of one text is 0.2" in found.reasons[0]
    assert failed(first(reports=Reports(validation(), None))) == ["parity"]


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (measurement(of_report={"data_version": "bbb"}), "data version: aaa of the challenger, bbb of the champion"),
        (measurement(of_report={"split": "val"}), "split: test of the challenger, val of the champion"),
        (measurement(of_report={"n_images": 301}), "images: 300 of the challenger, 301 of the champion"),
        (measurement(of_report={"n_captions": 1501}), "captions: 1500 of the challenger, 1501 of the champion"),
        (measurement(test_sha256="u" * 64), "test: tttttttttttt of the challenger, uuuuuuuuuuuu of the champion"),
        (measurement(code_sha256="d" * 64), "code: cccccccccccc of the challenger, dddddddddddd of the champion"),
    ],
)
def test_measurements_of_different_tests_or_code_are_not_compared(theirs, words):
    found = decision(theirs=theirs)
    assert failed(found) == ["same test"]
    assert words in found.reasons[0]


def test_unknown_tests_do_not_count_as_equal():
    unknown = {"test_sha256": "", "code_sha256": ""}
    found = decision(measurement(0.6, **unknown), measurement(0.5, **unknown))
    assert failed(found) == ["same test"]
    assert "test: unknown for both; code: unknown for both" in found.reasons[0]


def test_a_comparison_of_other_measurements_fails():
    assert failed(decision(compared=comparison(0.2))) == ["same test"]


def test_another_embedding_dimension_is_allowed():
    assert decision(measurement(0.6, embedding_dim=64), measurement(0.5, embedding_dim=512)).promoted


def test_a_champion_that_cannot_be_measured_is_kept_and_the_advice_is_given():
    champion = MeasuredVersion("1", None, "bundle of finder version 1 cannot be fetched: no such file")
    found = decide(MeasuredVersion("2", measurement(0.9)), champion, None, reports=REPORTS, config=CONFIG)
    assert not found.promoted
    assert found.champion_version == "1"
    assert failed(found) == ["champion measured"]
    (reason,) = found.reasons
    assert "bundle of finder version 1 cannot be fetched: no such file" in reason
    assert 'image-finder models promote 2 --force --reason "..."' in reason


def test_a_deleted_champion_is_not_taken_for_none():
    champion = MeasuredVersion("", None, "version 1 was champion and has been deleted")
    found = decide(MeasuredVersion("2", measurement(0.9)), champion, None, reports=REPORTS, config=CONFIG)
    assert not found.promoted
    assert found.champion_version is None
    assert "version 1 was champion and has been deleted" in found.reasons[0]


def test_a_version_is_not_promoted_over_itself():
    same = MeasuredVersion("1", measurement())
    found = decide(same, same, comparison(0.5), reports=REPORTS, config=CONFIG)
    assert not found.promoted
    assert found.reasons == ("version 1 is champion already",)


@pytest.mark.parametrize(("version", "which"), [("2", ""), ("4", " with the same bundle")])
@pytest.mark.parametrize("champion", [MeasuredVersion("1", measurement(0.5)), None])
def test_a_rolled_back_version_is_not_promoted_at_any_recall(version, which, champion):
    challenger = MeasuredVersion("2", measurement(0.9), rollback=Rollback(12, version, "wrong colours"))
    found = decide(challenger, champion, comparison(0.4) if champion else None, reports=REPORTS, config=CONFIG)
    assert not found.promoted
    assert failed(found) == ["rollbacks"]
    detail = f"version {version}{which} was rolled back by ledger entry 12: wrong colours; to promote it all the same"
    assert found.reasons == (
        f"rollbacks 1.0000, required none in effect ({detail}: image-finder models promote 2 --force)",
    )


def test_a_rolled_back_version_is_rejected_without_measurement():
    challenger = MeasuredVersion("2", None, rollback=Rollback(12, "2", "wrong colours"))
    found = decide(challenger, MeasuredVersion("1", None), None, reports=REPORTS, config=CONFIG)
    assert [(check.name, check.passed) for check in found.checks] == [("rollbacks", False)]


def test_a_challenger_without_measurement_fails_every_measured_check():
    unmeasured = {"data validation", "challenger measured", "mean recall", "recall@10", "text latency"}
    assert unmeasured | {"image latency", "bundle size"} == set(failed(first(None)))
    assert {*unmeasured, "same test", "gain", "gain interval"} < set(failed(decision(None)))


def test_measurements_without_a_comparison_prove_no_gain():
    assert failed(decision(compared=None)) == ["gain", "gain interval"]


def test_recall_at_10_must_be_among_the_cut_offs():
    direction = report().text_to_image.model_copy(update={"recall": {1: 0.9}})
    found = first(measurement(of_report={"text_to_image": direction}), config=PromotionConfig())
    assert failed(found) == ["recall@10"]


def _without(value, config):
    """Decisions with each number of their reports replaced by `value`."""
    alone, against = partial(first, config=config), partial(decision, config=config)
    yield against(measurement(value), compared=comparison(0.1))
    yield alone(measurement(value))
    yield against(measurement(0.6, value))
    for direction in ("text_to_image", "image_to_text"):
        broken = getattr(report(), direction).model_copy(update={"recall": {1: value, 10: 0.6}})
        yield alone(measurement(of_report={direction: broken}))
        yield against(measurement(0.6, of_report={direction: broken}))
        yield against(theirs=measurement(0.5, of_report={direction: broken}))
    yield against(theirs=measurement(value), compared=comparison(0.1))
    for field in ("text_ms", "image_ms", "bundle_mb"):
        yield alone(measurement(**{field: value}))
        yield against(measurement(0.6, **{field: value}))
    yield alone(reports=Reports(validation(), parity(value)))
    yield against(compared=comparison(value))
    yield against(compared=comparison(0.1, low=value))
    yield against(compared=comparison(0.1, high=value))
    yield against(compared=comparison(0.1, slices=(slice_of(value),)))
    yield against(compared=comparison(0.1, slices=(slice_of(value, n_queries=5),)))


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize("config", [CONFIG, PromotionConfig()])
def test_nan_and_infinity_fail_every_check_and_are_stored(value, config):
    for found in _without(value, config):
        assert not found.promoted
        assert PromotionDecision.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("field", list(PromotionConfig.model_fields))
def test_a_limit_of_nan_is_rejected(field):
    value = {"caption length": math.nan} if field == "slice_allowances" else math.nan
    with pytest.raises(ConfigError, match=f"promotion.{field}"):
        RegistryConfig.parse({"promotion": {field: value}})


shares = st.one_of(st.floats(0, 1), st.sampled_from([0.3, 0.4, 0.5, 0.51, 0.99, *NO_NUMBERS]))
sizes = st.one_of(st.floats(-1, 200), st.sampled_from([20.0, 40.0, 120.0, *NO_NUMBERS]))
gains = st.one_of(st.floats(-1, 1), st.sampled_from([0.0, 0.01, -0.05, *NO_NUMBERS]))


@given(st.data())
def test_nothing_is_promoted_with_a_failed_check_and_everything_without_one(data):
    ours = measurement(
        data.draw(shares),
        data.draw(shares),
        text_ms=data.draw(sizes),
        image_ms=data.draw(sizes),
        bundle_mb=data.draw(sizes),
        test_sha256=data.draw(st.sampled_from(["t", ""])),
    )
    theirs = measurement(data.draw(shares), test_sha256=data.draw(st.sampled_from(["t", "u"])))
    difference = ours.report.mean_recall - theirs.report.mean_recall
    gain = data.draw(st.one_of(st.just(difference), gains))
    slices = tuple(
        slice_of(fall, n) for fall, n in data.draw(st.lists(st.tuples(gains, st.sampled_from([99, 100])), max_size=3))
    )
    compared = data.draw(st.one_of(st.none(), st.builds(comparison, st.just(gain), gains, gains, st.just(slices))))
    quarantined, cosine = data.draw(st.integers(0, 40)), data.draw(shares)
    flags = data.draw(st.lists(st.booleans(), min_size=2, max_size=2))
    reports = Reports(validation(quarantined, success=flags[0]), parity(cosine, passed=flags[1]))
    kept, tiny = data.draw(st.booleans()), 1e-12

    alone = (
        flags[0]
        and flags[1]
        and quarantined <= 20
        and cosine >= 0.99 - tiny
        and cosine != math.inf
        and 0.3 - tiny <= ours.report.mean_recall <= 1
        and 0.4 - tiny <= ours.report.text_to_image.recall[10] <= 1
        and 0 < ours.text_ms <= 20
        and 0 < ours.image_ms <= 40
        and 0 < ours.bundle_mb <= 120
    )
    better = (
        compared is not None
        and 0 <= theirs.report.mean_recall <= 1
        and ours.test_sha256 == theirs.test_sha256
        and abs(gain - difference) <= 1e-9
        and gain >= 0.01 - tiny
        and -tiny <= compared.interval.low <= compared.interval.high < math.inf
        and all(math.isfinite(each.difference) for each in slices)
        and all(each.difference >= -0.05 - tiny for each in slices if each.n_queries >= 100)
    )
    found = decision(ours, theirs if kept else None, compared if kept else None, reports=reports)
    assert found.promoted == (not failed(found)) == (alone and better and kept)
    assert first(ours, reports=reports).promoted == alone
    assert bool(found.reasons)


def test_only_a_forced_decision_may_promote_against_a_check():
    found = decision(measurement(0.1)).model_dump()
    with pytest.raises(ValidationError, match="promoted although these checks failed: mean recall, gain"):
        PromotionDecision.model_validate({**found, "promoted": True})
    with pytest.raises(ValidationError, match="none was made"):
        PromotionDecision.model_validate({**found, "promoted": True, "checks": ()})
    assert PromotionDecision.model_validate({**found, "promoted": True, "forced": True}).promoted


def test_the_terminal_shows_the_decision_and_one_line_for_each_check():
    lines = decision_text(decision(measurement(0.6, text_ms=33.0)), "finder").splitlines()
    assert lines[0].startswith("finder version 2 was not promoted: text latency 33.0000, required at most 20 ms")
    assert lines[1].split() == ["check", "measured", "required"]
    assert [line.split()[0] for line in lines[2:]].count("FAILED") == 1
    assert lines[8].split()[:7] == ["FAILED", "text", "latency", "33", "at", "most", "20"]
    same = MeasuredVersion("1", None)
    stays = decision_text(decide(same, same, None, reports=REPORTS, config=CONFIG), "finder")
    assert stays == "finder version 1 stays champion: version 1 is champion already"


# Extra evaluation sets

FLOORS = {"coco": ExtraSetConfig(annotations="a.json", images="a", min_mean_recall=0.35, min_recall_at_10=0.7)}


def on_sets(main, coco, coco_at_10=0.75, **changes):
    return measurement(main, of_report={"extra_sets": {"coco": report(coco, coco_at_10, split="coco")}}, **changes)


def over_sets(main, coco, slices=()):
    """A comparison that gained main and coco."""
    near = {"val": main, "coco": coco}
    sets = tuple(
        SetDifference(name=name, difference=value, interval=Interval(low=value - 0.01, high=value + 0.01))
        for name, value in near.items()
    )
    return comparison((main + coco) / 2, slices=slices).model_copy(update={"sets": sets})


def judged(ours, theirs, compared, *, config=CONFIG, floors=FLOORS):
    challenger, champion = MeasuredVersion("2", ours), MeasuredVersion("1", theirs) if theirs else None
    return decide(challenger, champion, compared, reports=REPORTS, config=config, extra_sets=floors)


def test_over_several_sets_the_gain_is_that_of_the_mean_and_each_set_is_listed():
    found = judged(on_sets(0.6, 0.4), on_sets(0.5, 0.41), over_sets(0.1, -0.01))
    assert found.promoted
    assert found.gain == pytest.approx(0.045)
    assert found.challenger_mean_recall == pytest.approx(0.5)
    names = [check.name for check in found.checks]
    assert [name for name in names if " on " in name] == [
        *("mean recall on test", "recall@10 on test", "mean recall on coco", "recall@10 on coco")
    ]
    assert [name for name in names if name.startswith("set ")] == ["set val", "set coco"]
    assert found.reasons[0].startswith(
        "mean recall over test and coco 0.5000 against 0.4550 of champion 1, gain +0.0450"
    )
    gain = next(check for check in found.checks if check.name == "gain")
    assert gain.detail == "mean recall over test and coco 0.5000 against 0.4550 of version 1"
    assert PromotionDecision.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("coco", "at_10", "expected"),
    [
        (0.35, 0.7, []),
        (0.3499, 0.7, ["mean recall on coco"]),
        (0.35, 0.6999, ["recall@10 on coco"]),
        (math.nan, 0.7, ["challenger measured", "mean recall on coco"]),
        (0.4, math.nan, ["challenger measured", "recall@10 on coco"]),
    ],
)
def test_each_set_has_its_floors(coco, at_10, expected):
    assert failed(judged(on_sets(0.5, coco, at_10), None, None)) == expected


def test_a_set_that_was_not_measured_fails_its_floors_even_if_they_are_0():
    assert failed(judged(measurement(), None, None)) == ["mean recall on coco", "recall@10 on coco"]
    none = {"coco": ExtraSetConfig(annotations="a.json", images="a")}
    assert failed(judged(measurement(), None, None, floors=none)) == ["mean recall on coco", "recall@10 on coco"]
    assert "recall@10 on coco not measured, required at least" in judged(measurement(), None, None).reasons[1]


@pytest.mark.parametrize(("loss", "expected"), [(0.02, []), (0.0201, ["set coco"]), (math.nan, ["set coco"])])
def test_no_set_loses_more_than_its_allowance(loss, expected):
    compared = over_sets(0.1, -0.02)
    sets = (compared.sets[0], compared.sets[1].model_copy(update={"difference": -loss}))
    found = judged(on_sets(0.6, 0.4), on_sets(0.5, 0.42), compared.model_copy(update={"sets": sets}))
    assert failed(found) == expected
    wide = CONFIG.model_copy(update={"set_allowance": 0.05})
    assert failed(judged(on_sets(0.6, 0.35), on_sets(0.5, 0.4), over_sets(0.1, -0.05), config=wide)) == []


def test_a_loss_on_a_slice_of_an_extra_set_names_the_set():
    fall = slice_of(-0.06).model_copy(update={"of_set": "coco"})
    found = judged(on_sets(0.6, 0.4), on_sets(0.5, 0.4), over_sets(0.1, 0.0, slices=(fall,)))
    assert failed(found) == ["slice caption length: 1-8 words on coco"]


def test_measurements_on_other_sets_are_not_of_one_test():
    found = judged(on_sets(0.6, 0.6), measurement(0.5), None)
    assert "extra sets: coco of the challenger, none of the champion" in "; ".join(found.reasons)
