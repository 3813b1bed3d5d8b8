"""Checkpoint evaluation: recall, score calibration and figures of a checkpoint on a captions table; writes no file."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from image_finder.components.arrays import Vectors
from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.configs import EvaluationConfig
from image_finder.components.encoders.checkpoint import Checkpoint
from image_finder.components.evaluation.curves import recall_curve, training_curves
from image_finder.components.evaluation.image_figures import query_examples, similarity_heat_map
from image_finder.components.images.decoding import load_rgb
from image_finder.components.metrics.calibration import calibrate_scores
from image_finder.components.metrics.examples import pick_examples
from image_finder.components.metrics.ranks import first_match_ranks
from image_finder.components.metrics.recall import report_ranks
from image_finder.components.metrics.slices import caption_slices
from image_finder.components.records.calibration import ScoreCalibration
from image_finder.components.records.retrieval import EvaluatedOn, RetrievalReport
from image_finder.components.training.trainer import FeatureSettings, checkpoint_vectors

_THUMBNAIL_PX = 224
_NO_SETS: Mapping[str, CaptionedImages] = MappingProxyType({})


@dataclass(frozen=True)
class CheckpointEvaluation:
    """report: includes the extra sets. figures: by file name without suffix."""

    report: RetrievalReport
    scores: ScoreCalibration
    figures: dict[str, Figure]


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    data: CaptionedImages,
    config: EvaluationConfig,
    *,
    settings: FeatureSettings,
    identity: EvaluatedOn,
    extra_sets: Mapping[str, CaptionedImages] = _NO_SETS,
) -> CheckpointEvaluation:
    """Measure a checkpoint, calibrate its scores and draw the figures.

    extra_sets: measured as well; scores and figures are of data alone. Raises DataError.
    """
    data = data.first_captions(config.captions_per_image)
    images, texts = checkpoint_vectors(checkpoint, data, settings)
    ranks = first_match_ranks(images, texts, data.image_of_caption())
    report = report_ranks(ranks, config=config, identity=identity, slices=caption_slices(data.captions))
    measured = {
        name: _report_on(checkpoint, found, config, settings=settings, identity=identity.of_set(name))
        for name, found in extra_sets.items()
    }
    report = report.model_copy(update={"extra_sets": measured})
    scores = calibrate_scores(
        images, texts, data.image_of_caption(), logit_scale=checkpoint.logit_scale, identity=identity
    )
    examples = pick_examples(images, texts, ranks)
    captions = data.captions["caption"].tolist()
    figures = {
        "similarity_heat_map": _heat_map(images, texts, data, config),
        "query_examples": query_examples(
            examples, _thumbnails(data, examples.image_rows), captions, gallery_size=len(images)
        ),
        "recall_curve": recall_curve(ranks),
        "training_curves": training_curves(checkpoint.manifest.history),
    }
    return CheckpointEvaluation(report, scores, figures)


def _report_on(
    checkpoint: Checkpoint,
    data: CaptionedImages,
    config: EvaluationConfig,
    *,
    settings: FeatureSettings,
    identity: EvaluatedOn,
) -> RetrievalReport:
    data = data.first_captions(config.captions_per_image)
    ranks = first_match_ranks(*checkpoint_vectors(checkpoint, data, settings), data.image_of_caption())
    return report_ranks(ranks, config=config, identity=identity, slices=caption_slices(data.captions))


def _heat_map(images: Vectors, texts: Vectors, data: CaptionedImages, config: EvaluationConfig) -> Figure:
    n = min(config.heat_map_pairs, len(images))
    rows = np.sort(np.random.default_rng(config.seed).choice(len(images), n, replace=False))
    owners = data.image_of_caption()
    firsts = np.array([np.flatnonzero(owners == row)[0] for row in rows])
    captions = data.captions["caption"].iloc[firsts].tolist()
    thumbnails = _thumbnails(data, tuple(rows.tolist()))
    return similarity_heat_map(texts[firsts] @ images[rows].T, [thumbnails[row] for row in rows.tolist()], captions)


def _thumbnails(data: CaptionedImages, rows: tuple[int, ...]) -> dict[int, Image.Image]:
    names = data.image_rows()["file_name"]
    return {row: load_rgb(data.root / names.iloc[row], at_least_px=_THUMBNAIL_PX) for row in rows}
