"""Step: summarise the training data as a drift reference."""

from pathlib import Path
from typing import Annotated

import pandas as pd
from zenml import log_metadata, step

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import DriftConfig, EmbeddingConfig
from image_finder.components.drift.captioned_files import captioned_files
from image_finder.components.drift.reference import DriftReference, TrainedOn, write_reference
from image_finder.components.drift.sample import Sampler
from image_finder.components.records.data import DatasetManifest
from image_finder.steps._cache import CODE_AWARE
from image_finder.steps._workspace import cache_dir, scratch_dir
from image_finder.steps.materializers import DriftReferenceMaterializer


@step(cache_policy=CODE_AWARE, output_materializers=DriftReferenceMaterializer)
def make_drift_reference(
    bundle: Bundle,
    train_captions: pd.DataFrame,
    images: pd.DataFrame,
    manifest: DatasetManifest,
    config: DriftConfig,
    embedding: EmbeddingConfig,
) -> Annotated[DriftReference, "drift_reference"]:
    """Sample training images and store their statistics and their vectors by this bundle."""
    files = captioned_files(train_captions, Path(manifest.root))
    in_training = images["file_name"].isin([file.name for file in files])
    reference = write_reference(
        scratch_dir() / "drift_reference",
        Sampler(bundle, config, embedding, cache_dir=cache_dir(), progress=True),
        TrainedOn(manifest.name, manifest.version, files, contents=images.loc[in_training, "sha256"].tolist()),
        images=config.reference_images,
        seed=config.seed,
    )
    log_metadata({"images": reference.manifest.n_images, "training": reference.manifest.n_training_images})
    return reference
