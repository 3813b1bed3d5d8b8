"""Measured scores: what the cosines of an imported model mean, learned from captioned images."""

from pathlib import Path

from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.evaluation.bundle_recall import image_vectors
from image_finder.components.evaluation.folder_recall import read_part
from image_finder.components.evaluation.match_calibration import calibrate_matches
from image_finder.components.metrics.calibration import calibrate_scores
from image_finder.components.records.calibration import ScoreCalibration, Scores
from image_finder.components.starter import FOLDER
from image_finder.components.starter.manifest import StarterManifest


def measured_scores(encoder: OnnxEncoder, scores: Scores, root: Path) -> ScoreCalibration:
    """Calibrate a model's scores on captioned images: part test, else val, else train.

    The queries of the fit are drawn from the starter's English vocabulary. Raises DataError, ImageError.
    """
    part = read_part(root, None)
    data = part.data
    images = image_vectors(encoder, [data.root / name for name in data.image_rows()["file_name"]])
    measured = calibrate_scores(
        images,
        encoder.encode_text(data.captions["caption"].tolist()),
        data.image_of_caption(),
        logit_scale=scores.logit_scale,
        identity=part.identity,
    )
    vocabulary = StarterManifest.read(FOLDER).vocabulary
    matches = calibrate_matches(encoder, vocabulary, [data], trained_on_it=False) if vocabulary else None
    return measured.model_copy(update={"logit_bias": scores.logit_bias, "matches": matches})
