"""Step: measure the recall of a checkpoint."""

from pathlib import Path
from typing import Annotated

import pandas as pd
from zenml import log_metadata, step

from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.configs import EmbeddingConfig, EvaluationConfig
from image_finder.components.encoders.checkpoint import Checkpoint
from image_finder.components.evaluation.evaluate import evaluate_checkpoint
from image_finder.components.records.calibration import ScoreCalibration
from image_finder.components.records.data import DatasetManifest
from image_finder.components.records.retrieval import EvaluatedOn, RetrievalReport
from image_finder.components.training.trainer import FeatureSettings
from image_finder.model_registry import tracking
from image_finder.steps._cache import CODE_AWARE
from image_finder.steps._workspace import cache_dir


@step(cache_policy=CODE_AWARE, experiment_tracker=True)
def evaluate_retrieval(
    checkpoint: Checkpoint,
    val_captions: pd.DataFrame,
    test_captions: pd.DataFrame,
    images: pd.DataFrame,
    manifest: DatasetManifest,
    config: EvaluationConfig,
    embedding: EmbeddingConfig,
) -> tuple[Annotated[RetrievalReport, "retrieval_report"], Annotated[ScoreCalibration, "score_calibration"]]:
    """Measure recall and scores on test, else on val; `require_quality` decides."""
    captions = test_captions if len(test_captions) else val_captions
    evaluated = evaluate_checkpoint(
        checkpoint,
        CaptionedImages(captions, images, Path(manifest.root)),
        config,
        settings=FeatureSettings(cache_dir(), embedding, progress=True),
        identity=EvaluatedOn(
            dataset=manifest.name, data_version=manifest.version, split="test" if len(test_captions) else "val"
        ),
    )
    tracking.log_config(evaluation=config)
    tracking.log_retrieval(evaluated.report)
    tracking.log_scores(evaluated.scores)
    tracking.log_figures(evaluated.figures)
    log_metadata({"mean_recall": evaluated.report.mean_recall, "good_match": evaluated.scores.good_match})
    return evaluated.report, evaluated.scores
