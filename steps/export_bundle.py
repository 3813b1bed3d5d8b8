"""Step: a checkpoint to a bundle."""

from typing import Annotated

import pandas as pd
from zenml import step

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.configs import ExportConfig
from image_finder.components.encoders.checkpoint import Checkpoint
from image_finder.components.export import exporter
from image_finder.components.records.calibration import ScoreCalibration
from image_finder.components.records.data import DatasetManifest
from image_finder.steps._cache import CODE_AWARE
from image_finder.steps._tables import with_images
from image_finder.steps._workspace import scratch_dir
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
    """Export both towers to ONNX, with tokenizer, preprocessing, what the scores mean and the words of the training."""
    return exporter.export_bundle(
        checkpoint,
        scratch_dir() / "bundle",
        config,
        scores=scores,
        vocabulary=Vocabulary.of(train["caption"]),
        calibration=[with_images(val, images, manifest)],
    )
