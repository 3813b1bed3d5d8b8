"""Image features: decodes and infers in parallel and stores the results by image content.

Serves frozen-trunk features and gallery embeddings alike; knows nothing of the inferred values.
"""

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from image_finder.components.errors import ImageError
from image_finder.components.images.files import read_image
from image_finder.components.images.preprocess import Pixels
from image_finder.components.storage import sha256_of_bytes
from image_finder.components.text import one_line

Infer = Callable[[Pixels], NDArray[Any]]
ReadFile = Callable[[Path], bytes]  # raises ImageError, OSError
OnImage = Callable[[Path, str, str], None]  # path, content hash, reason why it is unreadable or ""


class Entries(Protocol):
    """Store of entries: a ContentCache, or memory. Appended to only inside a with statement."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __contains__(self, key: object) -> bool: ...

    def append(self, keys: Sequence[str], entries: Sequence[NDArray[Any]]) -> None:
        """Store entries (rows, width) under new keys."""
        ...


class LoadsPixels(Protocol):
    """Decodes a file into a model's input: a Preprocess or a View."""

    def load(self, source: bytes) -> Pixels:
        """(H, W, 3) uint8. Raises ImageError."""
        ...


class ImageKeys(NamedTuple):
    """Content hash of each readable image and reason for each unreadable one, by path."""

    keys: dict[Path, str]
    failures: dict[Path, str]


class _Decoded(NamedTuple):
    path: Path
    key: str
    pixels: Pixels | None  # None: already cached
    failure: str


def cache_images(
    paths: Sequence[Path],
    preprocess: LoadsPixels,
    infer: Infer,
    cache: Entries,
    *,
    batch: int = 32,
    decode_threads: int = 2,
    infer_threads: int = 1,
    title: str = "",
    on_image: OnImage | None = None,
    read: ReadFile = read_image,
) -> ImageKeys:
    """Compute and store missing entries of readable images; equal content is computed once.

    infer: maps (n <= batch, H, W, 3) uint8 to (n, rows, width), in infer_threads threads. title: of the progress bar;
    empty: no bar. on_image: called in order on the calling thread once an image is decoded; its entry may be stored
    later. read: in the decoding threads. An interrupted call keeps finished entries. Raises StorageError.
    """
    keys: dict[Path, str] = {}
    failures: dict[Path, str] = {}
    with (
        cache,
        _threads(decode_threads) as decoders,
        _threads(infer_threads) as inferrers,
        tqdm(total=len(paths), desc=title, unit="pic", disable=not title) as bar,
    ):
        batches = _Batches(infer, cache, inferrers, size=batch, ahead=infer_threads)
        for decoded in _in_order(decoders, lambda path: _decode(path, read, preprocess, cache), paths, ahead=2 * batch):
            bar.update()
            if on_image is not None:
                on_image(decoded.path, decoded.key, decoded.failure)
            if decoded.failure:
                failures[decoded.path] = decoded.failure
                continue
            keys[decoded.path] = decoded.key
            if decoded.pixels is not None:
                batches.add(decoded.key, decoded.pixels)
        batches.finish()
    return ImageKeys(keys, failures)


class _Batches:
    """Infers batches in a thread pool and stores the results in order; waits when `ahead` are being inferred."""

    def __init__(self, infer: Infer, cache: Entries, pool: ThreadPoolExecutor, *, size: int, ahead: int) -> None:
        self._infer = infer
        self._cache = cache
        self._pool = pool
        self._size = size
        self._ahead = ahead
        self._filling: dict[str, Pixels] = {}
        self._running: deque[tuple[list[str], Future[NDArray[Any]]]] = deque()
        self._taken: set[str] = set()

    def add(self, key: str, pixels: Pixels) -> None:
        if key in self._taken:  # a copy of an image whose entry is not stored yet
            return
        self._taken.add(key)
        self._filling[key] = pixels
        if len(self._filling) == self._size:
            self._start()

    def finish(self) -> None:
        if self._filling:
            self._start()
        while self._running:
            self._keep_oldest()

    def _start(self) -> None:
        pixels = np.stack(list(self._filling.values()))
        self._running.append((list(self._filling), self._pool.submit(self._infer, pixels)))
        self._filling.clear()
        while len(self._running) > self._ahead:
            self._keep_oldest()

    def _keep_oldest(self) -> None:
        keys, entries = self._running.popleft()
        self._cache.append(keys, list(entries.result()))


def _decode(path: Path, read: ReadFile, preprocess: LoadsPixels, cache: Entries) -> _Decoded:
    try:
        data = read(path)
        key = sha256_of_bytes(data)
        return _Decoded(path, key, None if key in cache else preprocess.load(data), "")
    except ImageError as error:
        return _Decoded(path, "", None, str(error))
    except (OSError, MemoryError) as error:
        return _Decoded(path, "", None, unreadable(error))


def unreadable(error: OSError | MemoryError) -> str:
    if isinstance(error, MemoryError):
        return "cannot be read: not enough memory"
    # errors of object stores have a message but no errno
    return f"cannot be read: {error.strerror or one_line(error)}"


@contextlib.contextmanager
def _threads(number: int) -> Iterator[ThreadPoolExecutor]:
    """A pool that cancels waiting tasks on exit, so that an interrupted run ends at once."""
    pool = ThreadPoolExecutor(number)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[Path], _Decoded], paths: Iterable[Path], *, ahead: int
) -> Iterator[_Decoded]:
    """Like pool.map, with at most `ahead` pending results to bound memory."""
    remaining = iter(paths)
    queue: deque[Future[_Decoded]] = deque(pool.submit(work, path) for path in itertools.islice(remaining, ahead))
    while queue:
        yield queue.popleft().result()
        queue.extend(pool.submit(work, path) for path in itertools.islice(remaining, 1))
