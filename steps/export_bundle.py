"""Step: export a checkpoint as a bundle."""

from pathlib import Path
from typing import Annotated

import pandas as pd
from zenml import step

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.configs import ExportConfig
from image_finder.components.encoders.checkpoint import Checkpoint
from image_finder.components.export import exporter
from image_finder.components.records.calibration import ScoreCalibration
from image_finder.components.records.data import DatasetManifest
from image_finder.steps._cache import CODE_AWARE
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
    """Export towers to ONNX with tokenizer, preprocessing, calibration and vocabulary."""
    return exporter.export_bundle(
        checkpoint,
        scratch_dir() / "bundle",
        config,
        scores=scores,
        vocabulary=Vocabulary.of(train["caption"]),
        calibration=[CaptionedImages(val, images, Path(manifest.root))],
    )
