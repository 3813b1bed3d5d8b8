"""Step: embed a gallery into a vector index."""

from typing import Annotated

from zenml import log_metadata, step

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import EmbeddingConfig, GalleryConfig
from image_finder.components.index.gallery import read_gallery
from image_finder.components.index.index import VectorIndex
from image_finder.components.scaling.engines import embedding_engine
from image_finder.model_registry import tracking
from image_finder.steps._cache import CODE_AWARE
from image_finder.steps._workspace import cache_dir, scratch_dir
from image_finder.steps.materializers import IndexMaterializer


@step(cache_policy=CODE_AWARE, experiment_tracker=True, output_materializers=IndexMaterializer)
def embed_gallery(
    bundle: Bundle, gallery: GalleryConfig, embedding: EmbeddingConfig, gallery_fingerprint: str
) -> Annotated[VectorIndex, "vector_index"]:
    """Embed every image, locally or on Ray, and write the index; a killed run resumes.

    gallery_fingerprint is only part of the cache key, so that changed images are embedded again.
    """
    index = embedding_engine(embedding)(
        bundle,
        read_gallery(gallery),
        scratch_dir() / "index",
        embedding,
        cache_dir=cache_dir(),
        max_failed_share=gallery.max_failed_share,
        progress=True,
    )
    tracking.log_config(gallery=gallery, embedding=embedding)
    tracking.log_record(index.manifest.model_copy(update={"failed": {}}), "reports/index.json")
    log_metadata({"images": index.manifest.count, "failed": len(index.manifest.failed)})
    return index
