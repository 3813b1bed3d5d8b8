"""Decision: applies the promotion rule to a challenger and the champion, with fresh or stored measurements of both."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import ExtraSetConfig, PromotionConfig
from image_finder.components.errors import ConfigError, FinderError
from image_finder.components.metrics.comparison import MeasuredBundle, compare_bundles
from image_finder.components.records.data import ValidationReport
from image_finder.components.records.promotion import Comparison, PromotionCheck, PromotionDecision
from image_finder.model_registry import names
from image_finder.model_registry.ledger.entries import LedgerEntry
from image_finder.model_registry.promotions import ChampionStatus, Promotions
from image_finder.model_registry.registry import Registry
from image_finder.model_registry.rule import NO_FLOORS, MeasuredVersion, Reports, decide

Measure = Callable[[Bundle], MeasuredBundle]
Limits = tuple[PromotionConfig, Mapping[str, ExtraSetConfig]]  # the second: floors on each extra set
Measurements = tuple[MeasuredBundle | None, MeasuredBundle | None]  # of challenger and champion

_MEAN_RECALLS = ("challenger_mean_recall", "candidate_mean_recall")  # the second in ledgers of earlier versions


class Challenger(NamedTuple):
    model: str
    version: str
    bundle: Bundle


class MeasuredDecision(NamedTuple):
    """A decision, its ledger entry and measurements. A challenger that is champion already is not measured."""

    decision: PromotionDecision
    entry: LedgerEntry
    challenger: MeasuredBundle | None
    champion: MeasuredBundle | None


def measure_and_decide(
    promotions: Promotions,
    challenger: Challenger,
    measure: Measure,
    *,
    reports: Reports,
    config: PromotionConfig,
    folder: Path,
    extra_sets: Mapping[str, ExtraSetConfig] = NO_FLOORS,
) -> MeasuredDecision:
    """Measure challenger and champion, record the decision, and promote if it says so.

    The model is locked throughout: of two runs that finish together, the second is compared with the champion that the
    first leaves. measure must treat both bundles equally. folder: for the champion's bundle. A champion that cannot be
    fetched or measured is kept; an error while measuring the challenger is raised. Raises ConfigError if the version was
    deleted.
    """
    model, version = challenger.model, challenger.version
    with promotions.exclusive(model):
        if not promotions.registry.has_version(model, version):
            raise ConfigError(
                f"version {version} of '{model}' was deleted after it was registered: give the step "
                "register_bundle 'enable_cache: false' below 'steps' in the configuration, and run again"
            )
        promotions.reconcile(model)
        champion, ours, theirs = promotions.champion(model), None, None
        if champion.version != version:
            ours = measure(challenger.bundle)
            champion, theirs = _measure_champion(promotions.registry, model, champion, measure, folder)
        limits = (config, extra_sets)
        decision = _decide(promotions, (model, version), champion, (ours, theirs), reports=reports, limits=limits)
        entry = promotions.record(model, decision)
        if decision.promoted:
            promotions.move_champion(model, version, reason="; ".join(decision.reasons), decision=decision)
    return MeasuredDecision(decision, entry, ours, theirs)


def decide_measured(
    promotions: Promotions, challenger: Challenger, measure: Measure, *, validation: ValidationReport, folder: Path
) -> tuple[PromotionDecision, Measurements]:
    """Measure a version and the champion, and apply the rule with the version's own limits; records nothing.

    validation: of the data that measure uses, which replace all evaluation sets; folder: for the champion's bundle.
    """
    model, version = challenger.model, challenger.version
    ours = measure(challenger.bundle)
    champion, theirs = _measure_champion(promotions.registry, model, promotions.champion(model), measure, folder)
    decision = _decide(
        promotions,
        (model, version),
        champion,
        (ours, theirs),
        reports=Reports(validation, promotions.registry.parity_of(model, version)),
        limits=(_own_limits(promotions.registry, model, version)[0], NO_FLOORS),
    )
    return decision, (ours, theirs)


def decide_from_stored(promotions: Promotions, model: str, version: str) -> PromotionDecision:
    """Decide from the ledger or from stored measurements; measures and records nothing.

    A decision to promote this version over the current champion that is in the ledger holds unless the version was
    rolled back later. Otherwise the stored measurements are compared if both were made on the same test by the same code.
    Raises ConfigError saying what to run if neither exists; a version that was rolled back is rejected without them.
    """
    champion, registry = promotions.champion(model), promotions.registry
    rolled_back = promotions.rollback_of(model, version) is not None
    if not rolled_back and not champion.fault:
        earlier = _earlier_decision(promotions.history(model).entries, version, champion.version)
        if earlier is not None:
            return earlier
    measured: Measurements = (None, None)
    try:
        measured = _stored_measurements(registry, model, version, champion)
    except ConfigError:
        if not rolled_back:
            raise
    return _decide(
        promotions,
        (model, version),
        champion,
        measured,
        reports=Reports(registry.validation_of(model, version), registry.parity_of(model, version)),
        limits=_own_limits(registry, model, version),
    )


def forced_decision(promotions: Promotions, model: str, version: str, reason: str) -> PromotionDecision:
    try:
        by_rule = decide_from_stored(promotions, model, version)
    except ConfigError as error:
        mean_recall = promotions.registry.version(model, version).tags.get(names.MEAN_RECALL)
        by_rule = PromotionDecision(
            promoted=False,
            challenger_version=version,
            champion_version=promotions.champion(model).version,
            reasons=(str(error),),
            checks=(),
            challenger_mean_recall=None if mean_recall is None else float(mean_recall),
            champion_mean_recall=None,
            gain=None,
            gain_interval=None,
        )
    rule = "by the rule it would have been promoted" if by_rule.promoted else "by the rule it would not have been"
    reasons = (f"forced: {reason}", f"{rule}: {'; '.join(by_rule.reasons)}")
    return by_rule.model_copy(update={"promoted": True, "forced": True, "reasons": reasons})


def compare_stored(registry: Registry, model: str, first: str, second: str) -> Comparison | None:
    """Compare two versions query by query; None unless test and code were the same."""
    ours, theirs = stored_measurements(registry, model, first, second)
    return compare_bundles(ours, theirs) if ours and theirs else None


def stored_measurements(registry: Registry, model: str, first: str, second: str | None) -> Measurements:
    """Measurements stored in the versions' runs; of the first alone unless test and code were the same."""
    ours = _stored(registry, model, first)
    theirs = _stored(registry, model, second) if second else None
    return ours, theirs if ours and theirs and _same_test(ours, theirs) else None


def _decide(
    promotions: Promotions,
    challenger: tuple[str, str],
    champion: ChampionStatus,
    measured: Measurements,
    *,
    reports: Reports,
    limits: Limits,
) -> PromotionDecision:
    (model, version), (ours, theirs) = challenger, measured
    replaced = None
    if champion.version or champion.fault:
        replaced = MeasuredVersion(champion.version or "", theirs.measurement if theirs else None, champion.fault)
    return decide(
        MeasuredVersion(version, ours.measurement if ours else None, rollback=promotions.rollback_of(model, version)),
        replaced,
        compare_bundles(ours, theirs) if ours and theirs else None,
        reports=reports,
        config=limits[0],
        extra_sets=limits[1],
    )


def _measure_champion(
    registry: Registry, model: str, champion: ChampionStatus, measure: Measure, folder: Path
) -> tuple[ChampionStatus, MeasuredBundle | None]:
    if champion.version is None:
        return champion, None
    try:
        return champion, measure(
            registry.download_bundle(model, champion.version, folder / f"version-{champion.version}")
        )
    except FinderError as error:
        return champion.model_copy(update={"fault": str(error)}), None


def _earlier_decision(entries: Sequence[LedgerEntry], version: str, champion: str | None) -> PromotionDecision | None:
    """The newest decision of the rule to promote version over champion."""
    for entry in reversed(entries):
        numbers = entry.measurements
        if (entry.kind, entry.to_version, entry.from_version) != ("decision", version, champion):
            continue
        if numbers.get("promoted") and not numbers.get("forced"):
            found = {name: value for name, value in numbers.items() if isinstance(value, float)}
            return PromotionDecision(
                promoted=True,
                challenger_version=version,
                champion_version=champion,
                reasons=(f"decided before, entry {entry.n} of {entry.at[:10]}: {'; '.join(entry.reasons)}",),
                checks=tuple(PromotionCheck.model_validate(check) for check in entry.checks),
                challenger_mean_recall=next((found[name] for name in _MEAN_RECALLS if name in found), None),
                champion_mean_recall=found.get("champion_mean_recall"),
                gain=found.get("gain"),
                gain_interval=None,
            )
    return None


def _stored_measurements(registry: Registry, model: str, version: str, champion: ChampionStatus) -> Measurements:
    """Raises ConfigError if the two versions cannot be compared."""
    found = []
    for each in (version, *([champion.version] if champion.version else [])):
        measured = _stored(registry, model, each)
        if measured is None:
            raise ConfigError(f"no run stored a measurement of version {each}: {_what_to_run(each)}")
        found.append(measured)
    if len(found) == 1:
        return found[0], None
    if not _same_test(*found):
        raise ConfigError(
            f"versions {version} and {champion.version} were not measured on the same test by the same code: "
            + _what_to_run(version)
        )
    return found[0], found[1]


def _stored(registry: Registry, model: str, version: str) -> MeasuredBundle | None:
    stored = registry.measurement_of(model, version)
    return None if stored is None else stored.measured()


def _same_test(ours: MeasuredBundle, theirs: MeasuredBundle) -> bool:
    mine, other = ours.measurement, theirs.measurement
    return (mine.test_sha256, mine.code_sha256) == (other.test_sha256, other.code_sha256)


def _own_limits(registry: Registry, model: str, version: str) -> Limits:
    lineage = registry.lineage_of(model, version)
    configs = lineage.configs if lineage else {}
    promotion = (configs.get("registry") or {}).get("promotion") or {}
    sets = (configs.get("evaluation") or {}).get("extra_sets") or {}
    return PromotionConfig.parse(promotion), {name: ExtraSetConfig.parse(floors) for name, floors in sets.items()}


def _what_to_run(version: str) -> str:
    return (
        f"measure both with 'image-finder models promote {version} --data DIR' on captioned images; "
        f"or 'image-finder models promote {version} --force --reason \"...\"'"
    )
