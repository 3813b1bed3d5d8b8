"""Queries compared: captions on which models differ most, with the nearest images of each model beside each other."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from image_finder.components.arrays import FloatVector, IntVector
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.evaluation.bundle_recall import image_vectors
from image_finder.components.images.decoding import load_for_display
from image_finder.components.images.encoding import jpeg_bytes

_THUMBNAIL_PX = 180  # a page with 12 queries, two models and 5 images each has about 1 MB


class RankedModel(NamedTuple):
    """A bundle and the ranks, (n_captions,), of the correct images that it was measured with."""

    name: str
    bundle: Bundle
    ranks: IntVector


class NearImage(NamedTuple):
    """One of the nearest images of a model. jpeg: base64."""

    file_name: str
    score: float
    correct: bool
    jpeg: str


class ModelAnswer(NamedTuple):
    """Nearest images of a model, nearest first; rank: of the correct image among all."""

    model: str
    rank: int
    images: tuple[NearImage, ...]


class ComparedQuery(NamedTuple):
    caption: str
    answers: tuple[ModelAnswer, ...]


def most_different(ranks: Sequence[IntVector], image_of_caption: IntVector, count: int) -> list[int]:
    """Rows of the captions whose reciprocal ranks differ most from the first model's, one for each image.

    ranks: of the correct image, (n_captions,) for each model. Captions that all models rank alike are left out. Order: by
    difference, then by row.
    """
    reciprocal = [1.0 / np.asarray(each, np.float64) for each in ranks]
    difference: FloatVector = np.max([np.abs(each - reciprocal[0]) for each in reciprocal], axis=0)
    order = np.lexsort((np.arange(len(difference)), -difference))
    order = order[difference[order] > 0]
    first_of_image = np.sort(np.unique(np.asarray(image_of_caption)[order], return_index=True)[1])
    rows: list[int] = order[first_of_image[:count]].tolist()
    return rows


def compare_queries(
    models: Sequence[RankedModel], data: CaptionedImages, *, count: int = 12, top: int = 5
) -> list[ComparedQuery]:
    """The `count` captions on which models differ most, each with its `top` nearest images by every model.

    data: what the models were measured on. Encodes all images with every bundle. Raises BundleError, ImageError.
    """
    owners, captions = data.image_of_caption(), data.captions["caption"].tolist()
    rows = most_different([model.ranks for model in models], owners, count)
    if not rows:
        return []
    paths = [data.root / name for name in data.image_rows()["file_name"]]
    by_model = []
    for model in models:
        encoder = OnnxEncoder(model.bundle)
        scores = encoder.encode_text([captions[row] for row in rows]) @ image_vectors(encoder, paths).T
        by_model.append(
            [
                ModelAnswer(model.name, int(model.ranks[row]), _nearest(found, int(owners[row]), paths, data.root, top))
                for row, found in zip(rows, scores, strict=True)
            ]
        )
    return [
        ComparedQuery(captions[row], answers) for row, answers in zip(rows, zip(*by_model, strict=True), strict=True)
    ]


def _nearest(scores: FloatVector, correct: int, paths: Sequence[Path], root: Path, top: int) -> tuple[NearImage, ...]:
    """At equal scores wrong images come first, as in `first_match_ranks`."""
    order = np.lexsort((np.arange(len(scores)) == correct, -scores))[:top].tolist()
    return tuple(
        NearImage(paths[row].relative_to(root).as_posix(), float(scores[row]), row == correct, _thumbnail(paths[row]))
        for row in order
    )


def _thumbnail(path: Path) -> str:
    return base64.b64encode(jpeg_bytes(load_for_display(path, at_most_px=_THUMBNAIL_PX))).decode()
