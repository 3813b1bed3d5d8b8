"""Step: compute the features of the frozen trunks."""

from pathlib import Path
from typing import Annotated

import pandas as pd
from zenml import step

from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.configs import EmbeddingConfig, ModelConfig
from image_finder.components.records.data import DatasetManifest
from image_finder.components.training import trainer
from image_finder.components.training.trainer import FeatureSettings, FeatureSummary
from image_finder.steps._cache import CODE_AWARE
from image_finder.steps._workspace import cache_dir


@step(cache_policy=CODE_AWARE)
def extract_features(
    train_captions: pd.DataFrame,
    val_captions: pd.DataFrame,
    test_captions: pd.DataFrame,
    images: pd.DataFrame,
    manifest: DatasetManifest,
    model: ModelConfig,
    embedding: EmbeddingConfig,
    augmented_views: int,
) -> Annotated[FeatureSummary, "features"]:
    """Compute features into the content cache; the artefact names the cache entries.

    augmented_views: number of views of each training image.
    """
    captions = [table for table in (train_captions, val_captions, test_captions) if len(table)]
    return trainer.extract_features(
        model,
        0,
        [CaptionedImages(table, images, Path(manifest.root)) for table in captions],
        FeatureSettings(cache_dir(), embedding, progress=True),
        augmented_views=augmented_views,
    )
