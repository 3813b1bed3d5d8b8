"""Step: train a dual encoder; its checkpoint is stored here because its class brings torch (3 s to import)."""

from pathlib import Path
from typing import Annotated, Any, ClassVar

import pandas as pd
from zenml import log_metadata, step

from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.configs import EmbeddingConfig, ModelConfig, TrainingConfig
from image_finder.components.encoders.checkpoint import MANIFEST, Checkpoint
from image_finder.components.records.data import DatasetManifest
from image_finder.components.training.distributed.run import train_checkpoint
from image_finder.components.training.trainer import FeatureSettings, FeatureSummary
from image_finder.model_registry import tracking
from image_finder.steps._cache import CODE_AWARE
from image_finder.steps._workspace import cache_dir, scratch_dir
from image_finder.steps.materializers import DirectoryMaterializer


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
    tracking.log_data(manifest)
    tracking.log_hardware()
    tracking.log_config(model=model, training=training)
    checkpoint = train_checkpoint(
        CaptionedImages(train_captions, images, Path(manifest.root)),
        CaptionedImages(val_captions, images, Path(manifest.root)),
        (model, training),
        FeatureSettings(cache_dir(), embedding, progress=True),
        path=scratch_dir() / "checkpoint",
        dataset=(manifest.name, manifest.version),
        on_epoch=tracking.log_epoch,
    )
    log_metadata({"epoch": checkpoint.manifest.epoch, "features": features.image_cache})
    return checkpoint
