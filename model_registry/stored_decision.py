"""Stored contest: the promotion rule over measurements that training runs have kept, for promotions on another day."""

from image_finder.components.configs import PromotionConfig
from image_finder.components.errors import ConfigError
from image_finder.components.metrics.comparison import MeasuredBundle, compare_bundles
from image_finder.components.records.promotion import Comparison, PromotionCheck, PromotionDecision
from image_finder.model_registry import names
from image_finder.model_registry.aliases import Operations, Standing
from image_finder.model_registry.ledger.ledger import LedgerEntry
from image_finder.model_registry.registry import Registry
from image_finder.model_registry.rule import Contender, Grounds, decide


def decide_from_store(operations: Operations, model: str, version: str) -> PromotionDecision:
    """The rule's verdict on a version against the champion, without measuring anything.

    A verdict on just these two that is in the ledger holds, unless the version was rolled back since; else both runs'
    measurements are compared if they were made on the same test by the same code. Raises ConfigError saying what to run
    when there is neither; a version that was rolled back is refused all the same.
    """
    standing = operations.standing(model)
    rollback = operations.rollback_of(model, version)
    entries = operations.history(model).entries
    for entry in reversed(entries):
        if rollback is None and _is_verdict(entry, version, standing.version) and not standing.fault:
            return _as_decided(entry, version)
    registry = operations.registry
    ours = theirs = None
    try:
        ours, theirs = _both(registry, model, version, standing)
    except ConfigError:
        if rollback is None:
            raise
    return decide(
        Contender(version, None if ours is None else ours.measurement, rollback=rollback),
        _champion(standing, theirs),
        None if ours is None or theirs is None else compare_bundles(ours, theirs),
        grounds=Grounds(registry.validation_of(model, version), registry.parity_of(model, version)),
        config=_config(registry, model, version),
    )


def forced(operations: Operations, model: str, version: str, reason: str) -> PromotionDecision:
    """The decision of a person, with what the rule says if that can be told."""
    try:
        by_rule = decide_from_store(operations, model, version)
    except ConfigError as error:
        mean_recall = operations.registry.version(model, version).tags.get(names.MEAN_RECALL)
        by_rule = PromotionDecision(
            promoted=False,
            candidate_version=version,
            champion_version=operations.standing(model).version,
            reasons=(str(error),),
            checks=(),
            candidate_mean_recall=None if mean_recall is None else float(mean_recall),
            champion_mean_recall=None,
            gain=None,
            gain_interval=None,
        )
    told = "by the rule it would have been promoted" if by_rule.promoted else "by the rule it would not have been"
    reasons = (f"forced: {reason}", f"{told}: {'; '.join(by_rule.reasons)}")
    return by_rule.model_copy(update={"promoted": True, "forced": True, "reasons": reasons})


def paired(registry: Registry, model: str, first: str, second: str) -> Comparison | None:
    """First against second query by query, None unless both were measured on the same test by the same code."""
    ours, theirs = registry.measurement_of(model, first), registry.measurement_of(model, second)
    if ours is None or theirs is None or not _same_test(mine := ours.measured(), other := theirs.measured()):
        return None
    return compare_bundles(mine, other)


def _is_verdict(entry: LedgerEntry, version: str, champion: str | None) -> bool:
    return (
        entry.kind == "decision"
        and entry.to_version == version
        and entry.from_version == champion
        and bool(entry.measurements.get("promoted"))
        and not entry.measurements.get("forced")
    )


def _as_decided(entry: LedgerEntry, version: str) -> PromotionDecision:
    numbers = {name: value if isinstance(value, float) else None for name, value in entry.measurements.items()}
    return PromotionDecision(
        promoted=True,
        candidate_version=version,
        champion_version=entry.from_version,
        reasons=(f"decided before, entry {entry.n} of {entry.at[:10]}: {'; '.join(entry.reasons)}",),
        checks=tuple(PromotionCheck.model_validate(check) for check in entry.checks),
        candidate_mean_recall=numbers.get("candidate_mean_recall"),
        champion_mean_recall=numbers.get("champion_mean_recall"),
        gain=numbers.get("gain"),
        gain_interval=None,
    )


def _both(
    registry: Registry, model: str, version: str, standing: Standing
) -> tuple[MeasuredBundle, MeasuredBundle | None]:
    """Measurements of a version and of the champion if there is one. Raises ConfigError when they cannot be compared."""
    ours = _measured(registry, model, version)
    if standing.version is None:
        return ours, None
    theirs = _measured(registry, model, standing.version)
    if not _same_test(ours, theirs):
        raise ConfigError(
            f"versions {version} and {standing.version} were not measured on the same test by the same code: "
            + _what_to_run(version)
        )
    return ours, theirs


def _measured(registry: Registry, model: str, version: str) -> MeasuredBundle:
    stored = registry.measurement_of(model, version)
    if stored is None:
        raise ConfigError(f"no run has kept a measurement of version {version} by the rule: {_what_to_run(version)}")
    return stored.measured()


def _same_test(ours: MeasuredBundle, theirs: MeasuredBundle) -> bool:
    mine, other = ours.measurement, theirs.measurement
    return (mine.test_sha256, mine.code_sha256) == (other.test_sha256, other.code_sha256)


def _champion(standing: Standing, theirs: MeasuredBundle | None) -> Contender | None:
    if standing.version is None:
        return Contender("", None, standing.fault) if standing.fault else None
    return Contender(standing.version, None if theirs is None else theirs.measurement)


def _config(registry: Registry, model: str, version: str) -> PromotionConfig:
    """The limits the version's own run was held to."""
    lineage = registry.lineage_of(model, version)
    values = (lineage.configs.get("registry") or {}).get("promotion") if lineage else None
    return PromotionConfig.parse(values or {})


def _what_to_run(version: str) -> str:
    return (
        "run 'image-finder pipeline run training' with the version's configuration and data again, which only compares; "
        f"or 'image-finder models promote {version} --force --reason \"...\"'"
    )
