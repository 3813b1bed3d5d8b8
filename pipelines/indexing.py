"""Pipeline `finder_indexing`: from the champion and a gallery to a published index. Composition only."""

from zenml import pipeline
from zenml.enums import ExecutionMode

import image_finder.steps.materializers  # noqa: F401 - registers how artefacts are stored; without it ZenML would pickle them
from image_finder.components.configs import EmbeddingConfig, GalleryConfig, RegistryConfig
from image_finder.steps.gallery import embed_gallery, load_champion, publish_index

_REGISTRY, _EMBEDDING = RegistryConfig(), EmbeddingConfig()


@pipeline(name="finder_indexing", execution_mode=ExecutionMode.FAIL_FAST)
def finder_indexing(
    gallery: GalleryConfig,
    gallery_fingerprint: str,
    registry: RegistryConfig = _REGISTRY,
    embedding: EmbeddingConfig = _EMBEDDING,
) -> None:
    """Load the champion, embed the gallery and the library's other sources with it, publish both."""
    bundle = load_champion(registry)
    embedded = embed_gallery(bundle, gallery, embedding, gallery_fingerprint)
    publish_index(embedded, bundle, gallery, embedding, registry)
