"""Embedding engines: chosen by the configuration; Ray is imported only if it is chosen."""

from functools import partial
from pathlib import Path

from image_finder.components.configs import EmbeddingConfig
from image_finder.components.library.reading import Engine, embed_here


def embedding_engine(config: EmbeddingConfig, *, cache_dir: Path, progress: bool = False) -> Engine:
    """`embed_here` or `embed_on_ray`. cache_dir: for Ray's shards, unless ray_shards is set."""
    if config.engine == "ray":
        from image_finder.components.scaling.ray_embed import embed_on_ray

        return partial(embed_on_ray, shards=config.ray_shards or str(cache_dir.resolve()), progress=progress)
    return embed_here
