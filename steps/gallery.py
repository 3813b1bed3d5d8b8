"""Steps of the index: fetch the champion, embed a gallery and the library's other sources, publish."""

from typing import Annotated

from zenml import log_metadata, step

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import EmbeddingConfig, GalleryConfig, RegistryConfig
from image_finder.components.errors import ConfigError
from image_finder.components.index.format import IndexManifest
from image_finder.components.library.index_options import IndexSummary
from image_finder.model_registry import tracking
from image_finder.model_registry.champion_library import embed_sources, publish_sources
from image_finder.model_registry.promotions import Promotions
from image_finder.steps._cache import CODE_AWARE
from image_finder.steps._workspace import home
from image_finder.steps.materializers import BundleMaterializer


@step(enable_cache=False, experiment_tracker=True, output_materializers=BundleMaterializer)
def load_champion(config: RegistryConfig) -> Annotated[Bundle, "champion_bundle"]:
    """Fetch the champion.

    Not cached, because the champion may change; an equal bundle keeps later steps cached.
    """
    promotions = Promotions.of_step()
    champion = promotions.champion(config.model_name)
    if champion.version is None:
        raise ConfigError(
            champion.fault
            or f"model '{config.model_name}' has no champion yet: run 'image-finder pipeline run training' first"
        )
    log_metadata({"model": config.model_name, "version": champion.version})
    return promotions.registry.download_bundle(config.model_name, champion.version, home() / "bundles" / "champion")


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


@step(enable_cache=False, experiment_tracker=True)
def publish_index(
    embedded: IndexSummary,
    bundle: Bundle,
    gallery: GalleryConfig,
    embedding: EmbeddingConfig,
    config: RegistryConfig,
) -> Annotated[IndexManifest, "published_index"]:
    """Publish the library with the champion's bundle; recent changes are embedded too.

    Never cached: the home may have been changed by hand. embedded: orders the steps.
    """
    promotions = Promotions.of_step(home=home())
    published = publish_sources(promotions, config.model_name, home(), bundle, embedding, [gallery])
    tracking.log_record(published.model_copy(update={"failed": {}}), "reports/index.json")
    log_metadata({"path": embedded.library, "images": published.count, "failed": len(published.failed)})
    return published
