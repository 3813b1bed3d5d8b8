"""Vector cache: the vectors of images by content, computed once; one row holds a vector and its difference hash.

The hash's 64 bits travel as four whole numbers below 65,536, which float32 holds exactly.
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
_ROW_VERSION = 2  # raise it when a row holds something else


def vector_cache(bundle: Bundle, folder: Path) -> ContentCache:
    """The cache of a bundle's image vectors below folder; another image tower or preprocessing has another one."""
    maker = vector_maker(bundle)
    width = bundle.manifest.embedding_dim + _HASH_COLUMNS
    return ContentCache(folder / f"vectors-{maker[:16]}", width=width, dtype="float32", maker=maker)


def vector_maker(bundle: Bundle) -> str:
    """Hash of all that decides what an image's row is: image tower, preprocessing, the form of a row."""
    hashes = bundle.manifest.files_sha256
    return sha256_of_bytes(f"{hashes[IMAGE_ENCODER]}:{hashes[PREPROCESS]}:{PIXELS_VERSION}:{_ROW_VERSION}".encode())


def cache_vectors(
    encoder: OnnxEncoder,
    paths: Sequence[Path],
    cache: Entries,
    config: EmbeddingConfig,
    *,
    title: str = "",
    on_image: OnImage | None = None,
    read: ReadFile = read_image,
    cut: dict[str, str] | None = None,
) -> ImageKeys:
    """Make sure the cache holds the row of each readable image. encoder: from `throughput_encoder`; title: of the
    progress bar, empty for none; on_image, read: see `cache_images`. cut: takes a note by content for each JPEG
    whose end is missing, before on_image is called for it; None: they are logged in one line. Raises StorageError.
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
        title=title,
        on_image=on_image,
        read=read,
    )
    if cut is None and notes:
        first = next(path for path, key in found.keys.items() if key in notes)
        count = f"{len(notes):,} images are" if len(notes) > 1 else "1 image is"
        logger.warning("%s damaged at the end and embedded as far as readable, first %s", count, first)
    return found


class _Noting:
    """A preprocessing that takes JPEGs whose end is missing and keeps a note of each, by content."""

    def __init__(self, preprocess: Preprocess, notes: dict[str, str]) -> None:
        self._preprocess = preprocess
        self._notes = notes

    def load(self, source: bytes) -> Pixels:
        return self._preprocess.load(source, on_cut=lambda note: self._notes.update({sha256_of_bytes(source): note}))


def _rows_of(encoder: OnnxEncoder) -> Infer:
    """A function from pixels (n, px, px, 3) to rows (n, 1, dim + 4)."""

    def infer(pixels: Pixels) -> NDArray[np.float32]:
        hashes = np.array([difference_hash(each) for each in pixels], np.uint64)
        return joined_rows(encoder.encode_image(pixels), hashes)[:, None, :]

    return infer


def throughput_encoder(bundle: Bundle, config: EmbeddingConfig) -> OnnxEncoder:
    """An encoder for `cache_vectors`."""
    return OnnxEncoder(bundle, device=config.device, threads=config.threads, throughput=True)


def cached_vectors(cache: ContentCache, keys: Sequence[str]) -> tuple[Vectors, Hashes]:
    """Vectors (n, dim) float32 and difference hashes (n,) uint64 of images by content. Raises StorageError."""
    places, _ = cache.places(keys)
    vectors = np.empty((len(keys), cache.width - _HASH_COLUMNS), np.float32)
    hashes = np.empty(len(keys), np.uint64)
    for start in range(0, len(keys), _ROWS_AT_ONCE):  # all at once would take the memory of all twice
        rows: NDArray[np.float32] = cache.rows[places[start : start + _ROWS_AT_ONCE]]
        part = slice(start, start + len(rows))
        vectors[part], hashes[part] = split_rows(rows)
    return vectors, hashes


def split_rows(rows: NDArray[np.float32]) -> tuple[Vectors, Hashes]:
    """Rows (n, dim + 4) as vectors (n, dim) and difference hashes (n,) uint64."""
    return rows[:, :-_HASH_COLUMNS], _from_columns(rows[:, -_HASH_COLUMNS:])


def joined_rows(vectors: Vectors, hashes: Hashes) -> NDArray[np.float32]:
    """Rows (n, dim + 4), as the cache holds them, of vectors (n, dim) and difference hashes (n,) uint64."""
    return np.concatenate([vectors, _as_columns(hashes)], axis=1)


def _as_columns(hashes: Hashes) -> NDArray[np.float32]:
    shifts = np.arange(_HASH_COLUMNS, dtype=np.uint64) * np.uint64(16)
    return ((hashes[:, None] >> shifts) & np.uint64(0xFFFF)).astype(np.float32)


def _from_columns(columns: NDArray[np.float32]) -> Hashes:
    shifts = np.arange(_HASH_COLUMNS, dtype=np.uint64) * np.uint64(16)
    hashes: Hashes = (columns.astype(np.uint64) << shifts).sum(axis=1, dtype=np.uint64)
    return hashes
