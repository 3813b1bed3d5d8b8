"""Promotion page: checks beside their limits, both measurements, origin, and the command that undoes the decision."""

from datetime import UTC, datetime

from image_finder.components.records.export import BundleMeasurement
from image_finder.components.records.promotion import PromotionCheck, PromotionDecision
from image_finder.components.records.retrieval import Interval
from image_finder.model_registry.ledger.entries import FIRST, Head, of_decision, seal
from image_finder.model_registry.promotion_page import Sides, promotion_page
from image_finder.model_registry.registry import RegisteredVersion
from tests.support.tiny_bundle import retrieval_report

PASSED = PromotionCheck(name="gain", measured=0.12, required="at least 0.0100", passed=True, detail="on <val>")
FAILED = PromotionCheck(name="one image", measured=None, required="at most 5 ms", passed=False)


def decision(*checks, **changes):
    values = {
        "promoted": all(check.passed for check in checks), "challenger_version": "2", "champion_version": "1",
        "reasons": ("mean recall & gain",), "checks": checks, "challenger_mean_recall": 0.62,
        "champion_mean_recall": 0.5, "gain": 0.12, "gain_interval": Interval(low=0.05, high=0.2), **changes,
    }  # fmt: skip
    return PromotionDecision.model_validate(values)


def measurement(mean_recall):
    return BundleMeasurement(
        report=retrieval_report(mean_recall), text_ms=2.0, image_ms=8.0, bundle_mb=13.9, embedding_dim=2, device="cpu",
        threads=2, test_sha256="t" * 64, code_sha256="c" * 64,
    )  # fmt: skip


def version(number, **tags):
    created = datetime(2026, 11, 30, 12, tzinfo=UTC)
    return RegisteredVersion(name="finder", version=number, run_id="r", aliases=(), tags=tags, created=created)


def test_a_promotion_shows_checks_measurements_origin_actor_and_the_rollback():
    made = decision(PASSED)
    entry = seal(
        "finder", of_decision(made), head=Head(6, FIRST), at=datetime(2026, 12, 1, tzinfo=UTC), actor="ann@lab"
    )
    versions = [version("2", data_version="0123456789ab", code_sha256="c" * 64), version("1", data_version="another")]
    page = promotion_page(made, entry=entry, versions=versions, sides=Sides(measurement(0.62), measurement(0.5)))
    assert "<title>finder version 2: promotion</title>" in page
    assert "Promoted over version 1" in page
    assert "ann@lab, 2026-12-01 00:00:00 UTC, ledger entry 7" in page
    assert "mean recall &amp; gain" in page
    assert "on &lt;val&gt;" in page
    assert "<td>62.0</td><td>50.0</td><td>+12.0 points [+5.0, +20.0]</td>" in page
    assert '<td class="name">one image, ms</td><td>8.0</td><td>8.0</td><td>+0.0</td>' in page
    assert "<td>0123456789ab</td><td>another</td>" in page
    assert "<td>cccccccccccc</td><td></td>" in page
    assert "image-finder models rollback --reason" in page
    assert "<script" not in page


def test_failed_checks_come_first_and_the_page_says_how_to_overrule_them():
    page = promotion_page(decision(PASSED, FAILED))
    assert "Not promoted; version 1 stays champion" in page
    assert "1 of 2 failed" in page
    assert page.index("one image") < page.index("on &lt;val&gt;")
    assert "not measured" in page
    assert "image-finder models promote 2 --force --reason" in page


def test_a_first_champion_has_nothing_to_go_back_to():
    page = promotion_page(decision(PASSED, champion_version=None, champion_mean_recall=None, gain=None))
    assert "Promoted, the first champion" in page
    assert "champion, version" not in page
    assert "models rollback" not in page


def test_a_forced_promotion_says_so():
    assert "Promoted by force over version 1" in promotion_page(decision(FAILED, promoted=True, forced=True))
