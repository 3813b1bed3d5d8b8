"""Check: reads, inspects and validates a data set; shared by training, `data check` and measurement."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from image_finder.components.captions.captions_table import NO_SETS, read_captions
from image_finder.components.captions.inspection import inspect_images
from image_finder.components.captions.manifest import build_manifest
from image_finder.components.captions.tokens import Tokenizer, packaged_tokenizer_json
from image_finder.components.configs import DatasetConfig, PartConfig, ValidationConfig
from image_finder.components.records.data import DatasetManifest, ValidationReport
from image_finder.components.validation.expectations import validate_captions

_MAX_TOKENS = 64  # of the packaged text tower; longer captions are counted in full


class IngestedData(NamedTuple):
    captions: pd.DataFrame
    images: pd.DataFrame
    manifest: DatasetManifest


def ingest(
    dataset: DatasetConfig,
    root: Path,
    *,
    extra_sets: Mapping[str, PartConfig] = NO_SETS,
    cache_path: Path | None = None,
) -> IngestedData:
    captions = read_captions(dataset, extra_sets)
    images = inspect_images(captions, root, cache_path=cache_path, progress=True)
    return IngestedData(captions, images, build_manifest(captions, images, dataset, extra_sets))


def validate(
    data: IngestedData, config: ValidationConfig, tokenizer: Tokenizer, previous: DatasetManifest | None = None
) -> ValidationReport:
    """Validate a data set, captions counted in tokens. previous: version to measure drift to."""
    counts = tokenizer.count(data.captions["caption"].tolist())
    return validate_captions(*data, config, token_counts=counts, previous=previous)


def check_folder(dataset: DatasetConfig, root: Path, config: ValidationConfig) -> tuple[IngestedData, ValidationReport]:
    data = ingest(dataset, root)
    return data, validate(data, config, Tokenizer(packaged_tokenizer_json(), _MAX_TOKENS))
