"""Step: the recall gate."""

from zenml import step

from image_finder.components.configs import EvaluationConfig
from image_finder.components.metrics import recall
from image_finder.components.records.retrieval import RetrievalReport
from image_finder.steps._cache import CODE_AWARE


@step(cache_policy=CODE_AWARE)
def require_quality(report: RetrievalReport, config: EvaluationConfig) -> None:
    """Stop the run with the measured recall when it is below its floors."""
    recall.require_quality(report, config)
