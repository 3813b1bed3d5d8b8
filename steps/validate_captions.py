"""Step: validate captions and images."""

from typing import Annotated

import pandas as pd
from zenml import step
from zenml.client import Client

from image_finder.components.captions.tokens import Tokenizer
from image_finder.components.configs import TextTowerConfig, ValidationConfig
from image_finder.components.encoders.weights import load_tokenizer_json
from image_finder.components.records.data import DatasetManifest, ValidationReport
from image_finder.components.validation.check import IngestedData, validate
from image_finder.components.validation.report_page import report_html
from image_finder.model_registry import tracking
from image_finder.steps._cache import CODE_AWARE
from image_finder.steps.materializers import load_artifact

_MANIFESTS_SEARCHED = 20


@step(cache_policy=CODE_AWARE, experiment_tracker=True)
def validate_captions(
    captions: pd.DataFrame,
    images: pd.DataFrame,
    manifest: DatasetManifest,
    config: ValidationConfig,
    text: TextTowerConfig,
) -> Annotated[ValidationReport, "validation_report"]:
    """Check data against expectations and the last data version; `require_valid` decides."""
    tokenizer = Tokenizer(load_tokenizer_json(text), text.max_tokens)
    report = validate(IngestedData(captions, images, manifest), config, tokenizer, _previous_manifest(manifest))
    tracking.log_data(manifest)
    tracking.log_record(report, "reports/validation.json")
    tracking.log_page(report_html(report), "reports/validation.html")
    return report


def _previous_manifest(current: DatasetManifest) -> DatasetManifest | None:
    """The newest stored manifest of another version of this data set."""
    stored = Client().list_artifact_versions(
        artifact="dataset_manifest", sort_by="desc:created", size=_MANIFESTS_SEARCHED
    )
    manifests = (load_artifact(each, DatasetManifest) for each in stored.items)
    return next((each for each in manifests if each.name == current.name and each.version != current.version), None)
