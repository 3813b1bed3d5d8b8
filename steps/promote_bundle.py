"""Step: whether the new version becomes champion."""

from functools import partial
from typing import Annotated

import pandas as pd
from zenml import log_metadata, step

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import EvaluationConfig, RegistryConfig
from image_finder.components.evaluation.bundle_recall import measure_bundle
from image_finder.components.metrics.comparison import StoredMeasurement
from image_finder.components.records.base import PartName
from image_finder.components.records.data import DatasetManifest, ValidationReport
from image_finder.components.records.export import ParityReport
from image_finder.components.records.promotion import PromotionDecision
from image_finder.components.records.retrieval import EvaluatedOn
from image_finder.model_registry import tracking
from image_finder.model_registry.aliases import Operations
from image_finder.model_registry.decision import Candidate, hold_contest
from image_finder.model_registry.registry import RegisteredVersion
from image_finder.model_registry.rule import Grounds
from image_finder.steps._cache import code_hash
from image_finder.steps._tables import with_images
from image_finder.steps._workspace import home, scratch_dir


@step(enable_cache=False, experiment_tracker=True)
def promote_bundle(
    registered: RegisteredVersion,
    bundle: Bundle,
    validated: ValidationReport,
    parity: ParityReport,
    val_captions: pd.DataFrame,
    test_captions: pd.DataFrame,
    images: pd.DataFrame,
    manifest: DatasetManifest,
    evaluation: EvaluationConfig,
    config: RegistryConfig,
) -> Annotated[PromotionDecision, "promotion_decision"]:
    """Measure candidate and champion on test, or on val without one, and move the alias when every check passes.

    Never cached: the registry may have changed.
    """
    split: PartName = "test" if len(test_captions) else "val"
    captions = test_captions if split == "test" else val_captions
    measure = partial(
        measure_bundle,
        data=with_images(captions, images, manifest),
        config=evaluation,
        identity=EvaluatedOn(dataset=manifest.name, data_version=manifest.version, split=split),
        code_sha256=code_hash(),
    )
    contest = hold_contest(
        Operations.of_step(home=home()),
        Candidate(registered.name, registered.version, bundle),
        measure,
        grounds=Grounds(validated, parity),
        config=config.promotion,
        folder=scratch_dir(),
    )
    measured = None if contest.candidate is None else StoredMeasurement.of(contest.candidate)
    tracking.log_promotion(contest.decision, measured, version_run=registered.run_id)
    if contest.champion is not None:
        tracking.log_record(contest.champion.measurement, f"reports/champion_{split}.json")
    log_metadata({"promoted": contest.decision.promoted, "reasons": " | ".join(contest.decision.reasons)})
    return contest.decision
