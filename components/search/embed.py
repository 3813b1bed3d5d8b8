"""Embedding: a gallery of pictures to a vector index that was checked before it took its place."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.bundle import IMAGE_ENCODER, PREPROCESS, Bundle
from components.configs import EmbeddingConfig
from components.data.images import picture_size
from components.data.preprocess import PIXELS_VERSION, Pixels
from components.errors import DataError, PictureError, QualityError
from components.features.content_cache import ContentCache
from components.features.onnx_session import throughput_lanes
from components.features.pictures import PictureKeys, cache_pictures
from components.search.gallery import Gallery, GalleryItem
from components.search.index import (
    FORMAT_VERSION,
    ITEM_SCHEMA,
    IndexManifest,
    SelfCheck,
    VectorIndex,
    Vectors,
    write_index,
)
from components.search.onnx_encoder import OnnxEncoder
from components.storage import sha256_of_bytes

logger = logging.getLogger(__name__)

_LISTED = 5
_CHECK_K = 10
_CHECK_SEED = 0
# Float32 sums differ by the order in which they are taken, some 1e-7; other pictures differ by far more than this.
_EQUAL_SCORE = 1e-5
_PASS_ROWS = 65_536


def embed_gallery(
    bundle: Bundle,
    gallery: Gallery,
    path: Path,
    config: EmbeddingConfig,
    *,
    cache_dir: Path,
    max_failed_share: float,
    progress: bool = False,
) -> VectorIndex:
    """Embed pictures and write the index at path, whole or not at all; what was there stays until then.

    Vectors are kept in cache_dir by picture content and by image tower: a run that was stopped goes on where it was,
    equal content is computed once. Items keep the gallery's order. Raises DataError for an empty gallery and if more
    than max_failed_share (0 to 1) of the pictures cannot be read, QualityError if pictures do not find themselves,
    StorageError.
    """
    if not gallery.items:
        raise DataError(f"gallery '{gallery.name}' has no pictures; there is nothing to embed")
    cache = vector_cache(bundle, cache_dir)
    found = cache_vectors(bundle, [item.path for item in gallery.items], cache, config, progress=progress)
    _require_readable(gallery, found, max_failed_share)
    items = [item for item in gallery.items if item.path in found.keys]
    places, _ = cache.places([found.keys[item.path] for item in items])
    vectors: Vectors = np.asarray(cache.rows[places], np.float32)
    manifest = IndexManifest(
        format_version=FORMAT_VERSION,
        kind="exact",
        count=len(items),
        embedding_dim=bundle.manifest.embedding_dim,
        bundle_sha256=bundle.sha256,
        bundle_uri=str(bundle.path.resolve()),
        gallery=gallery.name,
        failed={item.uri: found.failures[item.path] for item in gallery.items if item.path in found.failures},
        self_check=None,
        files_sha256={},
    )
    table = _item_table(items, found)
    check = _self_check(VectorIndex(path, manifest, vectors, table), items, bundle, config)
    write_index(path, vectors, table, manifest.model_copy(update={"self_check": check}))
    return VectorIndex.open(path, verify=True)


def vector_cache(bundle: Bundle, cache_dir: Path) -> ContentCache:
    """The cache of a bundle's picture vectors; another image tower or preprocessing has another folder."""
    hashes = bundle.manifest.files_sha256
    maker = sha256_of_bytes(f"{hashes[IMAGE_ENCODER]}:{hashes[PREPROCESS]}:{PIXELS_VERSION}".encode())
    width = bundle.manifest.embedding_dim
    return ContentCache(cache_dir / f"vectors-{maker[:16]}", width=width, dtype="float32", maker=maker)


def cache_vectors(
    bundle: Bundle, paths: Sequence[Path], cache: ContentCache, config: EmbeddingConfig, *, progress: bool = False
) -> PictureKeys:
    """Make sure the cache holds the vector of each readable picture, (1, embedding_dim). Raises StorageError."""
    lanes = throughput_lanes(config.device, config.threads)
    encoder = OnnxEncoder(bundle, device=config.device, threads=lanes.threads)

    def infer(pixels: Pixels) -> NDArray[np.float32]:
        calls = range(0, len(pixels), lanes.pictures)
        return np.concatenate([encoder.encode_image(pixels[at : at + lanes.pictures]) for at in calls])[:, None, :]

    return cache_pictures(
        paths,
        encoder.preprocess,
        infer,
        cache,
        batch=config.batch_images,
        decode_threads=config.decode_threads,
        infer_threads=lanes.runs,
        title="pictures" if progress else "",
    )


def _require_readable(gallery: Gallery, found: PictureKeys, max_failed_share: float) -> None:
    failed = [item for item in gallery.items if item.path in found.failures]
    if not failed:
        return
    total = len(gallery.items)
    listed = "; ".join(f"{item.id}: {found.failures[item.path]}" for item in failed[:_LISTED])
    listed += f"; and {len(failed) - _LISTED} more" if len(failed) > _LISTED else ""
    message = f"{len(failed)} of {total} pictures of '{gallery.name}' cannot be read ({listed})"
    if len(failed) > max_failed_share * total or len(failed) == total:
        share = f"{len(failed) / total:.2%}, allowed {max_failed_share:.2%}"
        raise DataError(f"{message}: {share}; repair or remove them, or raise max_failed_share")
    logger.warning("%s; they are left out of the index", message)


def _item_table(items: Sequence[GalleryItem], found: PictureKeys) -> pa.Table:
    sizes = [_size(item.path) for item in items]
    columns = {
        "id": [item.id for item in items],
        "uri": [item.uri for item in items],
        "sha256": [found.keys[item.path] for item in items],
        "width_px": [width for width, _ in sizes],
        "height_px": [height for _, height in sizes],
        "captions": [list(item.captions) for item in items],
    }
    return pa.table(columns, schema=ITEM_SCHEMA)


def _size(path: Path) -> tuple[int, int]:
    try:
        return picture_size(path)
    except PictureError:  # it went or changed after it was embedded
        return 0, 0


# The self-check


def _self_check(index: VectorIndex, items: Sequence[GalleryItem], bundle: Bundle, config: EmbeddingConfig) -> SelfCheck:
    """Embed a sample of the pictures afresh from their files and look for them in the index. Raises QualityError."""
    n_pictures = min(config.self_check_pictures, len(items))
    sample = np.sort(np.random.default_rng(_CHECK_SEED).choice(len(items), n_pictures, replace=False))
    encoder = OnnxEncoder(bundle, device=config.device, threads=config.threads)
    batches = [sample[start : start + config.batch_images] for start in range(0, n_pictures, config.batch_images)]
    queries = np.concatenate([_embed_afresh(encoder, [items[row] for row in batch]) for batch in batches])
    near = index.search(queries, _CHECK_K)
    # The picture itself, or one of equal content or vector: then its own score equals the best one.
    own = np.einsum("ij,ij->i", queries, index.vectors[sample], dtype=np.float64)
    lost = sample[~(own >= near.scores[:, 0] - _EQUAL_SCORE)]
    if len(lost):
        raise QualityError(
            f"index of '{index.manifest.gallery}': {len(lost)} of {n_pictures} pictures do not find themselves first, "
            f"first {items[lost[0]].id}; they changed meanwhile or their cached vectors are damaged: run again, and if "
            "it stays, remove the vectors-* folders of the cache"
        )
    recall = _recall_against_float64(index.vectors, queries, near.rows)
    return SelfCheck(n_pictures=n_pictures, found_themselves_first=n_pictures, recall_at_10=recall)


def _embed_afresh(encoder: OnnxEncoder, items: Sequence[GalleryItem]) -> Vectors:
    try:
        return encoder.encode_image(np.stack([encoder.preprocess.load(item.path) for item in items]))
    except PictureError as error:
        raise DataError(f"a picture changed while it was being embedded: {error}; run again") from error


def _recall_against_float64(vectors: Vectors, queries: Vectors, rows: NDArray[np.int64]) -> float:
    """Share of the rows found that a float64 search finds too; one that scores as its last hit does counts."""
    exact_queries = queries.astype(np.float64)
    best = np.empty((len(queries), 0))
    for start in range(0, len(vectors), _PASS_ROWS):
        best = np.concatenate([best, exact_queries @ vectors[start : start + _PASS_ROWS].astype(np.float64).T], axis=1)
        best = -np.sort(-best, axis=1)[:, : rows.shape[1]]
    scores = np.einsum("ij,ikj->ik", exact_queries, vectors[rows].astype(np.float64))
    return float(np.mean(scores >= best[:, -1:] - _EQUAL_SCORE))
