"""Contest: a candidate against the champion in force, measured alike and decided under the model's lock."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import PromotionConfig
from image_finder.components.errors import ConfigError, FinderError
from image_finder.components.metrics.comparison import MeasuredBundle, compare_bundles
from image_finder.components.records.promotion import PromotionDecision
from image_finder.model_registry.aliases import Operations, Standing
from image_finder.model_registry.registry import Registry
from image_finder.model_registry.rule import Contender, Grounds, decide

Measure = Callable[[Bundle], MeasuredBundle]


class Candidate(NamedTuple):
    """A registered version of a model, with its bundle at hand."""

    model: str
    version: str
    bundle: Bundle


class Contest(NamedTuple):
    """What was decided and measured. Nothing is measured of a version that is champion already."""

    decision: PromotionDecision
    candidate: MeasuredBundle | None
    champion: MeasuredBundle | None


def hold_contest(
    operations: Operations,
    candidate: Candidate,
    measure: Measure,
    *,
    grounds: Grounds,
    config: PromotionConfig,
    folder: Path,
) -> Contest:
    """Measure candidate and champion alike, decide, record, and move the alias if the rule says so.

    The model is locked from reading the champion to moving the alias: of two runs that finish together one waits, and
    then compares with what the other left. measure must do the same to either bundle. folder: where the champion's
    bundle is put. A champion that cannot be fetched or measured is kept; an error of the candidate's own is raised.
    Raises ConfigError for a version that is not registered any more.
    """
    with operations.exclusive(candidate.model):
        if not operations.registry.has_version(candidate.model, candidate.version):
            raise ConfigError(
                f"version {candidate.version} of '{candidate.model}' was deleted after it was registered: give the step "
                "register_bundle 'enable_cache: false' below 'steps' in the configuration, and run again"
            )
        operations.reconcile(candidate.model)
        contest = _contest(operations, candidate, measure, grounds, config, folder)
        operations.record(candidate.model, contest.decision)
        if contest.decision.promoted:
            operations.move_champion(
                candidate.model,
                candidate.version,
                reason="; ".join(contest.decision.reasons),
                decision=contest.decision,
            )
    return contest


def _contest(
    operations: Operations,
    candidate: Candidate,
    measure: Measure,
    grounds: Grounds,
    config: PromotionConfig,
    folder: Path,
) -> Contest:
    standing = operations.standing(candidate.model)
    if standing.version == candidate.version:
        same = Contender(candidate.version, None)
        return Contest(decide(same, same, None, grounds=grounds, config=config), None, None)
    ours = measure(candidate.bundle)
    champion, theirs = _champion(operations.registry, candidate.model, standing, measure, folder)
    decision = decide(
        Contender(
            candidate.version, ours.measurement, rollback=operations.rollback_of(candidate.model, candidate.version)
        ),
        champion,
        None if theirs is None else compare_bundles(ours, theirs),
        grounds=grounds,
        config=config,
    )
    return Contest(decision, ours, theirs)


def _champion(
    registry: Registry, model: str, standing: Standing, measure: Measure, folder: Path
) -> tuple[Contender | None, MeasuredBundle | None]:
    """The champion and its measurement; None only if there never was one."""
    if standing.version is None:
        return (Contender("", None, standing.fault) if standing.fault else None), None
    try:
        measured = measure(registry.download_bundle(model, standing.version, folder / f"version-{standing.version}"))
    except FinderError as error:
        return Contender(standing.version, None, str(error)), None
    return Contender(standing.version, measured.measurement), measured
