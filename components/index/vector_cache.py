"""Vector cache: vectors of images by content, each computed once; a row holds a vector and a difference hash.

The hash's 64 bits are stored as four integers below 65,536, which float32 represents exactly.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from image_finder.components.arrays import Vectors
from image_finder.components.bundle.bundle import IMAGE_ENCODER, PREPROCESS, Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.configs import EmbeddingConfig
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.features.image_features import Entries, ImageKeys, Infer, OnImage, ReadFile, cache_images
from image_finder.components.images.files import read_image
from image_finder.components.images.preprocess import PIXELS_VERSION, Pixels, Preprocess
from image_finder.components.index.duplicates import Hashes, difference_hash
from image_finder.components.storage import sha256_of_bytes

logger = logging.getLogger(__name__)

_HASH_COLUMNS = 4
_ROWS_AT_ONCE = 4096
_ROW_VERSION = 2  # raise it when the content of a row changes


def vector_cache(bundle: Bundle, folder: Path) -> ContentCache:
    """The cache of a bundle's image vectors below folder, one per image tower and preprocessing."""
    maker = vector_maker(bundle)
    width = bundle.manifest.embedding_dim + _HASH_COLUMNS
    return ContentCache(folder / f"vectors-{maker[:16]}", width=width, dtype="float32", maker=maker)


def vector_maker(bundle: Bundle) -> str:
    """Hash of everything that determines an image's row: tower, preprocessing, row format."""
    hashes = bundle.manifest.files_sha256
    return sha256_of_bytes(f"{hashes[IMAGE_ENCODER]}:{hashes[PREPROCESS]}:{PIXELS_VERSION}:{_ROW_VERSION}".encode())


def cache_vectors(
    encoder: OnnxEncoder,
    paths: Sequence[Path],
    cache: Entries,
    config: EmbeddingConfig,
    *,
    on_image: OnImage | None = None,
    read: ReadFile = read_image,
    cut: dict[str, str] | None = None,
) -> ImageKeys:
    """Compute the rows of the readable images that the cache lacks. Raises StorageError.

    encoder: from `throughput_encoder`. on_image, read: see `cache_images`. cut: receives a note by content for each
    truncated JPEG, before on_image is called for it; None: one log line.
    """
    notes = {} if cut is None else cut
    found = cache_images(
        paths,
        _Noting(encoder.preprocess, notes),
        _rows_of(encoder),
        cache,
        batch=config.batch_images,
        decode_threads=config.decode_threads,
        infer_threads=encoder.lanes.runs,
        on_image=on_image,
        read=read,
    )
    if cut is None and notes:
        first = next(path for path, key in found.keys.items() if key in notes)
        count = f"{len(notes):,} images are" if len(notes) > 1 else "1 image is"
        logger.warning("%s damaged at the end and embedded as far as readable, first %s", count, first)
    return found


class _Noting:
    """A preprocessing that accepts truncated JPEGs and keeps a note of each, by content."""

    def __init__(self, preprocess: Preprocess, notes: dict[str, str]) -> None:
        self._preprocess = preprocess
        self._notes = notes

    def load(self, source: bytes) -> Pixels:
        return self._preprocess.load(source, on_cut=lambda note: self._notes.update({sha256_of_bytes(source): note}))


def _rows_of(encoder: OnnxEncoder) -> Infer:
    def infer(pixels: Pixels) -> NDArray[np.float32]:
        hashes = np.array([difference_hash(each) for each in pixels], np.uint64)
        return joined_rows(encoder.encode_image(pixels), hashes)[:, None, :]

    return infer


def throughput_encoder(bundle: Bundle, config: EmbeddingConfig) -> OnnxEncoder:
    """An encoder for `cache_vectors`."""
    return OnnxEncoder(bundle, device=config.device, threads=config.threads, throughput=True)


def cached_vectors(cache: ContentCache, keys: Sequence[str]) -> tuple[Vectors, Hashes]:
    """Vectors, (n, dim), and difference hashes, (n,), of images by content. Raises StorageError."""
    positions, _ = cache.spans(keys)
    vectors = np.empty((len(keys), cache.width - _HASH_COLUMNS), np.float32)
    hashes = np.empty(len(keys), np.uint64)
    for start in range(0, len(keys), _ROWS_AT_ONCE):  # in parts, to keep one copy in memory
        rows: NDArray[np.float32] = cache.rows[positions[start : start + _ROWS_AT_ONCE]]
        part = slice(start, start + len(rows))
        vectors[part], hashes[part] = split_rows(rows)
    return vectors, hashes


def split_rows(rows: NDArray[np.float32]) -> tuple[Vectors, Hashes]:
    """Vectors (n, dim) and difference hashes (n,) of rows (n, dim + 4); inverse of `joined_rows`."""
    columns = rows[:, -_HASH_COLUMNS:].astype("<u2")
    return rows[:, :-_HASH_COLUMNS], columns.view("<u8")[:, 0].astype(np.uint64, copy=False)


def joined_rows(vectors: Vectors, hashes: Hashes) -> NDArray[np.float32]:
    columns = hashes.astype("<u8")[:, None].view("<u2")
    return np.concatenate([vectors, columns.astype(np.float32)], axis=1)
