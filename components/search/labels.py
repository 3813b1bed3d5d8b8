"""Labels: which of some words fit an image best, without training for them; knows nothing of files or indexes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from image_finder.components.arrays import Vectors
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.errors import QueryError
from image_finder.components.images.preprocess import Pixels
from image_finder.components.records.base import Record
from image_finder.components.search.prompts import TEMPLATES, prompts_of

MAX_LABELS = 1000
MAX_LABEL_CHARACTERS = 200
_LISTED_CHARACTERS = 60


class LabelScore(Record):
    """How well a label fits an image. probability: its share among the labels given, 0 to 1; score: cosine, -1 to 1."""

    label: str
    probability: float
    score: float


class Labels:
    """Labels as vectors: encoded once, compared with any number of images."""

    def __init__(self, encoder: OnnxEncoder, labels: Sequence[str], *, templates: tuple[str, ...] = TEMPLATES) -> None:
        """templates: sentences with {} for the label; a label's vector is the mean of its sentences, of length 1.

        Raises QueryError for fewer than 2 or more than 1,000 labels and for one that is empty, long or given twice.
        """
        self.names = checked_labels(labels)
        self.vectors = _label_vectors(encoder, self.names, templates)
        self._logit_scale = encoder.bundle.scores().logit_scale

    def score(self, images: Vectors) -> list[list[LabelScore]]:
        """For each image all labels, the most probable first; equal ones in the order given.

        images: (n, embedding_dim) unit vectors. An image's probabilities, the softmax of its cosines times the
        bundle's logit scale, sum to 1: they compare the labels and do not say that any of them fits.
        """
        cosines = images.astype(np.float64) @ self.vectors.T.astype(np.float64)
        shares = _softmax(self._logit_scale * cosines)
        return [
            [
                LabelScore(label=self.names[place], probability=float(row[place]), score=round(float(own[place]), 6))
                for place in np.argsort(-row, kind="stable")
            ]
            for row, own in zip(shares, cosines, strict=True)
        ]


def classify(
    encoder: OnnxEncoder, pixels: Pixels, labels: Sequence[str], *, templates: tuple[str, ...] = TEMPLATES
) -> list[list[LabelScore]]:
    """For each image all labels, the most probable first, see `Labels`. pixels: (n, px, px, 3) uint8, preprocessed.

    Raises QueryError.
    """
    return Labels(encoder, labels, templates=templates).score(encoder.encode_image(pixels))


def checked_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels with single spaces, in their order. Raises QueryError, see `Labels`."""
    if len(labels) > MAX_LABELS:
        raise QueryError(f"{len(labels):,} labels are given, at most {MAX_LABELS:,} are compared; give fewer")
    places: dict[str, int] = {}
    names = []
    for place, label in enumerate(labels, start=1):
        name = " ".join(label.encode("utf-8", "replace").decode().split())
        if not name:
            raise QueryError(f"label {place} of {len(labels)} is empty; leave it out")
        if len(name) > MAX_LABEL_CHARACTERS:
            raise QueryError(
                f"label {place} has {len(name)} characters, at most {MAX_LABEL_CHARACTERS} are read; shorten it"
            )
        if (first := places.setdefault(name.casefold(), place)) != place:
            raise QueryError(f"labels {first} and {place} are both '{name[:_LISTED_CHARACTERS]}'; leave one out")
        names.append(name)
    if len(names) < 2:
        raise QueryError(
            f"{len(names) or 'no'} label is given, at least 2 are needed: labels are compared with each other, and one "
            "alone would always have probability 1; add others, e.g. 'dog,cat,something else'"
        )
    return tuple(names)


def _label_vectors(encoder: OnnxEncoder, names: Sequence[str], templates: tuple[str, ...]) -> Vectors:
    """Unit vectors of labels: (n, embedding_dim) float32."""
    prompts = [prompt for name in names for prompt in prompts_of(name, templates)]
    vectors = encoder.encode_text(prompts)
    means = vectors.reshape(len(names), len(templates), -1).mean(axis=1)
    unit: Vectors = means / np.linalg.norm(means, axis=1, keepdims=True)
    return unit


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = raised / raised.sum(axis=1, keepdims=True)
    return shares
