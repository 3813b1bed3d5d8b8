"""Step: the drift gate."""

from zenml import step

from image_finder.components.configs import DriftConfig
from image_finder.components.drift import report as drift_report
from image_finder.components.drift.report import DriftReport
from image_finder.steps._cache import CODE_AWARE


@step(cache_policy=CODE_AWARE)
def require_no_drift(report: DriftReport, config: DriftConfig) -> None:
    """Stop the run with the rows that drifted when the trigger is `fail`; otherwise let it pass."""
    drift_report.require_no_drift(report, config)
