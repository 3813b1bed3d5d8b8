"""Promotion rule: decides from measurements alone whether a challenger becomes champion; knows nothing of a registry.

A challenger is promoted only if every check passes. Without a champion: it was not rolled back, its data passed
validation, and it reaches the floors. With a champion also: both were measured on the same test by the same code, the gain
reaches its margin, the paired 95 % interval of the gain excludes a loss, and no slice falls by more than its allowance.
A missing measurement (None, NaN) fails its check.

With extra evaluation sets, the gain is that of the mean over all sets, every set has floors, and no set may lose more
than an allowance.

A rolled back version fails its check because its measurements would win again; a person can still promote it.

The interval excludes a loss if its low end is at least 0, so a model that is no better passes in at most 1 of 40 runs. A
bundle compared with itself (gain 0, interval [0, 0]) fails the margin.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from image_finder.components.configs import ExtraSetConfig, PromotionConfig
from image_finder.components.records.data import ValidationReport
from image_finder.components.records.export import BundleMeasurement, ParityReport
from image_finder.components.records.promotion import (
    Comparison,
    PromotionCheck,
    PromotionDecision,
    SetDifference,
    SliceDifference,
)
from image_finder.components.records.retrieval import RetrievalReport

_ROUNDING = 1e-12  # 0.58 - 0.57 is not 0.01 in binary; a gain of exactly min_gain must pass
_K = 10
_NEW_VERSION = "new version"
_ROLLBACKS = "rollbacks"
NO_FLOORS: Mapping[str, ExtraSetConfig] = MappingProxyType({})


@dataclass(frozen=True)
class Rollback:
    """A rollback in effect: neither the version nor an equal bundle was champion since."""

    entry: int  # number of the ledger entry
    version: str
    reason: str


@dataclass(frozen=True)
class MeasuredVersion:
    """A registered version and its measurement; fault says why there is none.

    A deleted champion has the version "". rollback: of the version or of one with the same bundle.
    """

    version: str
    measurement: BundleMeasurement | None
    fault: str = ""
    rollback: Rollback | None = None


@dataclass(frozen=True)
class Reports:
    """Further reports on a challenger; None if missing."""

    validation: ValidationReport | None  # of the data it was trained on and measured with
    parity: ParityReport | None  # of its export


def decide(
    challenger: MeasuredVersion,
    champion: MeasuredVersion | None,
    comparison: Comparison | None,
    *,
    reports: Reports,
    config: PromotionConfig,
    extra_sets: Mapping[str, ExtraSetConfig] = NO_FLOORS,
) -> PromotionDecision:
    """Apply every check of the module's docstring.

    extra_sets: evaluation sets on which the challenger must be measured, and their floors.
    comparison: of both measurements, None if one is missing. A champion that could not be measured is kept. A version is not promoted over itself.
    """
    checks = tuple(_checks(challenger, champion, comparison, reports, (config, extra_sets)))
    promoted = all(check.passed for check in checks)
    return PromotionDecision(
        promoted=promoted,
        challenger_version=challenger.version,
        champion_version=None if champion is None else champion.version or None,
        reasons=_why(challenger, champion, comparison, len(checks)) if promoted else tuple(_why_not(checks)),
        checks=checks,
        challenger_mean_recall=_mean_recall(challenger),
        champion_mean_recall=None if champion is None else _mean_recall(champion),
        gain=None if comparison is None else _number(comparison.gain),
        gain_interval=comparison.interval if comparison is not None and _is_ordered(comparison) else None,
    )


def _checks(
    challenger: MeasuredVersion,
    champion: MeasuredVersion | None,
    comparison: Comparison | None,
    reports: Reports,
    limits: tuple[PromotionConfig, Mapping[str, ExtraSetConfig]],
) -> Iterator[PromotionCheck]:
    config, extra_sets = limits
    if champion is not None and champion.version == challenger.version:
        detail = f"version {challenger.version} is champion already"
        yield _check(_NEW_VERSION, None, "not the champion", passed=False, detail=detail)
        return
    yield _not_rolled_back(challenger)
    if challenger.rollback is not None and challenger.measurement is None:
        return  # the other checks would only repeat that there is no measurement
    yield _valid_data(challenger, reports.validation)
    yield _measured("challenger measured", challenger)
    yield from _floors(challenger.measurement, reports.parity, config)
    for name, floors in extra_sets.items():
        yield from _recall_floors(_report_on(challenger.measurement, name), floors, f" on {name}")
    if champion is None:
        return
    # The fault of a deleted champion includes the advice.
    yield _measured("champion measured", champion, _advice(challenger) if champion.version else "")
    if champion.measurement is not None:
        yield _same_test(challenger.measurement, champion.measurement, comparison)
        yield from _gains(challenger, champion, comparison, config.min_gain)
        for each in comparison.sets if comparison is not None else ():
            yield _set(each, config.set_allowance)
        for difference in comparison.slices if comparison is not None else ():
            yield _slice(difference, config)


# Checks of the challenger alone


def _not_rolled_back(challenger: MeasuredVersion) -> PromotionCheck:
    found = challenger.rollback
    detail = ""
    if found is not None:
        bundle = "" if found.version == challenger.version else " with the same bundle"
        detail = (
            f"version {found.version}{bundle} was rolled back by ledger entry {found.entry}: {found.reason}; to promote "
            f"it all the same: image-finder models promote {challenger.version} --force"
        )
    return _check(_ROLLBACKS, float(found is not None), "none in effect", passed=found is None, detail=detail)


def _valid_data(challenger: MeasuredVersion, validation: ValidationReport | None) -> PromotionCheck:
    if validation is None or challenger.measurement is None:
        missing = "no validation report" if validation is None else "no measurement names its data version"
        return _check("data validation", None, "a report without a failed expectation", passed=False, detail=missing)
    share, limit = validation.quarantined_share, validation.max_quarantined_share
    failed = [each.name for each in validation.expectations if each.severity == "error" and not each.success]
    faults = [f"failed: {', '.join(failed)}"] if failed else [] if validation.success else ["the report says failed"]
    if (measured := challenger.measurement.report.data_version) != validation.data_version:
        faults.append(f"data version {validation.data_version} was validated, {measured} was measured")
    return _check(
        "data validation",
        share,
        f"at most {limit:.4f} quarantined, no failed expectation, same data version",
        passed=not faults and 0 <= share <= limit + _ROUNDING,
        detail="; ".join(faults),
    )


def _measured(name: str, version: MeasuredVersion, advice: str = "") -> PromotionCheck:
    faults = [version.fault or "not measured"]
    if version.measurement is not None:
        faults = list(_invalid_recalls(version.measurement.report))
    return _check(
        name,
        _mean_recall(version),
        "every recall between 0 and 1",
        passed=not faults,
        detail="; ".join([*faults, *([advice] if advice else [])]) if faults else "",
    )


def _invalid_recalls(report: RetrievalReport) -> Iterator[str]:
    values = {}
    for where, each in _named_sets(report).items():
        values[f"mean recall{where}"] = each.mean_recall
        for name, direction in (("text-to-image", each.text_to_image), ("image-to-text", each.image_to_text)):
            values.update({f"{name} recall@{k}{where}": value for k, value in direction.recall.items()})
    # `not 0 <= nan <= 1` is true, `nan < 0 or nan > 1` is false
    return (f"{name} is {value}, not between 0 and 1" for name, value in values.items() if not 0 <= value <= 1)


def _floors(
    measured: BundleMeasurement | None, parity: ParityReport | None, config: PromotionConfig
) -> Iterator[PromotionCheck]:
    text_ms = image_ms = size = None
    report, on, where = None, "", ""
    if measured is not None:
        (on, report), *_ = _named_sets(measured.report).items()
        text_ms, image_ms, size = measured.text_ms, measured.image_ms, measured.bundle_mb
        where = f"median, {measured.threads} cores"
    yield from _recall_floors(report, config, on)
    yield _parity(parity, config.min_parity_cosine)
    yield _at_most("text latency", text_ms, config.max_text_ms, "ms", detail=where)
    yield _at_most("image latency", image_ms, config.max_image_ms, "ms", detail=where)
    yield _at_most("bundle size", size, config.max_bundle_mb, "MB")


def _recall_floors(
    report: RetrievalReport | None, floors: PromotionConfig | ExtraSetConfig, on: str
) -> Iterator[PromotionCheck]:
    mean = None if report is None else report.mean_recall
    recall = None if report is None else report.text_to_image.recall.get(_K)
    yield _at_least(f"mean recall{on}", mean, floors.min_mean_recall)
    yield _at_least(f"recall@{_K}{on}", recall, floors.min_recall_at_10, detail="text to image")


def _report_on(measured: BundleMeasurement | None, name: str) -> RetrievalReport | None:
    return None if measured is None else measured.report.extra_sets.get(name)


def _named_sets(report: RetrievalReport) -> dict[str, RetrievalReport]:
    """Reports by " on <set>", the main one first; "" if there is only one."""
    return {f" on {name}": each for name, each in report.sets.items()} if report.extra_sets else {"": report}


def _parity(parity: ParityReport | None, floor: float) -> PromotionCheck:
    check = _at_least("parity", None if parity is None else parity.min_cosine, floor, detail="cosine, torch to ONNX")
    if parity is None or parity.passed:
        return check
    return check.model_copy(update={"passed": False, "detail": f"failed at export: {'; '.join(parity.reasons)}"})


# Checks of challenger and champion


def _advice(challenger: MeasuredVersion) -> str:
    return (
        "the champion is kept; to replace it all the same: "
        f'image-finder models promote {challenger.version} --force --reason "..."'
    )


def _same_test(
    challenger: BundleMeasurement | None, champion: BundleMeasurement, comparison: Comparison | None
) -> PromotionCheck:
    faults = ["the challenger was not measured"]
    if challenger is not None:
        faults = list(_differences(challenger, champion))
        difference = challenger.report.mean_over_sets - champion.report.mean_over_sets
        if not faults and comparison is not None and not abs(comparison.gain - difference) <= 1e-9:
            faults = [f"the comparison's gain is {comparison.gain:+.4f}, the measurements differ by {difference:+.4f}"]
    return _check(
        "same test",
        float(len(faults)),
        "no difference in data version, captions, images, k and code",
        passed=not faults,
        detail="; ".join(faults),
    )


def _differences(challenger: BundleMeasurement, champion: BundleMeasurement) -> Iterator[str]:
    ours, theirs = challenger.report, champion.report
    pairs = {
        "data version": (ours.data_version, theirs.data_version),
        "split": (ours.split, theirs.split),
        "images": (ours.n_images, theirs.n_images),
        "captions": (ours.n_captions, theirs.n_captions),
        "k": (_ks(ours), _ks(theirs)),
        "extra sets": (_names(ours), _names(theirs)),
        "test": (challenger.test_sha256[:12], champion.test_sha256[:12]),
        "code": (challenger.code_sha256[:12], champion.code_sha256[:12]),
    }
    for name, (mine, other) in pairs.items():
        if mine != other:
            yield f"{name}: {mine} of the challenger, {other} of the champion"
        elif mine == "":
            yield f"{name}: unknown for both"


def _ks(report: RetrievalReport) -> str:
    return ", ".join(map(str, sorted(report.text_to_image.recall)))


def _names(report: RetrievalReport) -> str:
    return ", ".join(sorted(report.extra_sets)) or "none"


def _over(version: MeasuredVersion) -> str:
    """The words "over val and coco" after a blank, if there are extra sets."""
    report = version.measurement.report if version.measurement is not None else None
    return f" over {' and '.join(report.sets)}" if report is not None and report.extra_sets else ""


def _gains(
    challenger: MeasuredVersion, champion: MeasuredVersion, comparison: Comparison | None, min_gain: float
) -> Iterator[PromotionCheck]:
    gain = None if comparison is None else comparison.gain
    means = f"{_shown(_mean_recall(challenger))} against {_shown(_mean_recall(champion))} of version {champion.version}"
    check = _at_least("gain", gain, min_gain, detail=f"mean recall{_over(challenger)} {means}")
    if min_gain == 0:
        check = check.model_copy(update={"required": "above 0.0000"})
    # Equal recall is no gain even if the margin is 0.
    yield check.model_copy(update={"passed": check.passed and gain is not None and gain > _ROUNDING})
    if comparison is None:
        yield _at_least("gain interval", None, 0.0)
        return
    interval = comparison.interval
    check = _at_least(
        "gain interval",
        interval.low,
        0.0,
        detail=f"95 % {interval.text('+.4f', times=1)}, paired, {comparison.n_images:,} images",
    )
    yield check.model_copy(update={"passed": check.passed and _is_ordered(comparison)})


def _set(each: SetDifference, allowance: float) -> PromotionCheck:
    detail = f"mean recall, 95 % {each.interval.text('+.4f', times=1)}"
    return _at_least(f"set {each.name}", each.difference, -allowance, detail=detail)


def _slice(difference: SliceDifference, config: PromotionConfig) -> PromotionCheck:
    name = f"{difference.slice}: {difference.value}"
    allowed = config.slice_allowances.get(name, config.slice_allowances.get(difference.slice, config.slice_allowance))
    detail = f"95 % {difference.interval.text('+.4f', times=1)}, {difference.n_queries:,} queries"
    on = f" on {difference.of_set}" if difference.of_set else ""
    check = _at_least(f"slice {name}{on}", difference.difference, -allowed, detail=detail)
    if difference.n_queries >= config.min_slice_queries:
        return check
    # So few queries vary by chance. NaN fails here too.
    required = f"any, not judged below {config.min_slice_queries} queries"
    return check.model_copy(update={"required": required, "passed": check.measured is not None})


# Construction of checks and reasons


def _at_least(name: str, measured: float | None, floor: float, *, detail: str = "") -> PromotionCheck:
    passed = measured is not None and math.isfinite(measured) and measured >= floor - _ROUNDING
    return _check(name, measured, f"at least {floor:.4f}", passed=passed, detail=detail)


def _at_most(name: str, measured: float | None, limit: float, unit: str, *, detail: str = "") -> PromotionCheck:
    """For a time or size, which cannot be 0 or less."""
    passed = measured is not None and math.isfinite(measured) and 0 < measured <= limit
    return _check(name, measured, f"at most {limit:g} {unit}", passed=passed, detail=detail)


def _check(name: str, measured: float | None, required: str, *, passed: bool, detail: str = "") -> PromotionCheck:
    if measured is not None and not math.isfinite(measured):
        detail = f"measured {measured}; {detail}".strip("; ")
    return PromotionCheck(name=name, measured=_number(measured), required=required, passed=passed, detail=detail)


def _number(value: float | None) -> float | None:
    """None for NaN and infinity, which JSON does not have."""
    return value if value is not None and math.isfinite(value) else None


def _mean_recall(version: MeasuredVersion) -> float | None:
    return None if version.measurement is None else _number(version.measurement.report.mean_over_sets)


def _is_ordered(comparison: Comparison) -> bool:
    low, high = comparison.interval.low, comparison.interval.high
    return math.isfinite(low) and math.isfinite(high) and low <= high


def _shown(value: float | None) -> str:
    return "nothing measured" if value is None else f"{value:.4f}"


def _why(
    challenger: MeasuredVersion, champion: MeasuredVersion | None, comparison: Comparison | None, n_checks: int
) -> tuple[str, ...]:
    mean = f"mean recall{_over(challenger)} {_shown(_mean_recall(challenger))}"
    if champion is None or comparison is None:
        return (f"first champion: {mean}, nothing to compare with; all {n_checks} checks passed",)
    gain = f"gain {comparison.gain:+.4f} {comparison.interval.text('+.4f', times=1)}; all {n_checks} checks passed"
    return (f"{mean} against {_shown(_mean_recall(champion))} of champion {champion.version}, {gain}",)


def _why_not(checks: tuple[PromotionCheck, ...]) -> Iterator[str]:
    for check in checks:
        if check.name == _NEW_VERSION:
            yield check.detail
        elif not check.passed:
            measured = "not measured" if check.measured is None else f"{check.measured:.4f}"
            yield f"{check.name} {measured}, required {check.required}{f' ({check.detail})' if check.detail else ''}"
