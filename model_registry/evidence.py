"""Evidence: what is known of a bundle when it is registered. Its model card describes it; the version keeps it."""

from pathlib import Path

from image_finder.components.records.base import Record
from image_finder.components.records.data import DatasetManifest, ValidationReport
from image_finder.components.records.export import ParityReport
from image_finder.components.records.retrieval import RetrievalReport
from image_finder.model_registry.lineage import Lineage


class Evidence(Record):
    report: RetrievalReport
    manifest: DatasetManifest
    validation: ValidationReport
    parity: ParityReport
    lineage: Lineage
    drift_reference: Path | None = None  # a directory
