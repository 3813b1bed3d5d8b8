"""Step: captions and images to a validation report."""

from typing import Annotated

import pandas as pd
from zenml import step

from image_finder.components.captions.tokens import Tokenizer
from image_finder.components.configs import TextTowerConfig, ValidationConfig
from image_finder.components.encoders.weights import load_tokenizer_json
from image_finder.components.records.data import DatasetManifest, ValidationReport
from image_finder.components.validation.check import IngestedData, validate
from image_finder.components.validation.report_page import report_html
from image_finder.model_registry import tracking
from image_finder.steps._cache import CODE_AWARE
from image_finder.steps._previous import previous_manifest


@step(cache_policy=CODE_AWARE, experiment_tracker=True)
def validate_captions(
    captions: pd.DataFrame,
    images: pd.DataFrame,
    manifest: DatasetManifest,
    config: ValidationConfig,
    text: TextTowerConfig,
) -> Annotated[ValidationReport, "validation_report"]:
    """Hold the data against the expectations and against the previous version; a gate of its own decides."""
    tokenizer = Tokenizer(load_tokenizer_json(text), text.max_tokens)
    report = validate(IngestedData(captions, images, manifest), config, tokenizer, previous_manifest(manifest))
    tracking.log_data(manifest)
    tracking.log_record(report, "reports/validation.json")
    tracking.log_page(report_html(report), "reports/validation.html")
    return report
