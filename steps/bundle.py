"""Steps of the bundle: export it, compare it with the checkpoint, register and promote it."""

from functools import partial
from pathlib import Path
from typing import Annotated

import pandas as pd
from zenml import log_metadata, step

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.configs import EvaluationConfig, ExportConfig, RegistryConfig, TrainingParameters
from image_finder.components.drift.reference import DriftReference
from image_finder.components.encoders.checkpoint import Checkpoint
from image_finder.components.evaluation.bundle_recall import measure_bundle
from image_finder.components.export import exporter, parity
from image_finder.components.metrics.comparison import StoredMeasurement, compare_bundles
from image_finder.components.records.base import PartName
from image_finder.components.records.calibration import ScoreCalibration
from image_finder.components.records.data import DatasetManifest, ValidationReport
from image_finder.components.records.export import ParityReport
from image_finder.components.records.promotion import PromotionDecision
from image_finder.components.records.retrieval import EvaluatedOn, RetrievalReport
from image_finder.model_registry import lineage, names, registration, tracking
from image_finder.model_registry.card import model_card
from image_finder.model_registry.code_hash import code_hash
from image_finder.model_registry.decision import Challenger, measure_and_decide
from image_finder.model_registry.evidence import Evidence
from image_finder.model_registry.promotion_page import Sides, store_page
from image_finder.model_registry.promotions import Promotions
from image_finder.model_registry.registry import RegisteredVersion, Registry
from image_finder.model_registry.rule import Reports
from image_finder.steps._cache import CODE_AWARE
from image_finder.steps._workspace import home, scratch_dir
from image_finder.steps.materializers import BundleMaterializer


@step(cache_policy=CODE_AWARE, output_materializers=BundleMaterializer)
def export_bundle(
    checkpoint: Checkpoint,
    scores: ScoreCalibration,
    train: pd.DataFrame,
    val: pd.DataFrame,
    images: pd.DataFrame,
    manifest: DatasetManifest,
    config: ExportConfig,
) -> Annotated[Bundle, "bundle"]:
    """Export towers to ONNX with tokenizer, preprocessing, calibration and vocabulary."""
    return exporter.export_bundle(
        checkpoint,
        scratch_dir() / "bundle",
        config,
        scores=scores,
        vocabulary=Vocabulary.of(train["caption"]),
        calibration=[CaptionedImages(val, images, Path(manifest.root))],
    )


@step(cache_policy=CODE_AWARE, experiment_tracker=True)
def measure_parity(
    checkpoint: Checkpoint,
    bundle: Bundle,
    val_captions: pd.DataFrame,
    images: pd.DataFrame,
    manifest: DatasetManifest,
    config: ExportConfig,
) -> Annotated[ParityReport, "parity_report"]:
    """Compare vectors of ONNX and torch on val images; `require_parity` decides."""
    report = parity.measure_parity(
        checkpoint, bundle, CaptionedImages(val_captions, images, Path(manifest.root)), config
    )
    tracking.log_config(export=config)
    tracking.log_record(report, "reports/parity.json")
    return report


@step(cache_policy=CODE_AWARE, experiment_tracker=True)
def register_bundle(
    bundle: Bundle,
    report: RetrievalReport,
    parity: ParityReport,
    validated: ValidationReport,
    manifest: DatasetManifest,
    reference: DriftReference,
    parameters: TrainingParameters,
    data_fingerprint: str,
) -> Annotated[RegisteredVersion, "registered_version"]:
    """Register the bundle with reports, card and lineage as a version, alias challenger."""
    registry, name = Registry.of_step(), parameters.registry.model_name
    origin = lineage.of_run(
        code_hash(),
        data_fingerprint=data_fingerprint,
        hardware=tracking.trained_on(),
        parent_champion=registry.champion_version(name),
        run_name=tracking.run_name(),
        **parameters.parts(),
    )
    evidence = Evidence(
        report=report,
        manifest=manifest,
        validation=validated,
        parity=parity,
        lineage=origin,
        drift_reference=reference.path,
    )
    scores = bundle.scores()
    assert isinstance(scores, ScoreCalibration), "measured, as of every bundle that was trained here"
    card = model_card(name, evidence, scores, model=parameters.model, training=parameters.training)
    tracking.log_record(parity, names.PARITY_ARTIFACT)  # an earlier run that was killed may have measured it
    registered = registration.register_bundle(registry, bundle, name, evidence, card=card)
    log_metadata({"model": registered.name, "version": registered.version})
    return registered


@step(enable_cache=False, experiment_tracker=True)
def promote_bundle(
    registered: RegisteredVersion,
    bundle: Bundle,
    validated: ValidationReport,
    parity: ParityReport,
    val_captions: pd.DataFrame,
    test_captions: pd.DataFrame,
    extra_captions: pd.DataFrame,
    images: pd.DataFrame,
    manifest: DatasetManifest,
    evaluation: EvaluationConfig,
    config: RegistryConfig,
) -> Annotated[PromotionDecision, "promotion_decision"]:
    """Measure challenger and champion on test (else val) and each extra set; promote if every check passes.

    The baseline is compared in the report. Not cached, because the champion may change.
    """
    split: PartName = "test" if len(test_captions) else "val"
    captions = test_captions if split == "test" else val_captions
    measure = partial(
        measure_bundle,
        data=CaptionedImages(captions, images, Path(manifest.root)),
        config=evaluation,
        identity=EvaluatedOn(dataset=manifest.name, data_version=manifest.version, split=split),
        code_sha256=code_hash(),
        extra_sets=CaptionedImages(extra_captions, images, Path(manifest.root)).by_part(),
    )
    made = measure_and_decide(
        Promotions.of_step(home=home()),
        Challenger(registered.name, registered.version, bundle),
        measure,
        reports=Reports(validated, parity),
        config=config.promotion,
        folder=scratch_dir(),
        extra_sets=evaluation.extra_sets,
    )
    measured = None if made.challenger is None else StoredMeasurement.of(made.challenger)
    tracking.log_promotion(made.decision, measured, version_run=registered.run_id)
    sides = Sides.of(made.challenger, made.champion)
    store_page(Registry.of_step(), made.decision, made.entry, sides=sides)
    if made.champion is not None:
        tracking.log_record(made.champion.measurement, f"reports/champion_{split}.json")
    if config.baseline is not None:
        baseline = measure(Bundle.open(config.baseline))
        tracking.log_baseline(baseline, compare_bundles(made.challenger or measure(bundle), baseline))
    log_metadata({"promoted": made.decision.promoted, "reasons": " | ".join(made.decision.reasons)})
    return made.decision
