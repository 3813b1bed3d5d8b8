"""Promotion page: one decision as HTML, with checks, measurements, origin of both versions, and how to undo it."""

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from image_finder.components.errors import FinderError
from image_finder.components.html_report import render_report
from image_finder.components.metrics.comparison import MeasuredBundle
from image_finder.components.records.export import BundleMeasurement
from image_finder.components.records.promotion import PromotionDecision
from image_finder.components.records.retrieval import DirectionReport
from image_finder.model_registry import names
from image_finder.model_registry.ledger.entries import LedgerEntry
from image_finder.model_registry.registry import RegisteredVersion, Registry

logger = logging.getLogger(__name__)

_ORIGIN = (
    *(names.DATASET, names.DATA_VERSION, names.CODE_VERSION, names.CODE_SHA256, names.CONFIG_SHA256),
    *(names.ENVIRONMENT_SHA256, names.BUNDLE_SHA256, names.HARDWARE, names.SEEDS, names.RUN_NAME),
)
_HASH = 64  # characters; shown shortened

Rows = list[tuple[str, list[str]]]


class Table(NamedTuple):
    heading: str
    head: list[str]
    rows: Rows


class Sides(NamedTuple):
    """Measurements of both versions; None if missing."""

    challenger: BundleMeasurement | None = None
    champion: BundleMeasurement | None = None

    @classmethod
    def of(cls, challenger: MeasuredBundle | None, champion: MeasuredBundle | None) -> "Sides":
        return cls(*(each.measurement if each else None for each in (challenger, champion)))


def promotion_page(
    decision: PromotionDecision,
    *,
    entry: LedgerEntry | None = None,
    versions: Sequence[RegisteredVersion] = (),
    sides: Sides = Sides(),  # noqa: B008 - immutable
) -> str:
    """A page without scripts that loads nothing.

    entry: of the ledger, names who decided; versions: challenger and champion, for their origin.
    """
    checks = sorted(decision.checks, key=lambda check: check.passed)
    return render_report(
        "promotion.html",
        title=f"{f'{entry.model} version' if entry else 'Version'} {decision.challenger_version}: promotion",
        verdict=_verdict(decision),
        decision=decision,
        decided=f"{entry.actor}, {entry.at[:19].replace('T', ' ')} UTC, ledger entry {entry.n}" if entry else "",
        checks=checks,
        n_failed=sum(not check.passed for check in checks),
        tables=list(_tables(decision, versions, sides)),
        undo=_undo(decision),
    )


def store_page(
    registry: Registry,
    decision: PromotionDecision,
    entry: LedgerEntry,
    *,
    sides: Sides = Sides(),  # noqa: B008
) -> None:
    """Store the page in the run of the version that the decision is about.

    A page that cannot be stored is logged: the ledger has the decision, which a full artefact store must not undo.
    """
    numbers = [number for number in (decision.challenger_version, decision.champion_version) if number]
    try:
        versions = [
            registry.version(entry.model, number) for number in numbers if registry.has_version(entry.model, number)
        ]
        page = promotion_page(decision, entry=entry, versions=versions, sides=sides)
        registry.store_text(entry.model, decision.challenger_version, page, names.PROMOTION_ARTIFACT)
    except FinderError as error:
        logger.warning("the page of ledger entry %d was not stored: %s", entry.n, error)


def _verdict(decision: PromotionDecision) -> str:
    over = f" over version {decision.champion_version}" if decision.champion_version else ", the first champion"
    if decision.promoted:
        return f"Promoted{' by force' if decision.forced else ''}{over}"
    if decision.challenger_version == decision.champion_version:
        return "Stays champion"
    return f"Not promoted; version {decision.champion_version or 'none'} stays champion"


def _undo(decision: PromotionDecision) -> tuple[str, str]:
    if decision.promoted and decision.champion_version:
        back = f"Version {decision.champion_version} and its index become current again with"
        return back, 'image-finder models rollback --reason "..."'
    if decision.promoted:
        return "It was the first champion. Another version replaces it with", _force("N")
    return "A person can overrule the rule with", _force(decision.challenger_version)


def _force(version: str) -> str:
    return f'image-finder models promote {version} --force --reason "..."'


def _tables(decision: PromotionDecision, versions: Sequence[RegisteredVersion], sides: Sides) -> Iterator[Table]:
    head = [f"challenger, version {decision.challenger_version}"]
    if decision.champion_version:
        head.append(f"champion, version {decision.champion_version}")
    yield Table("Measurements", [*head, "difference"], _measurement_rows(decision, sides))
    if versions:
        heads = [f"version {each.version}" for each in versions]
        yield Table("Data and code", heads, _origin_rows(versions))


def _measurement_rows(decision: PromotionDecision, sides: Sides) -> Rows:
    columns = 2 if decision.champion_version else 1
    interval = f" {decision.gain_interval.text('+.1f')}" if decision.gain_interval else ""
    gain = "" if decision.gain is None else f"{100 * decision.gain:+.1f} points{interval}"
    means = [decision.challenger_mean_recall, decision.champion_mean_recall][:columns]
    rows: Rows = [("mean recall, % (compared)", [*map(_percent, means), gain])]
    values = [dict(_values(side)) if side else {} for side in sides[:columns]]
    for name in values[0]:
        cells = [found.get(name) for found in values]
        rows.append((name, [*map(_number, cells), _difference(cells)]))
    return rows


def _values(measurement: BundleMeasurement) -> Iterator[tuple[str, float]]:
    for set_name, report in measurement.report.sets.items():
        yield f"mean recall on {set_name}, %", 100 * report.mean_recall
        yield from _recalls(f"text to image on {set_name}", report.text_to_image)
        yield from _recalls(f"image to text on {set_name}", report.image_to_text)
    yield "one text, ms", measurement.text_ms
    yield "one image, ms", measurement.image_ms
    yield "size, MB", measurement.bundle_mb


def _recalls(name: str, report: DirectionReport) -> Iterator[tuple[str, float]]:
    for k, recall in sorted(report.recall.items()):
        yield f"{name} R@{k}, %", 100 * recall


def _origin_rows(versions: Sequence[RegisteredVersion]) -> Rows:
    rows: Rows = [("registered (UTC)", [f"{each.created:%Y-%m-%d %H:%M}" for each in versions])]
    for name in _ORIGIN:
        found = [each.tags.get(name, "") for each in versions]
        shown = [value[:12] if len(value) == _HASH else value for value in found]
        rows.append((name.replace("_", " ").removesuffix(" sha256"), shown))
    return rows


def _percent(share: float | None) -> str:
    return "not measured" if share is None else f"{100 * share:.1f}"


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1f}"


def _difference(cells: Sequence[float | None]) -> str:
    if len(cells) < 2 or cells[0] is None or cells[1] is None:
        return ""
    return f"{round(cells[0] - cells[1], 1) + 0.0:+.1f}"  # + 0.0: no "-0.0"
