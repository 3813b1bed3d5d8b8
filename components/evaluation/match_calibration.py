"""Match calibration: encodes captioned images with an exported model and fits its models of good matches."""

from collections.abc import Sequence

import numpy as np

from image_finder.components.arrays import Vectors
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.evaluation.bundle_recall import image_vectors
from image_finder.components.evaluation.match_fit import fit_matches
from image_finder.components.records.calibration import MatchModels
from image_finder.components.search.prompts import text_vectors

_SEED = 0
_MAX_IMAGES = 2000  # per data set; bounds the time of an export


def calibrate_matches(
    encoder: OnnxEncoder, vocabulary: Vocabulary, parts: Sequence[CaptionedImages], *, trained_on_it: bool = True
) -> MatchModels:
    """Fit the models of good matches on captioned images that were not trained on.

    vocabulary, trained_on_it: see fit_matches; parts: one per data set. Raises DataError, ImageError.
    """
    rng = np.random.default_rng(_SEED)
    paths, captions, sources = [], [], []
    for number, part in enumerate(parts):
        names = part.image_rows()["file_name"].tolist()
        of_image = part.captions.groupby("image_id", sort=True)["caption"].agg(list).tolist()
        rows = np.sort(rng.permutation(len(names))[:_MAX_IMAGES]).tolist()
        paths += [part.root / names[row] for row in rows]
        captions += [of_image[row] for row in rows]
        sources += [number] * len(rows)

    def encode(texts: Sequence[str]) -> Vectors:
        vectors = text_vectors(encoder, texts)
        return np.stack([vectors[text] for text in texts])

    images = image_vectors(encoder, paths)
    return fit_matches(images, captions, vocabulary, encode, source_of=sources, trained_on_it=trained_on_it, seed=_SEED)
