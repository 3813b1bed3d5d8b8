"""Steps of the model: features, training, recall. Its checkpoint is stored here because its class brings torch (3 s)."""

from pathlib import Path
from typing import Annotated, Any, ClassVar

import pandas as pd
from zenml import log_metadata, step

from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.configs import EmbeddingConfig, EvaluationConfig, ModelConfig, TrainingConfig
from image_finder.components.encoders.checkpoint import MANIFEST, Checkpoint
from image_finder.components.evaluation.evaluate import evaluate_checkpoint
from image_finder.components.records.calibration import ScoreCalibration
from image_finder.components.records.data import DatasetManifest
from image_finder.components.records.retrieval import EvaluatedOn, RetrievalReport
from image_finder.components.training import trainer
from image_finder.components.training.distributed.run import train_checkpoint
from image_finder.components.training.trainer import FeatureSettings, FeatureSummary, TrainingTask
from image_finder.model_registry import tracking
from image_finder.steps._cache import CODE_AWARE
from image_finder.steps._workspace import cache_dir, scratch_dir
from image_finder.steps.materializers import DirectoryMaterializer


@step(cache_policy=CODE_AWARE)
def extract_features(
    train_captions: pd.DataFrame,
    val_captions: pd.DataFrame,
    test_captions: pd.DataFrame,
    extra_captions: pd.DataFrame,
    images: pd.DataFrame,
    manifest: DatasetManifest,
    model: ModelConfig,
    embedding: EmbeddingConfig,
    augmented_views: int,
) -> Annotated[FeatureSummary, "features"]:
    """Compute features into the content cache; the artefact names the cache entries.

    augmented_views: number of views of each training image.
    """
    captions = [table for table in (train_captions, val_captions, test_captions, extra_captions) if len(table)]
    return trainer.extract_features(
        model,
        0,
        [CaptionedImages(table, images, Path(manifest.root)) for table in captions],
        FeatureSettings(cache_dir(), embedding, progress=True),
        augmented_views=augmented_views,
    )


class CheckpointMaterializer(DirectoryMaterializer):
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Checkpoint,)
    MANIFEST = MANIFEST


@step(cache_policy=CODE_AWARE, experiment_tracker=True, output_materializers=CheckpointMaterializer)
def train_dual_encoder(
    train_captions: pd.DataFrame,
    val_captions: pd.DataFrame,
    images: pd.DataFrame,
    manifest: DatasetManifest,
    features: FeatureSummary,
    model: ModelConfig,
    training: TrainingConfig,
    embedding: EmbeddingConfig,
) -> Annotated[Checkpoint, "checkpoint"]:
    """Train; a run that was killed resumes after its last finished epoch."""
    tracking.log_hardware()
    tracking.log_config(model=model, training=training)
    task = TrainingTask(
        CaptionedImages(train_captions, images, Path(manifest.root)),
        CaptionedImages(val_captions, images, Path(manifest.root)),
        (model, training),
        FeatureSettings(cache_dir(), embedding, progress=True),
        path=scratch_dir() / "checkpoint",
        dataset=(manifest.name, manifest.version),
    )
    checkpoint = train_checkpoint(task, on_epoch=tracking.log_epoch)
    log_metadata({"epoch": checkpoint.manifest.epoch, "features": features.image_cache})
    return checkpoint


@step(cache_policy=CODE_AWARE, experiment_tracker=True)
def evaluate_retrieval(
    checkpoint: Checkpoint,
    val_captions: pd.DataFrame,
    test_captions: pd.DataFrame,
    extra_captions: pd.DataFrame,
    images: pd.DataFrame,
    manifest: DatasetManifest,
    config: EvaluationConfig,
    embedding: EmbeddingConfig,
) -> tuple[Annotated[RetrievalReport, "retrieval_report"], Annotated[ScoreCalibration, "score_calibration"]]:
    """Measure recall and scores on test, else on val, and recall on each extra set; `require_quality` decides."""
    captions = test_captions if len(test_captions) else val_captions
    evaluated = evaluate_checkpoint(
        checkpoint,
        CaptionedImages(captions, images, Path(manifest.root)),
        config,
        settings=FeatureSettings(cache_dir(), embedding, progress=True),
        identity=EvaluatedOn(
            dataset=manifest.name, data_version=manifest.version, split="test" if len(test_captions) else "val"
        ),
        extra_sets=CaptionedImages(extra_captions, images, Path(manifest.root)).by_part(),
    )
    tracking.log_config(evaluation=config)
    tracking.log_retrieval(evaluated.report)
    tracking.log_scores(evaluated.scores)
    tracking.log_figures(evaluated.figures)
    log_metadata({"mean_recall": evaluated.report.mean_recall, "good_match": evaluated.scores.good_match})
    return evaluated.report, evaluated.scores
