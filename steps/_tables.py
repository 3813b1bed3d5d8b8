"""Tables: what several steps unpack alike."""

from pathlib import Path

import pandas as pd

from components.configs import EmbeddingConfig
from components.records.data import DatasetManifest
from components.training.trainer import CaptionedImages, FeatureSettings
from steps._workspace import cache_dir


def with_images(captions: pd.DataFrame, images: pd.DataFrame, manifest: DatasetManifest) -> CaptionedImages:
    """A captions table with its images."""
    return CaptionedImages(captions, images, Path(manifest.root))


def feature_settings(embedding: EmbeddingConfig) -> FeatureSettings:
    """Feature caches of the run's home, with progress bars."""
    return FeatureSettings(cache_dir(), embedding, progress=True)
