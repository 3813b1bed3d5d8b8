"""Steps of drift: measure it against the champion's training data, and make a version's own reference."""

import logging
from pathlib import Path
from typing import Annotated

import pandas as pd
from zenml import log_metadata, step

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import DriftConfig, EmbeddingConfig, RegistryConfig
from image_finder.components.drift.drift import ComparedSample, report_drift
from image_finder.components.drift.reference import DriftReference, TrainedOn, write_reference
from image_finder.components.drift.report import DriftReport, verdict
from image_finder.components.drift.report_page import drift_figure, report_html
from image_finder.components.drift.sample import Sampler, captioned_files
from image_finder.components.drift.search_log import SearchLog, find_logs, read_log
from image_finder.components.errors import FinderError
from image_finder.components.records.data import DatasetManifest
from image_finder.model_registry import names, tracking
from image_finder.model_registry.champion_drift import ComparedData, compare
from image_finder.model_registry.registry import Registry
from image_finder.steps._cache import CODE_AWARE
from image_finder.steps._workspace import cache_dir, scratch_dir
from image_finder.steps.materializers import DriftReferenceMaterializer

logger = logging.getLogger(__name__)


@step(enable_cache=False, experiment_tracker=True)
def measure_drift(
    train_captions: pd.DataFrame,
    manifest: DatasetManifest,
    config: DriftConfig,
    registry: RegistryConfig,
    embedding: EmbeddingConfig,
) -> Annotated[DriftReport, "drift_report"]:
    """Compare the data with the champion's reference; `require_no_drift` decides.

    Not cached, because the champion and the search logs change. A comparison that is not possible becomes a note in the
    report, not an error: a deleted champion must not prevent training its successor.
    """
    notes: list[str] = []
    compared: ComparedSample | None = None
    log: SearchLog | None = None
    if config.trigger == "off":
        notes.append("drift.trigger is off")
    else:
        data = ComparedData(manifest.name, manifest.version, captioned_files(train_captions, Path(manifest.root)))
        try:
            compared = compare(
                Registry.of_step(),
                (registry.model_name, names.CHAMPION),
                data,
                config,
                embedding=embedding,
                cache_dir=cache_dir(),
                folder=scratch_dir(),
            )
        except FinderError as error:
            notes.append(f"images and captions were not compared: {error}")
        try:
            log = read_log(find_logs(config.logs)) if config.logs else None
        except FinderError as error:
            notes.append(f"searches were not compared: {error}")
    report = report_drift(compared, log, config, note="; ".join(notes))
    figure = drift_figure(compared) if compared else None
    tracking.log_config(drift=config)
    tracking.log_drift(report)
    tracking.log_page(report_html(report, figure), "reports/drift.html")
    if figure is not None:
        tracking.log_figures({"drift": figure})
    logger.log(logging.WARNING if report.drifted else logging.INFO, "drift: %s", verdict(report))
    log_metadata({"rows_drifted": len(report.drifted), "verdict": verdict(report)})
    return report


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
