"""Champion library: embeds and publishes the library of a home with the champion's bundle."""

import logging
from collections.abc import Sequence
from pathlib import Path

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import EmbeddingConfig, GalleryConfig
from image_finder.components.errors import ConfigError
from image_finder.components.index.format import IndexManifest, read_manifest
from image_finder.components.index.publish import current_bundle_sha256, publish_bundle
from image_finder.components.library.index_options import IndexOptions, IndexSummary
from image_finder.components.library.indexer import update
from image_finder.components.library.library import Library
from image_finder.components.scaling.ray_embed import embedding_engine
from image_finder.model_registry import names
from image_finder.model_registry.ledger.entries import Event
from image_finder.model_registry.promotions import Promotions

logger = logging.getLogger(__name__)

_WAIT_S = 600.0  # for a process that indexes directories


def embed_sources(
    home: Path, bundle: Bundle, embedding: EmbeddingConfig, galleries: Sequence[GalleryConfig] = ()
) -> IndexSummary:
    """Embed all sources of the home's library and new galleries, without publishing.

    Searches use the current index meanwhile. Raises DataError if too many images of a gallery cannot be read,
    StorageError.
    """
    return _update(home, bundle, embedding, galleries, publish=False)


def publish_sources(
    promotions: Promotions,
    model: str,
    home: Path,
    bundle: Bundle,
    embedding: EmbeddingConfig,
    galleries: Sequence[GalleryConfig] = (),
) -> IndexManifest:
    """Publish the home's library with the champion's bundle, after making it the default one.

    The ledger records a change of the model. Raises ConfigError if another version has become champion, QualityError if
    images do not find themselves.
    """
    target = Library(home / "library").index
    with promotions.exclusive(model):
        current = promotions.champion(model)
        if current.version is None:
            raise ConfigError(current.fault or f"model '{model}' has no champion any more; nothing was published")
        champion = promotions.registry.version(model, current.version)
        if champion.tags.get(names.BUNDLE_SHA256) != bundle.sha256:
            raise ConfigError(
                f"version {champion.version} became champion of '{model}' while images were embedded with another one; "
                "nothing was published: run 'image-finder pipeline run indexing' again"
            )
        promotions.note_champion(model, champion.version)  # it may have been moved elsewhere
        before = current_bundle_sha256(target)
        publish_bundle(bundle, home / "bundles")
        _update(home, bundle, embedding, galleries, publish=True)
        published = read_manifest(target)
        if before != bundle.sha256:
            old = promotions.registry.version_of_bundle(model, before) if before else None
            images = f"{published.count} images in {target}"
            promotions.record(
                model, Event(kind="index", from_version=old, to_version=champion.version, reasons=(images,))
            )
    return published


def _update(
    home: Path, bundle: Bundle, embedding: EmbeddingConfig, galleries: Sequence[GalleryConfig], *, publish: bool
) -> IndexSummary:
    options = IndexOptions(
        config=embedding,
        bundle=bundle.path,
        default_bundles=home / "bundles",
        galleries=galleries,
        engine=embedding_engine(embedding, cache_dir=home / "cache", progress=True),
        publish=publish,
        self_check=True,
        wait_s=_WAIT_S,
        progress=True,
    )
    return update(Library(home / "library"), [], options, warn=logger.warning)
