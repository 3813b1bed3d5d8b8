"""Tables: what several steps unpack alike."""

from pathlib import Path

import pandas as pd

from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.configs import EmbeddingConfig
from image_finder.components.records.data import DatasetManifest
from image_finder.components.training.trainer import FeatureSettings
from image_finder.steps._workspace import cache_dir


def with_images(captions: pd.DataFrame, images: pd.DataFrame, manifest: DatasetManifest) -> CaptionedImages:
    """A captions table with its images."""
    return CaptionedImages(captions, images, Path(manifest.root))


def feature_settings(embedding: EmbeddingConfig) -> FeatureSettings:
    """Feature caches of the run's home, with progress bars."""
    return FeatureSettings(cache_dir(), embedding, progress=True)
