"""Recall of a bundle: an exported model on a table, as it would serve; scores a champion on new test data."""

import numpy as np

from components.bundle import Bundle
from components.configs import EvaluationConfig
from components.evaluation.retrieval import EvaluatedOn, evaluate_retrieval
from components.evaluation.slices import caption_slices
from components.records import RetrievalReport
from components.search.onnx_encoder import OnnxEncoder
from components.training.trainer import CaptionedPictures

_BATCH_PICTURES = 32
_BATCH_TEXTS = 128


def evaluate_bundle(
    bundle: Bundle, data: CaptionedPictures, config: EvaluationConfig, *, identity: EvaluatedOn
) -> RetrievalReport:
    """Score a bundle's ONNX towers on a table. Raises DataError, BundleError."""
    data = data.first_captions(config.captions_per_image)
    encoder = OnnxEncoder(bundle)
    paths = [data.root / name for name in data.picture_rows()["file_name"]]
    captions = data.captions["caption"].tolist()
    images = [
        encoder.encode_image(
            np.stack([encoder.preprocess.load(path) for path in paths[start : start + _BATCH_PICTURES]])
        )
        for start in range(0, len(paths), _BATCH_PICTURES)
    ]
    texts = [
        encoder.encode_text(captions[start : start + _BATCH_TEXTS]) for start in range(0, len(captions), _BATCH_TEXTS)
    ]
    return evaluate_retrieval(
        np.concatenate(images),
        np.concatenate(texts),
        data.image_of_caption(),
        config=config,
        identity=identity,
        slices=caption_slices(data.captions),
    )
