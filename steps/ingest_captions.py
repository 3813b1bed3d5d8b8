"""Step: read a data set into a captions table, an images table and a manifest."""

from typing import Annotated

import pandas as pd
from zenml import log_metadata, step

from image_finder.components.configs import DatasetConfig
from image_finder.components.demo.data_set import compose_demo
from image_finder.components.records.data import DatasetManifest
from image_finder.components.validation.check import ingest
from image_finder.steps._cache import CODE_AWARE
from image_finder.steps._workspace import cache_dir


@step(cache_policy=CODE_AWARE)
def ingest_captions(
    dataset: DatasetConfig, data_fingerprint: str
) -> tuple[
    Annotated[pd.DataFrame, "captions"],
    Annotated[pd.DataFrame, "images"],
    Annotated[DatasetManifest, "dataset_manifest"],
]:
    """Read captions, inspect every image once, and derive the data version.

    data_fingerprint is only part of the cache key, so that changed files are read again.
    """
    if dataset.layout == "demo" and dataset.root is not None:
        compose_demo(dataset.root, n_images=dataset.demo_images, seed=dataset.demo_seed)
    folder = cache_dir() / "images"
    captions, images, manifest = ingest(dataset, dataset.root or folder, cache_path=folder / f"{dataset.name}.parquet")
    log_metadata({"data_version": manifest.version, "images": manifest.n_images, "captions": manifest.n_captions})
    return captions, images, manifest
