"""Steps of the data: read, validate and split captioned images."""

from typing import Annotated

import pandas as pd
from zenml import log_metadata, step
from zenml.client import Client

from image_finder.components.captions import splits
from image_finder.components.captions.tokens import Tokenizer
from image_finder.components.configs import (
    DatasetConfig,
    PartConfig,
    SplitConfig,
    TextTowerConfig,
    ValidationConfig,
)
from image_finder.components.demo.data_set import compose_demo
from image_finder.components.encoders.weights import load_tokenizer_json
from image_finder.components.records.data import DatasetManifest, ValidationReport
from image_finder.components.validation.check import IngestedData, ingest, validate
from image_finder.components.validation.expectations import valid_captions
from image_finder.components.validation.report_page import report_html
from image_finder.model_registry import data_sets, tracking
from image_finder.steps._cache import CODE_AWARE
from image_finder.steps._workspace import cache_dir
from image_finder.steps.materializers import load_artifact


@step(cache_policy=CODE_AWARE)
def ingest_captions(
    dataset: DatasetConfig, extra_sets: dict[str, PartConfig], data_fingerprint: str
) -> tuple[
    Annotated[pd.DataFrame, "captions"],
    Annotated[pd.DataFrame, "images"],
    Annotated[DatasetManifest, "dataset_manifest"],
]:
    """Read captions, those of extra evaluation sets included, inspect every image once, and derive the data version.

    extra_sets: by name, without floors, so that another floor reads nothing again.
    data_fingerprint is only part of the cache key, so that changed files are read again.
    """
    if dataset.layout == "demo" and dataset.root is not None:
        compose_demo(dataset.root, n_images=dataset.demo_images, seed=dataset.demo_seed)
    folder = cache_dir() / "images"
    captions, images, manifest = ingest(
        dataset,
        dataset.root or folder,
        extra_sets=extra_sets,
        cache_path=folder / f"{dataset.name}.parquet",
    )
    log_metadata({"data_version": manifest.version, "images": manifest.n_images, "captions": manifest.n_captions})
    return captions, images, manifest


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


@step(cache_policy=CODE_AWARE)
def split_captions(
    captions: pd.DataFrame,
    images: pd.DataFrame,
    manifest: DatasetManifest,
    report: ValidationReport,
    config: SplitConfig,
) -> tuple[
    Annotated[pd.DataFrame, "train_captions"],
    Annotated[pd.DataFrame, "val_captions"],
    Annotated[pd.DataFrame, "test_captions"],
    Annotated[pd.DataFrame, "extra_captions"],
]:
    """Split by image, never by caption; quarantined captions are left out, extra evaluation sets kept apart."""
    main, extra = splits.extra_sets_apart(valid_captions(captions, report), manifest.extra_sets)
    train, val, test = splits.split_captions(main, config, images)
    counts = {"train": train, "val": val, "test": test, **dict(iter(extra.groupby("part", sort=False)))}
    log_metadata({str(name): len(table) for name, table in counts.items()})
    return train, val, test, extra


@step(enable_cache=False, experiment_tracker=True)
def log_data_sets(
    dataset: DatasetConfig,
    manifest: DatasetManifest,
    train: pd.DataFrame,
    val: pd.DataFrame,
    test: pd.DataFrame,
    extra: pd.DataFrame,
) -> None:
    """List the parts as inputs of the MLflow run. Not cached, because every run has its own list."""
    tracking.log_data(manifest)
    sets = {str(name): table for name, table in extra.groupby("part", sort=False)}
    parts = {"train": train, "val": val, "test": test, **sets}
    data_sets.log_data_sets(manifest, parts, origin=dataset)
