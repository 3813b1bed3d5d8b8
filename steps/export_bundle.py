"""Step: a checkpoint to a bundle."""

from typing import Annotated

from zenml import step

from components.bundle import Bundle
from components.configs import ExportConfig
from components.encoders.checkpoint import Checkpoint
from components.export import exporter
from steps._cache import CODE_AWARE
from steps._workspace import scratch_dir
from steps.materializers import BundleMaterializer


@step(cache_policy=CODE_AWARE, output_materializers=BundleMaterializer)
def export_bundle(checkpoint: Checkpoint, config: ExportConfig) -> Annotated[Bundle, "bundle"]:
    """Export both towers to ONNX, with tokenizer and preprocessing."""
    return exporter.export_bundle(checkpoint, scratch_dir() / "bundle", config)
