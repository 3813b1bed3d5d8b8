"""Step: the recall gate."""

from zenml import step

from components.configs import EvaluationConfig
from components.metrics import retrieval
from components.records.retrieval import RetrievalReport
from steps._cache import CODE_AWARE


@step(cache_policy=CODE_AWARE)
def require_quality(report: RetrievalReport, config: EvaluationConfig) -> None:
    """Stop the run with the measured recall when it is below its floors."""
    retrieval.require_quality(report, config)
