"""Step: publish the index of the library."""

from typing import Annotated

from zenml import log_metadata, step

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import EmbeddingConfig, GalleryConfig, RegistryConfig
from image_finder.components.index.format import IndexManifest
from image_finder.components.library.index_options import IndexSummary
from image_finder.model_registry import tracking
from image_finder.model_registry.champion_library import publish_sources
from image_finder.model_registry.promotions import Promotions
from image_finder.steps._workspace import home


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
