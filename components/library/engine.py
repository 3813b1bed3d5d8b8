"""Embedding engine: reads image files and makes sure that a cache holds the vector of each readable one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import EmbeddingConfig
from image_finder.components.errors import ImageError
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.images.exif import ImageFacts, image_facts
from image_finder.components.images.image_folder import is_uri, opened_folder
from image_finder.components.index.vector_cache import cache_vectors, throughput_encoder

# Takes each file that was read: path below the folder; sha256 of its content, "" if it cannot be read; the reason, ""
# if it can; facts if they are known.
OnFile = Callable[[Path, str, str, ImageFacts | None], None]
_UNKNOWN = ImageFacts(width_px=0, height_px=0, taken_at=None, camera="", latitude=None, longitude=None)


@dataclass(frozen=True)
class Batch:
    folder: str  # directory or URI, as ImageFolder takes it
    paths: Sequence[Path]  # below it
    bundle: Bundle
    cache: ContentCache
    config: EmbeddingConfig
    on_file: OnFile
    cut: dict[str, str]  # gets a note by content for each JPEG whose end is missing, before on_file is called for it


Engine = Callable[[Batch], None]  # raises StorageError, BundleError, ConfigError


def embed_here(batch: Batch) -> None:
    """The engine that embeds with threads of this process."""
    images, facts = opened_folder(batch.folder), dict[Path, ImageFacts]()

    def read(path: Path) -> bytes:
        content = images.read(path)
        if is_uri(batch.folder):  # for local files the header is read later, only if the content is new
            facts[path] = known_facts(content)
        return content

    cache_vectors(
        throughput_encoder(batch.bundle, batch.config),
        batch.paths,
        batch.cache,
        batch.config,
        on_image=lambda path, sha256, failure: batch.on_file(path, sha256, failure, facts.pop(path, None)),
        read=read,
        cut=batch.cut,
    )


def known_facts(content: bytes) -> ImageFacts:
    """Facts of an image file; all unknown if its header cannot be read."""
    try:
        return image_facts(content)
    except ImageError:  # the file changed after it was embedded
        return _UNKNOWN
