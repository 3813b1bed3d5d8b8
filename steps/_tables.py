"""Tables: what several steps unpack alike."""

from pathlib import Path

import pandas as pd

from components.configs import EmbeddingConfig
from components.records.data import DatasetManifest
from components.training.trainer import CaptionedPictures, FeatureSettings
from steps._workspace import cache_dir


def with_pictures(captions: pd.DataFrame, pictures: pd.DataFrame, manifest: DatasetManifest) -> CaptionedPictures:
    """A captions table with its pictures."""
    return CaptionedPictures(captions, pictures, Path(manifest.root))


def feature_settings(embedding: EmbeddingConfig) -> FeatureSettings:
    """Feature caches of the run's home, with progress bars."""
    return FeatureSettings(cache_dir(), embedding, progress=True)
