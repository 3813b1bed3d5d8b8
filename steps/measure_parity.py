"""Step: compare the exported bundle with the checkpoint."""

from pathlib import Path
from typing import Annotated

import pandas as pd
from zenml import step

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.configs import ExportConfig
from image_finder.components.encoders.checkpoint import Checkpoint
from image_finder.components.export import parity
from image_finder.components.records.data import DatasetManifest
from image_finder.components.records.export import ParityReport
from image_finder.model_registry import tracking
from image_finder.steps._cache import CODE_AWARE


@step(cache_policy=CODE_AWARE, experiment_tracker=True)
def measure_parity(
    checkpoint: Checkpoint,
    bundle: Bundle,
    val_captions: pd.DataFrame,
    images: pd.DataFrame,
    manifest: DatasetManifest,
    config: ExportConfig,
) -> Annotated[ParityReport, "parity_report"]:
    """Compare vectors of ONNX and torch on val images; `require_parity` decides."""
    report = parity.measure_parity(
        checkpoint, bundle, CaptionedImages(val_captions, images, Path(manifest.root)), config
    )
    tracking.log_config(export=config)
    tracking.log_record(report, "reports/parity.json")
    return report
