"""Ranks: unit vectors in, the rank of each query's first right item out; knows nothing of models, files or images.

Ties count against the query: a wrong item that scores as high as the right one ranks before it. A model that gives every
image the same score gets rank n, never rank 1, and results depend neither on row order nor on chunk size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from image_finder.components.arrays import FloatMatrix, FloatVector, IntVector
from image_finder.components.errors import DataError

UNIT_TOLERANCE = 1e-3  # float16 rows of 512 components stay within it; rows that were not normalised do not
_TILE_SCORES = 4_000_000  # scores in memory at a time: 32 MB as float64 and 16 MB as float32


@dataclass(frozen=True)
class MatchRanks:
    """Rank of the first right item of every query.

    text_to_image: (n_captions,) rank of the caption's own image, 1 to n_images.
    image_to_text: (n_captioned,) best rank of the image's own captions, 1 to n_captions, ordered as captioned_images.
    margins: (n_captions,) score of the own image minus the best other score; infinite in a gallery of one image.
    image_of_caption: (n_captions,) row of each caption's image. captioned_images: rows of images with a caption.
    """

    n_images: int
    image_of_caption: IntVector
    captioned_images: IntVector
    text_to_image: IntVector
    image_to_text: IntVector
    margins: FloatVector

    @property
    def n_captions(self) -> int:
        return len(self.image_of_caption)


def first_match_ranks(
    image_embeddings: FloatMatrix,
    text_embeddings: FloatMatrix,
    image_of_caption: IntVector,
    *,
    chunk_rows: int | None = None,
) -> MatchRanks:
    """Rank each caption's image among all images, and each image's best caption.

    image_embeddings: (n_images, dim), text_embeddings: (n_captions, dim), unit rows. image_of_caption: (n_captions,)
    rows of image_embeddings. chunk_rows: captions per chunk; by default 4 million scores fit into a chunk. Scores are
    computed in float64 and rounded to float32 before they are compared: BLAS sums in an order that depends on the
    shape of the chunk, and in float32 alone, chunks of 1 and 777 captions gave 2,043 of 6,000 captions different ranks
    in a gallery that contained every image twice. Raises DataError.
    """
    images, texts, owners = checked_vectors(image_embeddings, text_embeddings, image_of_caption)
    gallery = images.astype(np.float64)
    parts = list(chunks(len(texts), len(images), chunk_rows))
    own = np.empty(len(texts), np.float32)
    for part in parts:
        own[part] = np.einsum("ij,ij->i", texts[part].astype(np.float64), gallery[owners[part]])
    best_own = np.full(len(images), -np.inf, np.float32)
    np.maximum.at(best_own, owners, own)
    text_to_image, best_other = np.empty(len(texts), np.int64), np.empty(len(texts), np.float32)
    captions_before = np.zeros(len(images), np.int64)
    for part in parts:
        scores = (texts[part].astype(np.float64) @ gallery.T).astype(np.float32)
        scores[np.arange(len(scores)), owners[part]] = -np.inf  # leaves the wrong pairs of both directions
        text_to_image[part] = 1 + np.count_nonzero(scores >= own[part, None], axis=1)
        best_other[part] = scores.max(axis=1)
        captions_before += np.count_nonzero(scores >= best_own, axis=0)
    captioned = np.unique(owners)
    return MatchRanks(
        n_images=len(images),
        image_of_caption=owners,
        captioned_images=captioned,
        text_to_image=text_to_image,
        image_to_text=1 + captions_before[captioned],
        margins=own - best_other,
    )


def chunks(n_captions: int, n_images: int, chunk_rows: int | None = None) -> Iterator[slice]:
    """Slices of chunk_rows or of at most 4 million scores that cover all captions. Raises DataError."""
    if chunk_rows is not None and chunk_rows < 1:
        raise DataError(f"chunk_rows is {chunk_rows}, expected at least 1")
    rows = chunk_rows or max(1, _TILE_SCORES // n_images)
    return (slice(start, min(start + rows, n_captions)) for start in range(0, n_captions, rows))


def checked_vectors(
    image_embeddings: FloatMatrix, text_embeddings: FloatMatrix, image_of_caption: IntVector
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.intp]]:
    """Arrays of `first_match_ranks` as float32 with unit rows, and existing rows. Raises DataError."""
    images = _unit_rows("image_embeddings", image_embeddings)
    texts = _unit_rows("text_embeddings", text_embeddings)
    if images.shape[1] != texts.shape[1]:
        raise DataError(
            f"image_embeddings have {images.shape[1]} components and text_embeddings {texts.shape[1]}, expected the "
            "same number: encode both with one model"
        )
    owners = np.asarray(image_of_caption)
    if owners.shape != (len(texts),) or not np.issubdtype(owners.dtype, np.integer):
        raise DataError(
            f"image_of_caption has shape {owners.shape} and type {owners.dtype}, expected ({len(texts)},) integers: "
            "one image row for each caption"
        )
    if owners.min() < 0 or owners.max() >= len(images):
        raise DataError(
            f"image_of_caption ranges from {owners.min()} to {owners.max()}, expected rows 0 to {len(images) - 1}"
        )
    return images, texts, owners.astype(np.intp)


def _unit_rows(name: str, rows: FloatMatrix) -> NDArray[np.float32]:
    matrix = np.asarray(rows)
    if matrix.ndim != 2 or 0 in matrix.shape or not np.issubdtype(matrix.dtype, np.floating):
        raise DataError(
            f"{name} has shape {matrix.shape} and type {matrix.dtype}, expected a non-empty table of floats (rows, dim)"
        )
    matrix = matrix.astype(np.float32, copy=False)
    lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))
    broken = np.flatnonzero(~np.isfinite(lengths))
    if len(broken):
        raise DataError(
            f"{name}: {len(broken)} of {len(matrix)} rows contain NaN or infinity, expected none (first: row {broken[0]})"
        )
    worst = int(np.argmax(np.abs(lengths - 1)))
    if abs(lengths[worst] - 1) > UNIT_TOLERANCE:
        raise DataError(
            f"{name} row {worst} has length {lengths[worst]:.4f}, expected 1 within {UNIT_TOLERANCE}: normalise the rows"
        )
    return matrix
