"""Step: the drift gate."""

from zenml import step

from components.configs import DriftConfig
from components.drift import report as drift_report
from components.drift.report import DriftReport
from steps._cache import CODE_AWARE


@step(cache_policy=CODE_AWARE)
def require_no_drift(report: DriftReport, config: DriftConfig) -> None:
    """Stop the run with the rows that drifted when the trigger is `fail`; otherwise let it pass."""
    drift_report.require_no_drift(report, config)
