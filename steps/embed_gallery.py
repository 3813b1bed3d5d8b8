"""Step: a gallery of images becomes a source of the library, and all sources are embedded."""

from typing import Annotated

from zenml import log_metadata, step

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import EmbeddingConfig, GalleryConfig
from image_finder.components.library.index_options import IndexSummary
from image_finder.model_registry import tracking
from image_finder.model_registry.champion_library import embed_sources
from image_finder.steps._cache import CODE_AWARE
from image_finder.steps._workspace import home


@step(cache_policy=CODE_AWARE, experiment_tracker=True)
def embed_gallery(
    bundle: Bundle, gallery: GalleryConfig, embedding: EmbeddingConfig, gallery_fingerprint: str
) -> Annotated[IndexSummary, "embedded_images"]:
    """Make a gallery a source of the library and embed all sources, here or on Ray.

    gallery_fingerprint is only part of the cache key, so that changed images are embedded again.
    """
    summary = embed_sources(home(), bundle, embedding, [gallery])
    tracking.log_config(gallery=gallery, embedding=embedding)
    log_metadata({"images": summary.images, "embedded": summary.embedded, "failed": len(summary.failed)})
    return summary
