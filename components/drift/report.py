"""Drift report: its rows, their wording, and the gate; knows nothing of how they are measured."""

from typing import ClassVar, Literal

from image_finder.components.configs import DriftConfig
from image_finder.components.errors import QualityError
from image_finder.components.records.base import Record
from image_finder.components.text import counted


class DriftRow(Record):
    """One distance; above threshold, the larger of limit and chance, it counts as drift. None: not measured."""

    former_names: ClassVar = {"what": "name"}

    name: str
    unit: str
    measured: float | None = None
    threshold: float | None = None
    limit: float  # of the configuration: smaller differences do not matter
    chance: float | None = None  # random divisions exceed it no more often than the configuration allows
    p_value: float | None = None
    drifted: bool = False
    detail: str


class DriftOrigin(Record):
    former_names: ClassVar = {"n_pictures": "n_images"}

    model: str
    version: str
    dataset: str
    data_version: str
    bundle_sha256: str
    n_images: int  # training images
    n_compared: int  # training images in the reference


class DriftReport(Record):
    """All rows, with their denominators.

    reference: None if there was nothing to compare with; note gives the reason.
    """

    former_names: ClassVar = {"n_pictures": "n_images"}

    reference: DriftOrigin | None
    dataset: str
    data_version: str  # "" if only a sample was read
    images: Literal["all", "new"]
    n_images: int
    n_compared: int
    n_known: int  # compared images that the model was trained on
    n_unreadable: int  # drawn images that could not be read
    rows: tuple[DriftRow, ...]
    note: str = ""
    permutations: int
    false_alarm_rate: float
    seed: int

    @property
    def drifted(self) -> tuple[str, ...]:
        return tuple(row.name for row in self.rows if row.drifted)


def require_no_drift(report: DriftReport, config: DriftConfig) -> None:
    """Raise QualityError with the measured values if a row drifted and the trigger is `fail`."""
    if config.trigger != "fail" or not report.drifted:
        return
    rows = "; ".join(row_text(row) for row in report.rows if row.drifted)
    raise QualityError(
        f"{report.dataset or 'the search log'} drifted from the champion's training data: {rows}; see the report, then "
        "repair the data, or accept the drift with drift.trigger=warn"
    )


def verdict(report: DriftReport) -> str:
    n_measured = sum(row.measured is not None for row in report.rows)
    if report.drifted:
        return f"drifted: {', '.join(report.drifted)}"
    if not n_measured:
        return f"nothing was compared{f': {report.note}' if report.note else ''}"
    return f"no drift in {n_measured} of {counted(len(report.rows), 'row')}"


def row_text(row: DriftRow) -> str:
    if row.measured is None or row.threshold is None:
        return f"{row.name} not measured ({row.detail})"
    return f"{row.name} {row.measured:.3g} ({row.unit}), threshold {row.threshold:.3g} ({row.detail})"


def compared_text(report: DriftReport) -> str:
    if report.reference is None:
        return report.note
    origin = report.reference
    known = f", {report.n_known:,} of them training images" if report.n_known else ""
    broken = f" {counted(report.n_unreadable, 'drawn image')} could not be read." if report.n_unreadable else ""
    note = f" {report.note}" if report.note else ""
    return (
        f"{report.n_compared:,} of {counted(report.n_images, 'image')}{known}, compared with {origin.n_compared:,} of the "
        f"{counted(origin.n_images, 'training image')} of {origin.model} version {origin.version} ({origin.dataset}, data "
        f"version {origin.data_version}).{broken}{note}"
    )
