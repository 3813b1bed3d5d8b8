"""Embedding engines: the one that a configuration names; Ray is imported only when it is named."""

from collections.abc import Callable

from image_finder.components.configs import EmbeddingConfig
from image_finder.components.index.embed import embed_gallery
from image_finder.components.index.index import VectorIndex


def embedding_engine(config: EmbeddingConfig) -> Callable[..., VectorIndex]:
    """`embed_gallery`, or `embed_gallery_on_ray`, which takes and gives the same."""
    if config.engine == "ray":
        from image_finder.components.scaling.ray_embed import embed_gallery_on_ray

        return embed_gallery_on_ray
    return embed_gallery
