"""An index of a gallery, made as the pipeline makes it: through a library."""

import shutil
from pathlib import Path

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import EmbeddingConfig, GalleryConfig
from image_finder.components.index.format import write_manifest
from image_finder.components.index.index import VectorIndex
from image_finder.components.library.engine import Engine, embed_here
from image_finder.components.library.index_options import IndexOptions
from image_finder.components.library.indexer import update
from image_finder.components.library.library import Library

CONFIG = EmbeddingConfig(device="cpu", threads=1, batch_images=4)


def publish_gallery(
    gallery: GalleryConfig,
    bundle: Bundle,
    library: Path,
    *,
    config: EmbeddingConfig = CONFIG,
    engine: Engine = embed_here,
    warn: list[str] | None = None,
) -> VectorIndex:
    """Make a gallery a source of a library and publish that."""
    options = IndexOptions(
        config=config,
        bundle=bundle.path,
        default_bundles=library / "bundles",
        galleries=[gallery],
        engine=engine,
        self_check=True,
    )
    update(Library(library), [], options, warn=([] if warn is None else warn).append)
    return VectorIndex.open(library / "index")


def embed_folder(folder: Path, bundle: Bundle, path: Path, *, max_failed_share: float = 0.0) -> VectorIndex:
    """An index of the images in folder, outside any library."""
    gallery = GalleryConfig(root=folder, max_failed_share=max_failed_share)
    made = publish_gallery(gallery, bundle, path.with_name(f"{path.name}.library"))
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(made.path, path)
    write_manifest(path, made.manifest)
    return VectorIndex.open(path)
