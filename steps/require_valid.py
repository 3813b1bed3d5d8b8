"""Step: the data gate."""

from zenml import step

from image_finder.components.records.data import ValidationReport
from image_finder.components.validation import expectations
from image_finder.steps._cache import CODE_AWARE


@step(cache_policy=CODE_AWARE)
def require_valid(report: ValidationReport) -> None:
    """Stop the run with the numbers when too much was quarantined or a table expectation failed."""
    expectations.require_valid(report)
