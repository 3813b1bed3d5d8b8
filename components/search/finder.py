"""Finder: the one object for programs that search images; knows nothing of command lines and of HTTP.

    from pathlib import Path
    from image_finder import Finder

    finder = Finder.open("~/.local/share/image-finder/library")
    for hit in finder.search("a dog running on the beach", k=5, since="2024-06-01").hits:
        print(f"{hit.score:.2f} {hit.uri}")
    more = finder.search(images=Path("beach.jpg"), not_terms="people")
    finder.explain(more.hits[0].id, "a dog").overlay.save("why.jpg")

An image is a Path, the bytes of a file or a Pillow image; where it is said, also the id of a hit, a str.
"""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, Unpack

import numpy as np
from PIL import Image

from image_finder.components.arrays import Vectors
from image_finder.components.bundle.bundle import Bundle, BundleManifest
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.errors import FinderError, StorageError
from image_finder.components.images.decoding import upright_rgb
from image_finder.components.images.preprocess import Pixels
from image_finder.components.index.generations import POINTER, is_published_root
from image_finder.components.index.index import IndexManifest, VectorIndex
from image_finder.components.records.search import Facets, IndexedImage, SearchResult
from image_finder.components.search.engine import SearchEngine
from image_finder.components.search.explain import Explanation, explain, explain_pooling
from image_finder.components.search.query import Query
from image_finder.components.search.search_options import ImageSource, SearchOptions, image_bytes, query_of

if TYPE_CHECKING:
    from image_finder.components.search.labels import LabelScore

_INDEX_FOLDER = "index"
_OPENING_TRIES = 3  # a writer that publishes twice while a generation is being opened takes it away
_RETRY_S = 10.0  # opening hashes the whole index: one that is damaged is not for every tick of a server

_Stamp: TypeAlias = tuple[int, int, int] | None


class _Failure(NamedTuple):
    """An index that could not be opened, and until when (time.monotonic) it is not tried again."""

    stamp: _Stamp
    until: float
    error: FinderError


class Finder:
    """Searches the images of one index. Any method may be called from any number of threads at a time.

    engine: what answers. `refresh` puts another one in its place, so whoever wants several answers of the same
    generation takes it once.
    """

    def __init__(self, engine: SearchEngine, path: Path, *, bundle: Path | None, threads: int, stamp: _Stamp) -> None:
        """Use Finder.open."""
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

        bundle: folder of the model; None takes the one the index was made with. threads: of ONNX Runtime, 0 takes one
        a core. Raises StorageError if there is no index or it is damaged, BundleError, IndexMismatchError.
        """
        place = _index_of(Path(path).expanduser().absolute())
        given = None if bundle is None else Path(bundle).expanduser().absolute()
        stamp = _stamp_of(place)  # before it is opened: what is published meanwhile is found by the next refresh
        index = _open_index(place)
        engine = SearchEngine(index, _open_encoder(given or Path(index.manifest.bundle_uri), threads))
        return cls(engine, place, bundle=given, threads=threads, stamp=stamp)

    # Searching

    def search(self, query: str | Query | None = None, **options: Unpack[SearchOptions]) -> SearchResult:
        """Images that fit a text, other images (`images=`, `like=`) or both, best first.

        Raises QueryError for what cannot be asked, ImageError for an image that cannot be read.
        """
        return self.engine.search(query_of(query, options))

    def search_many(self, queries: Sequence[str | Query]) -> list[SearchResult]:
        """Answers to several queries, with one pass over the vectors. Raises QueryError, ImageError."""
        return self.engine.search_many([query_of(each, {}) for each in queries])

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of texts as a search for them uses them: (n, dim) float32. Raises QueryError."""
        engine = self.engine
        vectors = [encoded.terms for encoded in engine.encode([Query.of_text(text) for text in texts])]
        return np.stack(vectors) if vectors else np.empty((0, engine.encoder.embedding_dim), np.float32)

    def encode_images(self, images: Sequence[ImageSource]) -> Vectors:
        """Unit vectors of images as the index holds them: (n, dim) float32. Raises ImageError."""
        encoder = self.engine.encoder
        return encoder.encode_image(_pixels(encoder, each) for each in images)

    def classify(self, image: ImageSource | str, labels: Sequence[str]) -> "list[LabelScore]":
        """How well each of some labels fits an image, or the image with an id. Raises QueryError, ImageError."""
        from image_finder.components.search.labels import classify  # here, since a search has no use for it

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
        """Which regions of an image, or the image with an id, raise its score for a query; its overlay shows them.

        The query is given as for `search`; its `not` terms are no part of the explanation.
        Raises QueryError, ImageError.
        """
        engine = self.engine
        (encoded,) = engine.encode([query_of(query, options)])
        return explain(engine.encoder, _readable(engine, image), encoded.terms, at_most_px=at_most_px)

    def explain_pooling(self, image: ImageSource | str, *, at_most_px: int = 1600) -> Image.Image:
        """Overlay of the attention pooling's weights, which are equal for every query; a view for experts.

        Raises QueryError for an unknown id, ImageError.
        """
        engine = self.engine
        return explain_pooling(engine.encoder, _readable(engine, image), at_most_px=at_most_px)

    # What there is to be found

    def image(self, identity: str) -> IndexedImage:
        """What is known of the image with an id. Raises QueryError if there is none."""
        return self.engine.image(identity)

    def image_path(self, identity: str) -> Path:
        """Its file, which may have gone since. Raises QueryError, DataError if it is outside the indexed folders."""
        return self.engine.image_path(identity)

    def facets(self) -> Facets:
        """Folders, cameras and days that the filters can choose among."""
        return self.engine.facets()

    def folder_label(self, name: str) -> str:
        """What the filter `folders` takes, for a folder named by its label or by its absolute or relative path.

        Raises QueryError if it holds no image of the index.
        """
        return self.engine.folder_label(name)

    @property
    def index_manifest(self) -> IndexManifest:
        """What the index says of itself."""
        return self.engine.index.manifest

    @property
    def bundle_manifest(self) -> BundleManifest:
        """What the model says of itself."""
        return self.engine.encoder.bundle.manifest

    @property
    def generation(self) -> str:
        """Name of the generation that answers."""
        return self.engine.index.path.name

    # Keeping up

    def refresh(self) -> bool:
        """Go over to the generation that was published last; whether there was a newer one.

        Costs a stat when there is none. Searches that run go on with the one they began with, and an encoder is kept as
        long as its bundle is the one of the index. If the newer one cannot be opened, the old one stays, the fault is
        raised (StorageError, BundleError, IndexMismatchError), and opening it is tried again after ten seconds.
        """
        with self._refreshing:
            stamp = _stamp_of(self.path)
            if stamp == self._stamp:
                return False
            failure = self._failure
            if failure and failure.stamp == stamp and time.monotonic() < failure.until:
                raise type(failure.error)(str(failure.error)) from failure.error
            try:
                engine = self._open_newest()
            except FinderError as error:
                self._failure = _Failure(stamp, time.monotonic() + _RETRY_S, error)
                raise
            newer = engine.index.path != self.engine.index.path
            self.engine, self._stamp, self._failure = engine, stamp, None
            return newer

    def _open_newest(self) -> SearchEngine:
        index = _open_index(self.path)
        encoder = self.engine.encoder
        same = encoder.bundle.sha256 == index.manifest.bundle_sha256
        if not self._bundle and not (same and encoder.bundle.path.is_dir()):
            encoder = _open_encoder(Path(index.manifest.bundle_uri), self._threads)
        return SearchEngine(index, encoder)


def _index_of(path: Path) -> Path:
    """The published root of a library, or the path itself."""
    below = path / _INDEX_FOLDER
    return below if is_published_root(below) and not is_published_root(path) else path


def _stamp_of(place: Path) -> _Stamp:
    """What changes with every publication; None for a generation's own folder, which never changes."""
    try:
        status = (place / POINTER).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _open_index(place: Path) -> VectorIndex:
    tries = _OPENING_TRIES
    while True:
        tries -= 1
        stamp = _stamp_of(place)
        try:
            return VectorIndex.open(place)
        except OSError as error:
            fault = StorageError(f"index {place} cannot be read: {error.strerror}; check its permissions")
            fault.__cause__ = error
        except StorageError as error:
            fault = error
        if not tries or _stamp_of(place) == stamp:
            raise fault


def _open_encoder(bundle: Path, threads: int) -> OnnxEncoder:
    return OnnxEncoder(Bundle.open(bundle), device="cpu", threads=threads)


def _source(engine: SearchEngine, image: ImageSource | str) -> ImageSource:
    return engine.image_path(image) if isinstance(image, str) else image


def _readable(engine: SearchEngine, image: ImageSource | str) -> Path | bytes:
    source = _source(engine, image)
    return image_bytes(source) if isinstance(source, Image.Image) else source


def _pixels(encoder: OnnxEncoder, image: ImageSource) -> Pixels:
    """Pixels of one image: (input_px, input_px, 3) uint8. Raises ImageError."""
    if isinstance(image, Image.Image):
        return encoder.preprocess.pixels(upright_rgb(image))
    return encoder.preprocess.load(image)
