"""Finder: the Python API of image search; knows nothing of command lines or HTTP.

    from pathlib import Path
    from image_finder import Finder

    finder = Finder.open("~/.local/share/image-finder/library")
    for hit in finder.search("a dog running on the beach", k=5, since="2024-06-01").hits:
        print(f"{hit.score:.2f} {hit.uri}")
    more = finder.search(images=Path("beach.jpg"), not_terms="people")
    finder.explain(more.hits[0].id, "a dog").overlay.save("why.jpg")

An image is a Path, the bytes of a file or a Pillow image; where stated, also the id of a hit, a str.
"""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Unpack

import numpy as np
from PIL import Image

from image_finder.components.arrays import Vectors
from image_finder.components.bundle.bundle import BundleManifest
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.errors import FinderError
from image_finder.components.images.decoding import upright_rgb
from image_finder.components.images.preprocess import Pixels
from image_finder.components.index.format import IndexManifest
from image_finder.components.index.generations import Stamp, pointer_stamp, published_root
from image_finder.components.records.search import Facets, IndexedImage, SearchResult
from image_finder.components.search import filters
from image_finder.components.search.engine import SearchEngine
from image_finder.components.search.explain import Explanation, explain, explain_pooling
from image_finder.components.search.query import Query
from image_finder.components.search.search_options import ImageSource, SearchOptions, image_bytes, query_of

if TYPE_CHECKING:
    from image_finder.components.search.labels import LabelScore

_RETRY_S = 10.0  # opening hashes the whole index, which is too slow to retry a damaged one at every tick of a server


class _Failure(NamedTuple):
    """An index that could not be opened, and when (time.monotonic) it is tried again."""

    stamp: Stamp
    until: float
    error: FinderError


class Finder:
    """Searches the images of one index. Thread-safe.

    engine: answers queries. `refresh` replaces it; keep a reference to get several answers from one generation.
    """

    def __init__(self, engine: SearchEngine, path: Path, *, bundle: Path | None, threads: int, stamp: Stamp) -> None:
        self.engine = engine
        self.path = path
        self._bundle = bundle
        self._threads = threads
        self._stamp = stamp
        self._failure: _Failure | None = None
        self._refreshing = threading.Lock()

    @classmethod
    def open(cls, path: Path | str, *, bundle: Path | str | None = None, threads: int = 0) -> "Finder":
        """Open a library, a published index or one generation of it.

        bundle: None takes that of the index. threads: for ONNX Runtime, 0: one per core. Raises StorageError,
        BundleError, IndexMismatchError.
        """
        root = published_root(Path(path).expanduser().absolute())
        given = None if bundle is None else Path(bundle).expanduser().absolute()
        stamp = pointer_stamp(root)  # before opening, so that the next refresh finds what is published meanwhile
        engine = SearchEngine.open(root, given, threads=threads)
        return cls(engine, root, bundle=given, threads=threads, stamp=stamp)

    # Searching

    def search(self, query: str | Query | None = None, **options: Unpack[SearchOptions]) -> SearchResult:
        """Images that match a text, other images or both, best first. Raises QueryError, ImageError."""
        return self.engine.search(query_of(query, options))

    def search_many(self, queries: Sequence[str | Query]) -> list[SearchResult]:
        """Answer several queries with one pass over the vectors. Raises QueryError, ImageError."""
        return self.engine.search_many([query_of(each, {}) for each in queries])

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of texts as a search uses them: (n, dim) float32. Raises QueryError."""
        engine = self.engine
        vectors = [encoded.terms for encoded in engine.encode([Query.of_text(text) for text in texts])]
        return np.stack(vectors) if vectors else np.empty((0, engine.encoder.embedding_dim), np.float32)

    def encode_images(self, images: Sequence[ImageSource]) -> Vectors:
        """Unit vectors of images as the index holds them: (n, dim) float32. Raises ImageError."""
        encoder = self.engine.encoder
        return encoder.encode_image(_pixels(encoder, each) for each in images)

    def classify(self, image: ImageSource | str, labels: Sequence[str]) -> "list[LabelScore]":
        """Compare an image, or the image with an id, with labels. Raises QueryError, ImageError."""
        from image_finder.components.search.labels import classify  # searches do not need it

        engine = self.engine
        return classify(engine.encoder, _pixels(engine.encoder, _source(engine, image))[None], labels)[0]

    def explain(
        self,
        image: ImageSource | str,
        query: str | Query | None = None,
        *,
        at_most_px: int = 1600,
        **options: Unpack[SearchOptions],
    ) -> Explanation:
        """Regions that raise the score of an image, or the one with an id. Raises QueryError, ImageError.

        Query and options are those of `search`; `not` terms are not explained.
        """
        engine = self.engine
        (encoded,) = engine.encode([query_of(query, options)])
        return explain(engine.encoder, _readable(engine, image), encoded.terms, at_most_px=at_most_px)

    def explain_pooling(self, image: ImageSource | str, *, at_most_px: int = 1600) -> Image.Image:
        """Overlay of the attention pooling's weights, equal for every query. Raises QueryError, ImageError."""
        engine = self.engine
        return explain_pooling(engine.encoder, _readable(engine, image), at_most_px=at_most_px)

    # Images, and what can be filtered

    def image(self, identity: str) -> IndexedImage:
        """Metadata of the image with an id. Raises QueryError if there is none."""
        return self.engine.image(identity)

    def image_path(self, identity: str) -> Path:
        """Path of the image with an id; the file may be gone. Raises QueryError, DataError."""
        return self.engine.image_path(identity)

    def facets(self) -> Facets:
        return filters.facets(self.engine.index.items)

    def folder_label(self, name: str) -> str:
        """Label of a folder, given its label or path. Raises QueryError if it holds no image."""
        index = self.engine.index
        return filters.folder_label(index.items, index.manifest.roots, name)

    @property
    def index_manifest(self) -> IndexManifest:
        return self.engine.index.manifest

    @property
    def bundle_manifest(self) -> BundleManifest:
        return self.engine.encoder.bundle.manifest

    @property
    def generation(self) -> str:
        return self.engine.index.path.name

    # Following new generations

    def refresh(self) -> bool:
        """Switch to the newest generation; returns whether there was a newer one.

        Costs one stat if there is none. Running searches finish on the old generation, which stays if the new one
        cannot be opened: StorageError, BundleError or IndexMismatchError is raised, and tried again after ten seconds.
        """
        with self._refreshing:
            stamp = pointer_stamp(self.path)
            if stamp == self._stamp:
                return False
            failure = self._failure
            if failure and failure.stamp == stamp and time.monotonic() < failure.until:
                raise type(failure.error)(str(failure.error)) from failure.error
            try:
                engine = SearchEngine.open(self.path, self._bundle, threads=self._threads, opened=self.engine.encoder)
            except FinderError as error:
                self._failure = _Failure(stamp, time.monotonic() + _RETRY_S, error)
                raise
            newer = engine.index.path != self.engine.index.path
            self.engine, self._stamp, self._failure = engine, stamp, None
            return newer


def _source(engine: SearchEngine, image: ImageSource | str) -> ImageSource:
    return engine.image_source(image) if isinstance(image, str) else image


def _readable(engine: SearchEngine, image: ImageSource | str) -> Path | bytes:
    source = _source(engine, image)
    return image_bytes(source) if isinstance(source, Image.Image) else source


def _pixels(encoder: OnnxEncoder, image: ImageSource) -> Pixels:
    if isinstance(image, Image.Image):
        return encoder.preprocess.pixels(upright_rgb(image))
    return encoder.preprocess.load(image)
