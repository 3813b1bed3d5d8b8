"""Labels: zero-shot classification of images; knows nothing of files or indexes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from image_finder.components.arrays import Vectors
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.errors import QueryError
from image_finder.components.images.preprocess import Pixels
from image_finder.components.records.base import Record
from image_finder.components.search.prompts import TEMPLATES, mean_vectors, prompts_of

MAX_LABELS = 1000
MAX_LABEL_CHARACTERS = 200
_LISTED_CHARACTERS = 60


class LabelScore(Record):
    """A label's probability (0 to 1, see `Labels.score`) and its cosine (score)."""

    label: str
    probability: float
    score: float


class Labels:
    """Labels, encoded once and compared with any number of images."""

    def __init__(self, encoder: OnnxEncoder, labels: Sequence[str], *, templates: tuple[str, ...] = TEMPLATES) -> None:
        """Encode labels.

        templates: sentences with {} for the label; a label's vector is the mean of its sentences, with length 1.
        Raises QueryError for fewer than 2 or more than 1,000 labels, and for empty, long and repeated ones.
        """
        self.names = checked_labels(labels)
        means = mean_vectors(encoder, {name: prompts_of(name, templates) for name in self.names})
        self.vectors = np.stack([means[name] for name in self.names])
        self._scores = encoder.bundle.scores()

    def score(self, images: Vectors) -> list[list[LabelScore]]:
        """All labels for each image, most probable first, equal ones in the given order.

        images: (n, embedding_dim) unit vectors. An image's probabilities are the softmax of its cosines times the
        bundle's logit scale. They sum to 1, so they compare the labels; none of them may fit. For a bundle with a logit
        bias they are sigmoids instead: each says whether that label fits.
        """
        cosines = images.astype(np.float64) @ self.vectors.T.astype(np.float64)
        logits = self._scores.logit_scale * cosines
        bias = self._scores.logit_bias
        shares = _softmax(logits) if bias is None else 1 / (1 + np.exp(-np.clip(logits + bias, -500, 500)))
        return [
            [
                LabelScore(label=self.names[each], probability=float(row[each]), score=round(float(own[each]), 6))
                for each in np.argsort(-row, kind="stable")
            ]
            for row, own in zip(shares, cosines, strict=True)
        ]


def classify(encoder: OnnxEncoder, pixels: Pixels, labels: Sequence[str]) -> list[list[LabelScore]]:
    """`Labels.score` of preprocessed images, (n, px, px, 3) uint8. Raises QueryError."""
    return Labels(encoder, labels).score(encoder.encode_image(pixels))


def checked_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels with single spaces, in the given order. Raises QueryError, see `Labels`."""
    if len(labels) > MAX_LABELS:
        raise QueryError(f"{len(labels):,} labels are given, the limit is {MAX_LABELS:,}; give fewer")
    first_numbers: dict[str, int] = {}
    names = []
    for number, label in enumerate(labels, start=1):
        name = " ".join(label.encode("utf-8", "replace").decode().split())
        if not name:
            raise QueryError(f"label {number} of {len(labels)} is empty; remove it")
        if len(name) > MAX_LABEL_CHARACTERS:
            raise QueryError(
                f"label {number} has {len(name)} characters, the limit is {MAX_LABEL_CHARACTERS}; shorten it"
            )
        if (first := first_numbers.setdefault(name.casefold(), number)) != number:
            raise QueryError(f"labels {first} and {number} are both '{name[:_LISTED_CHARACTERS]}'; remove one")
        names.append(name)
    if len(names) < 2:
        raise QueryError(
            f"{len(names) or 'no'} label is given, at least 2 are needed: labels are compared with each other, and one "
            "alone would always have probability 1; add others, e.g. 'dog,cat,something else'"
        )
    return tuple(names)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = raised / raised.sum(axis=1, keepdims=True)
    return shares
