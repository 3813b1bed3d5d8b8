"""Drift report: the rows a comparison ends in, what they say in words, and the gate; knows nothing of how they are measured."""

from typing import ClassVar, Literal

from image_finder.components.configs import DriftConfig
from image_finder.components.errors import QualityError
from image_finder.components.records.base import Record


class DriftRow(Record):
    """One distance. It drifted if measured is above threshold, the larger of limit and chance; None: not measured."""

    what: str
    unit: str
    measured: float | None
    threshold: float | None
    limit: float  # of the config: what matters
    chance: float | None  # what random re-divisions exceed no more often than the config allows
    p_value: float | None
    drifted: bool
    detail: str


class DriftOrigin(Record):
    """What was compared with: the model and the images it was trained on."""

    former_names: ClassVar = {"n_pictures": "n_images"}

    model: str
    version: str
    dataset: str
    data_version: str
    bundle_sha256: str
    n_images: int  # trained on
    n_compared: int  # of them kept in the reference


class DriftReport(Record):
    """All rows, with their denominators. reference is None where there is nothing to compare with; note says why."""

    former_names: ClassVar = {"n_pictures": "n_images"}

    reference: DriftOrigin | None
    dataset: str
    data_version: str  # "" where only a sample was read
    images: Literal["all", "new"]
    n_images: int
    n_compared: int
    n_known: int  # of those compared, images that the model was trained on
    n_unreadable: int  # of those drawn
    rows: tuple[DriftRow, ...]
    note: str = ""
    permutations: int
    false_alarm_rate: float
    seed: int

    @property
    def drifted(self) -> tuple[str, ...]:
        """Names of the rows that drifted."""
        return tuple(row.what for row in self.rows if row.drifted)


def require_no_drift(report: DriftReport, config: DriftConfig) -> None:
    """Pass unless the trigger is `fail` and a row drifted; then raise QualityError with what was measured."""
    if config.trigger != "fail" or not report.drifted:
        return
    told = "; ".join(row_text(row) for row in report.rows if row.drifted)
    raise QualityError(
        f"{report.dataset or 'the search log'} drifted from what the champion was trained on: {told}; look at the "
        "report, then repair the data, or accept them with drift.trigger=warn"
    )


def verdict(report: DriftReport) -> str:
    """The outcome in one line."""
    measured = [row for row in report.rows if row.measured is not None]
    if report.drifted:
        return f"drifted: {', '.join(report.drifted)}"
    if not measured:
        return f"nothing was compared{f': {report.note}' if report.note else ''}"
    return f"no drift in {len(measured)} of {len(report.rows)} rows"


def row_text(row: DriftRow) -> str:
    """A row in a few words."""
    if row.measured is None or row.threshold is None:
        return f"{row.what} not measured ({row.detail})"
    return f"{row.what} {row.measured:.3g} {row.unit}, threshold {row.threshold:.3g} ({row.detail})"


def compared_text(report: DriftReport) -> str:
    """What was compared with what, in a sentence or two."""
    if report.reference is None:
        return report.note
    origin = report.reference
    known = f", {report.n_known:,} of them trained on" if report.n_known else ""
    broken = f" {report.n_unreadable:,} drawn images cannot be read." if report.n_unreadable else ""
    note = f" {report.note}" if report.note else ""
    return (
        f"{report.n_compared:,} of {report.n_images:,} images{known}, against {origin.n_compared:,} of the "
        f"{origin.n_images:,} that {origin.model} version {origin.version} was trained on ({origin.dataset}, data "
        f"version {origin.data_version}).{broken}{note}"
    )
