"""Step: whether the new version becomes champion."""

from typing import Annotated

from zenml import log_metadata, step

from components.configs import RegistryConfig
from components.records import PromotionDecision, RetrievalReport
from model_registry import tracking
from model_registry.mlflow_registry import RegisteredVersion, Registry
from model_registry.promotion import decide


@step(enable_cache=False, experiment_tracker=True)
def promote_bundle(
    registered: RegisteredVersion, report: RetrievalReport, config: RegistryConfig
) -> Annotated[PromotionDecision, "promotion_decision"]:
    """Compare with the champion and move the alias when the rule says so. Never cached: the registry may have changed."""
    registry = Registry.of_step()
    champion = registry.champion_version(config.model_name)
    decision = decide(
        report,
        registry.report_of(config.model_name, champion) if champion else None,
        min_gain=config.min_gain,
        candidate_version=registered.version,
        champion_version=champion,
    )
    if decision.promoted:
        registry.set_champion(config.model_name, registered.version)
    tracking.log_record(decision, "reports/promotion.json")
    log_metadata({"promoted": decision.promoted, "reasons": " | ".join(decision.reasons)})
    return decision
