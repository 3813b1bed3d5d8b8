"""Embedding: a gallery of images to a vector index that was checked before it took its place."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from image_finder.components.arrays import Vectors
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.configs import EmbeddingConfig
from image_finder.components.errors import ConfigError, DataError, ImageError, QualityError
from image_finder.components.features.image_features import unreadable
from image_finder.components.images.exif import ImageFacts, image_facts
from image_finder.components.images.image_folder import ImageFolder
from image_finder.components.images.preprocess import Pixels
from image_finder.components.index.duplicates import Hashes
from image_finder.components.index.gallery import Gallery, GalleryItem
from image_finder.components.index.index import (
    FORMAT_VERSION,
    ITEM_SCHEMA,
    IndexManifest,
    SelfCheck,
    VectorIndex,
    item_id,
    write_index,
)
from image_finder.components.index.tier_building import add_tier, texts_encoder
from image_finder.components.index.vector_cache import cache_vectors, cached_vectors, throughput_encoder, vector_cache
from image_finder.components.moments import modified_s, utc
from image_finder.components.storage import new_directory

logger = logging.getLogger(__name__)

_LISTED = 5
_CHECK_K = 10
_CHECK_SEED = 0
# Float32 sums differ by the order in which they are taken, some 1e-7; other images differ by far more than this.
_EQUAL_SCORE = 1e-5
_PASS_ROWS = 65_536
_UNKNOWN = ImageFacts(width_px=0, height_px=0, taken_at=None, camera="", latitude=None, longitude=None)


class ImageContent(NamedTuple):
    """What is known of the content of one image's file."""

    sha256: str
    n_bytes: int
    modified_s: int  # POSIX time, whole seconds
    facts: ImageFacts


class EmbeddedImages(NamedTuple):
    """The readable images of a gallery in its order, and why the others are not among them."""

    items: Sequence[GalleryItem]
    contents: Sequence[ImageContent]
    vectors: Vectors  # (n, dim) unit rows
    hashes: Hashes  # (n,)
    failures: Mapping[Path, str]  # reason by path below the gallery's root


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
    """Embed images and write the index at path, whole or not at all; what was there stays until then.

    Vectors are kept in cache_dir by image content and by image tower: a run that was stopped goes on where it was,
    equal content is computed once. Items keep the gallery's order. Raises ConfigError for a gallery on an object store,
    DataError for an empty gallery and if more than max_failed_share (0 to 1) of the images cannot be read,
    QualityError if images do not find themselves, StorageError.
    """
    require_images(gallery)
    if gallery.uri:
        raise ConfigError(f"gallery.uri ({gallery.root}) needs embedding.engine=ray; or name a folder as gallery.root")
    cache = vector_cache(bundle, cache_dir)
    files = [gallery.file_of(item) for item in gallery.items]
    title = "images" if progress else ""
    found = cache_vectors(throughput_encoder(bundle, config), files, cache, config, title=title)
    failures = {item.path: found.failures[file] for item, file in _with_files(gallery) if file in found.failures}
    require_readable(gallery, failures, max_failed_share)
    readable = [(item, file) for item, file in _with_files(gallery) if file in found.keys]
    vectors, hashes = cached_vectors(cache, [found.keys[file] for _, file in readable])
    contents = [_content(found.keys[file], file) for _, file in readable]
    embedded = EmbeddedImages([item for item, _ in readable], contents, vectors, hashes, failures)
    return write_gallery_index(bundle, gallery, embedded, path, config)


def require_images(gallery: Gallery) -> None:
    """Raises DataError for an empty gallery."""
    if not gallery.items:
        raise DataError(f"gallery '{gallery.name}' has no images; there is nothing to embed")


def require_readable(gallery: Gallery, failures: Mapping[Path, str], max_failed_share: float) -> None:
    """Tell of the images that cannot be read. failures: reason by path below the gallery's root.

    Raises DataError if they are more than max_failed_share (0 to 1), or all.
    """
    failed = [item for item in gallery.items if item.path in failures]
    if not failed:
        return
    total = len(gallery.items)
    listed = "; ".join(f"{item.path}: {failures[item.path]}" for item in failed[:_LISTED])
    listed += f"; and {len(failed) - _LISTED} more" if len(failed) > _LISTED else ""
    message = f"{len(failed)} of {total} images of '{gallery.name}' cannot be read ({listed})"
    if len(failed) > max_failed_share * total or len(failed) == total:
        share = f"{len(failed) / total:.2%}, allowed {max_failed_share:.2%}"
        raise DataError(f"{message}: {share}; repair or remove them, or raise max_failed_share")
    logger.warning("%s; they are left out of the index", message)


def write_gallery_index(
    bundle: Bundle, gallery: Gallery, embedded: EmbeddedImages, path: Path, config: EmbeddingConfig
) -> VectorIndex:
    """Check embedded images by a sample and write their index at path, whole or not at all.

    Raises QualityError if images do not find themselves, DataError if one changed meanwhile, StorageError.
    """
    folder = ImageFolder(gallery.place)
    manifest = IndexManifest(
        format_version=FORMAT_VERSION,
        kind="exact",
        count=len(embedded.items),
        embedding_dim=bundle.manifest.embedding_dim,
        bundle_sha256=bundle.sha256,
        bundle_uri=str(bundle.path.resolve()),
        gallery=gallery.name,
        roots=(folder.shown_location,),
        failed={_text(folder.shown(path)): reason for path, reason in embedded.failures.items()},
        self_check=None,
        files_sha256={},
    )
    table = _item_table(gallery, embedded)
    check = _self_check(VectorIndex(path, manifest, embedded.vectors, table), folder, embedded.items, bundle, config)
    with new_directory(path) as place:
        written = write_index(place, embedded.vectors, table, manifest.model_copy(update={"self_check": check}))
        add_tier(place, written, config.tier, texts_encoder(bundle, threads=config.threads))
    return VectorIndex.open(path)


def _with_files(gallery: Gallery) -> Iterator[tuple[GalleryItem, Path]]:
    return ((item, gallery.file_of(item)) for item in gallery.items)


def _content(sha256: str, file: Path) -> ImageContent:
    status = file.stat()
    return ImageContent(sha256, status.st_size, modified_s(status), known_facts(file))


def _item_table(gallery: Gallery, embedded: EmbeddedImages) -> pa.Table:
    items, contents = embedded.items, embedded.contents
    facts = [content.facts for content in contents]
    paths = [os.fsencode(item.path.as_posix()) for item in items]
    columns = {
        "id": [item_id(gallery.root, path) for path in paths],
        "root": [0] * len(items),
        "path": paths,
        "folder": [_text(Path(gallery.name) / item.path.parent) for item in items],
        "name": [_text(Path(item.path.name)) for item in items],
        "sha256": [content.sha256 for content in contents],
        "dhash": embedded.hashes,
        "bytes": [content.n_bytes for content in contents],
        "width_px": [each.width_px for each in facts],
        "height_px": [each.height_px for each in facts],
        "captions": [list(item.captions) for item in items],
        "taken_at": [each.taken_at for each in facts],
        "modified_at": [utc(content.modified_s) for content in contents],
        "camera": [each.camera for each in facts],
        "latitude": [each.latitude for each in facts],
        "longitude": [each.longitude for each in facts],
    }
    return pa.table(columns, schema=ITEM_SCHEMA)


def known_facts(source: Path | bytes) -> ImageFacts:
    """Facts of an image (a file, or a file's bytes); all unknown if its header cannot be read."""
    try:
        return image_facts(source)
    except ImageError:  # a file that changed after it was embedded
        return _UNKNOWN


def _text(path: str | Path) -> str:
    """A path as text that can be written anywhere: bytes that are not UTF-8 are spelt out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


# The self-check


def _self_check(
    index: VectorIndex, folder: ImageFolder, items: Sequence[GalleryItem], bundle: Bundle, config: EmbeddingConfig
) -> SelfCheck:
    """Embed a sample of the images afresh from their files and look for them in the index. Raises QualityError."""
    n_images = min(config.self_check_images, len(items))
    sample = np.sort(np.random.default_rng(_CHECK_SEED).choice(len(items), n_images, replace=False))
    encoder = OnnxEncoder(bundle, device=config.device, threads=config.threads)
    queries = encoder.encode_image(_pixels(encoder, folder, items[row].path) for row in sample)
    near = index.search(queries, _CHECK_K)
    # The image itself, or one of equal content or vector: then its own score equals the best one.
    own = np.einsum("ij,ij->i", queries, index.vectors[sample], dtype=np.float64)
    lost = sample[~(own >= near.scores[:, 0] - _EQUAL_SCORE)]
    if len(lost):
        raise QualityError(
            f"index of '{index.manifest.gallery}': {len(lost)} of {n_images} images do not find themselves first, "
            f"first {folder.shown(items[lost[0]].path)}; they changed meanwhile or their cached vectors are damaged: run again, and if "
            "it stays, remove the vectors-* folders of the cache"
        )
    recall = _recall_against_float64(index.vectors, queries, near.rows)
    return SelfCheck(n_images=n_images, found_themselves_first=n_images, recall_at_10=recall)


def _pixels(encoder: OnnxEncoder, folder: ImageFolder, path: Path) -> Pixels:
    try:
        return encoder.preprocess.load(folder.read(path))
    except (ImageError, OSError) as error:
        place = folder.shown(path)
        raise DataError(f"{place} changed while it was being embedded: {_reason(error)}; run again") from error


def _reason(error: ImageError | OSError) -> str:
    return unreadable(error) if isinstance(error, OSError) else str(error)


def _recall_against_float64(vectors: Vectors, queries: Vectors, rows: NDArray[np.int64]) -> float:
    """Share of the rows found that a float64 search finds too; one that scores as its last hit does counts."""
    exact_queries = queries.astype(np.float64)
    best = np.empty((len(queries), 0))
    for start in range(0, len(vectors), _PASS_ROWS):
        best = np.concatenate([best, exact_queries @ vectors[start : start + _PASS_ROWS].astype(np.float64).T], axis=1)
        best = -np.sort(-best, axis=1)[:, : rows.shape[1]]
    scores = np.einsum("ij,ikj->ik", exact_queries, vectors[rows].astype(np.float64))
    return float(np.mean(scores >= best[:, -1:] - _EQUAL_SCORE))
