"""Step: the parity gate."""

from zenml import step

from image_finder.components.export import parity
from image_finder.components.records.export import ParityReport
from image_finder.steps._cache import CODE_AWARE


@step(cache_policy=CODE_AWARE)
def require_parity(report: ParityReport) -> None:
    """Stop the run with the measured differences when the export is not the model that was trained."""
    parity.require_parity(report)
