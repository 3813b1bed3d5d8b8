"""Step: features of the frozen trunks into their caches."""

from typing import Annotated

import pandas as pd
from zenml import step

from image_finder.components.configs import EmbeddingConfig, ModelConfig
from image_finder.components.records.data import DatasetManifest
from image_finder.components.training import trainer
from image_finder.components.training.trainer import FeatureSummary
from image_finder.steps._cache import CODE_AWARE
from image_finder.steps._tables import feature_settings, with_images


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
    """Compute what never learns once; the arrays stay in the content cache, the artefact names them.

    augmented_views: number of views of each training image.
    """
    tables = [with_images(t, images, manifest) for t in (train_captions, val_captions, test_captions) if len(t)]
    return trainer.extract_features(model, 0, tables, feature_settings(embedding), augmented_views=augmented_views)
