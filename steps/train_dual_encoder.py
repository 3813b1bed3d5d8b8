"""Step: training."""

from typing import Annotated

import pandas as pd
from zenml import log_metadata, step

from components.configs import EmbeddingConfig, ModelConfig, TrainingConfig
from components.encoders.checkpoint import Checkpoint
from components.records.data import DatasetManifest
from components.training.distributed.run import train_checkpoint
from components.training.trainer import FeatureSummary
from model_registry import tracking
from steps._cache import CODE_AWARE
from steps._tables import feature_settings, with_images
from steps._workspace import scratch_dir
from steps.checkpoint_materializer import CheckpointMaterializer


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
