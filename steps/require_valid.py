"""Step: the data gate."""

from zenml import step

from components.records.data import ValidationReport
from components.validation import expectations
from steps._cache import CODE_AWARE


@step(cache_policy=CODE_AWARE)
def require_valid(report: ValidationReport) -> None:
    """Stop the run with the numbers when too much was quarantined or a table expectation failed."""
    expectations.require_valid(report)
