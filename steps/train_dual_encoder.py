"""Step: training."""

from typing import Annotated

import pandas as pd
from zenml import log_metadata, step

from image_finder.components.configs import EmbeddingConfig, ModelConfig, TrainingConfig
from image_finder.components.encoders.checkpoint import Checkpoint
from image_finder.components.records.data import DatasetManifest
from image_finder.components.training.distributed.run import train_checkpoint
from image_finder.components.training.trainer import FeatureSummary
from image_finder.model_registry import tracking
from image_finder.steps._cache import CODE_AWARE
from image_finder.steps._tables import feature_settings, with_images
from image_finder.steps._workspace import scratch_dir
from image_finder.steps.checkpoint_materializer import CheckpointMaterializer


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
    """Train the dual encoder; a run that was killed goes on after its last finished epoch."""
    tracking.log_data(manifest)
    tracking.log_hardware()
    tracking.log_config(model=model, training=training)
    checkpoint = train_checkpoint(
        with_images(train_captions, images, manifest),
        with_images(val_captions, images, manifest),
        (model, training),
        feature_settings(embedding),
        path=scratch_dir() / "checkpoint",
        dataset=(manifest.name, manifest.version),
        on_epoch=tracking.log_epoch,
    )
    log_metadata({"epoch": checkpoint.manifest.epoch, "features": features.image_cache})
    return checkpoint
