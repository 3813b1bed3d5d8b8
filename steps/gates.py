"""Gates: steps that stop a run whose measurements miss their limits. Each follows the step that measured."""

from zenml import step

from image_finder.components.configs import DriftConfig, EvaluationConfig
from image_finder.components.drift import report as drift_report
from image_finder.components.drift.report import DriftReport
from image_finder.components.export import parity
from image_finder.components.metrics import recall
from image_finder.components.records.data import ValidationReport
from image_finder.components.records.export import ParityReport
from image_finder.components.records.retrieval import RetrievalReport
from image_finder.components.validation import expectations
from image_finder.steps._cache import CODE_AWARE


@step(cache_policy=CODE_AWARE)
def require_valid(report: ValidationReport) -> None:
    expectations.require_valid(report)


@step(cache_policy=CODE_AWARE)
def require_no_drift(report: DriftReport, config: DriftConfig) -> None:
    drift_report.require_no_drift(report, config)


@step(cache_policy=CODE_AWARE)
def require_quality(report: RetrievalReport, config: EvaluationConfig) -> None:
    recall.require_quality(report, config)


@step(cache_policy=CODE_AWARE)
def require_parity(report: ParityReport) -> None:
    parity.require_parity(report)
