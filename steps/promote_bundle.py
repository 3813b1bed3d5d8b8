"""Step: whether the new version becomes champion."""

from typing import Annotated

import pandas as pd
from zenml import log_metadata, step

from components.configs import EvaluationConfig, RegistryConfig
from components.evaluation.bundle_recall import evaluate_bundle
from components.evaluation.retrieval import EvaluatedOn
from components.records import DatasetManifest, PromotionDecision, RetrievalReport
from model_registry import tracking
from model_registry.mlflow_registry import RegisteredVersion, Registry
from model_registry.promotion import comparable, decide
from steps._tables import with_pictures
from steps._workspace import scratch_dir


@step(enable_cache=False, experiment_tracker=True)
def promote_bundle(
    registered: RegisteredVersion,
    report: RetrievalReport,
    val_captions: pd.DataFrame,
    test_captions: pd.DataFrame,
    pictures: pd.DataFrame,
    manifest: DatasetManifest,
    evaluation: EvaluationConfig,
    config: RegistryConfig,
) -> Annotated[PromotionDecision, "promotion_decision"]:
    """Compare with the champion and move the alias when the rule says so. Never cached: the registry may have changed.

    A champion that was measured on other data is measured again, on the candidate's; one whose bundle this code cannot
    open could serve nothing and is not compared with.
    """
    registry = Registry.of_step()
    champion = registry.champion_version(config.model_name)
    readable = champion is not None and registry.is_readable(config.model_name, champion)
    theirs = registry.report_of(config.model_name, champion) if champion and readable else None
    if champion and theirs and not comparable(report, theirs):
        theirs = evaluate_bundle(
            registry.download_bundle(config.model_name, champion, scratch_dir() / "champion"),
            with_pictures(test_captions if report.split == "test" else val_captions, pictures, manifest),
            evaluation,
            identity=EvaluatedOn(dataset=manifest.name, data_version=manifest.version, split=report.split),
        )
        tracking.log_record(theirs, f"reports/champion_{report.split}.json")
    decision = decide(
        report,
        theirs,
        min_gain=config.min_gain,
        candidate_version=registered.version,
        champion_version=champion,
    )
    if decision.promoted:
        registry.set_champion(config.model_name, registered.version)
    tracking.log_record(decision, "reports/promotion.json")
    log_metadata({"promoted": decision.promoted, "reasons": " | ".join(decision.reasons)})
    return decision
