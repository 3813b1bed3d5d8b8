"""Step: compare the new version with the champion and promote it if it is better."""

from functools import partial
from pathlib import Path
from typing import Annotated

import pandas as pd
from zenml import log_metadata, step

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.configs import EvaluationConfig, RegistryConfig
from image_finder.components.evaluation.bundle_recall import measure_bundle
from image_finder.components.metrics.comparison import StoredMeasurement
from image_finder.components.records.base import PartName
from image_finder.components.records.data import DatasetManifest, ValidationReport
from image_finder.components.records.export import ParityReport
from image_finder.components.records.promotion import PromotionDecision
from image_finder.components.records.retrieval import EvaluatedOn
from image_finder.model_registry import tracking
from image_finder.model_registry.decision import Challenger, measure_and_decide
from image_finder.model_registry.promotions import Promotions
from image_finder.model_registry.registry import RegisteredVersion
from image_finder.model_registry.rule import Reports
from image_finder.steps._cache import code_hash
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
    """Measure challenger and champion on test, else on val; promote if every check passes.

    Not cached, because the champion may change.
    """
    split: PartName = "test" if len(test_captions) else "val"
    captions = test_captions if split == "test" else val_captions
    measure = partial(
        measure_bundle,
        data=CaptionedImages(captions, images, Path(manifest.root)),
        config=evaluation,
        identity=EvaluatedOn(dataset=manifest.name, data_version=manifest.version, split=split),
        code_sha256=code_hash(),
    )
    made = measure_and_decide(
        Promotions.of_step(home=home()),
        Challenger(registered.name, registered.version, bundle),
        measure,
        reports=Reports(validated, parity),
        config=config.promotion,
        folder=scratch_dir(),
    )
    measured = None if made.challenger is None else StoredMeasurement.of(made.challenger)
    tracking.log_promotion(made.decision, measured, version_run=registered.run_id)
    if made.champion is not None:
        tracking.log_record(made.champion.measurement, f"reports/champion_{split}.json")
    log_metadata({"promoted": made.decision.promoted, "reasons": " | ".join(made.decision.reasons)})
    return made.decision
