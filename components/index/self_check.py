"""Self-check: a sample of images is embedded again and must find itself in the index."""

from collections.abc import Callable

import numpy as np

from image_finder.components.arrays import Rows, Vectors
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.configs import EmbeddingConfig
from image_finder.components.errors import DataError, ImageError, QualityError
from image_finder.components.features.image_features import unreadable
from image_finder.components.images.preprocess import Pixels
from image_finder.components.index.format import SelfCheck
from image_finder.components.index.index import VectorIndex

_CHECK_K = 10
_CHECK_SEED = 0
# Float32 sums differ with their order by about 1e-7; different images differ by far more than this.
_EQUAL_SCORE = 1e-5
_PASS_ROWS = 65_536


def check_sample(
    index: VectorIndex, rows: Rows, read: Callable[[int], bytes], bundle: Bundle, config: EmbeddingConfig
) -> SelfCheck:
    """Embed a sample of images again; each must find itself. Raises QualityError, DataError.

    rows: to sample from. read: content of a row's image; raises ImageError, OSError.
    """
    n_images = min(config.self_check_images, len(rows))
    sample = np.sort(np.random.default_rng(_CHECK_SEED).choice(rows, n_images, replace=False))
    encoder = OnnxEncoder(bundle, device=config.device, threads=config.threads)
    queries = encoder.encode_image(_pixels(index, encoder, read, row) for row in sample.tolist())
    near = index.search(queries, _CHECK_K)
    # The image itself, or one of equal content or vector: then its own score equals the best one.
    own = np.einsum("ij,ij->i", queries, index.vectors[sample], dtype=np.float64)
    lost = sample[~(own >= near.scores[:, 0] - _EQUAL_SCORE)]
    if len(lost):
        first = index.uri_of_item(index.item(int(lost[0])))
        raise QualityError(
            f"{len(lost)} of {n_images} images do not find themselves first, the first is {first}; "
            "they changed meanwhile or their cached vectors are damaged: run again; if it fails again, remove the "
            "vectors-* folders of the library"
        )
    recall = _recall_against_float64(index.vectors, queries, near.rows)
    return SelfCheck(n_images=n_images, found_themselves_first=n_images, recall_at_10=recall)


def _pixels(index: VectorIndex, encoder: OnnxEncoder, read: Callable[[int], bytes], row: int) -> Pixels:
    try:
        return encoder.preprocess.load(read(row))
    except (ImageError, OSError) as error:
        reason = unreadable(error) if isinstance(error, OSError) else str(error)
        raise DataError(
            f"{index.uri_of_item(index.item(row))} changed while it was being embedded: {reason}; run again"
        ) from error


def _recall_against_float64(vectors: Vectors, queries: Vectors, rows: Rows) -> float:
    """Share of rows that a float64 search finds too; ties with its last hit count as found."""
    exact_queries = queries.astype(np.float64)
    best = np.empty((len(queries), 0))
    for start in range(0, len(vectors), _PASS_ROWS):
        best = np.concatenate([best, exact_queries @ vectors[start : start + _PASS_ROWS].astype(np.float64).T], axis=1)
        best = -np.sort(-best, axis=1)[:, : rows.shape[1]]
    scores = np.einsum("ij,ikj->ik", exact_queries, vectors[rows].astype(np.float64))
    return float(np.mean(scores >= best[:, -1:] - _EQUAL_SCORE))
