"""Image features: decodes and infers in parallel and stores the results by image content.

Serves frozen-trunk features and gallery embeddings alike; knows nothing of the inferred values.
"""

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from image_finder.components.errors import ImageError
from image_finder.components.images.files import read_image
from image_finder.components.images.preprocess import Pixels
from image_finder.components.progress_bar import progress_bar
from image_finder.components.storage import sha256_of_bytes
from image_finder.components.text import one_line

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
Infer = Callable[[Pixels], NDArray[Any]]
ReadFile = Callable[[Path], bytes]  # raises ImageError, OSError
OnImage = Callable[[Path, str, str], None]  # path, content hash, reason why it is unreadable or ""


class Entries(Protocol):
    """Store of entries: a ContentCache, or memory. Appended to only inside a with statement."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

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
        progress_bar(total=len(paths), desc=title, unit=" images", shown=bool(title)) as bar,
    ):

        def missing() -> Iterator[tuple[str, Pixels]]:
            queued: set[str] = set()  # a copy of an image can follow before its entry is stored
            for image in _in_order(decoders, lambda path: _decode(path, read, preprocess, cache), paths, 2 * batch):
                bar.update()
                if on_image is not None:
                    on_image(image.path, image.key, image.failure)
                if image.failure:
                    failures[image.path] = image.failure
                    continue
                keys[image.path] = image.key
                if image.pixels is not None and image.key not in queued:
                    queued.add(image.key)
                    yield image.key, image.pixels

        def infer_batch(images: list[tuple[str, Pixels]]) -> tuple[list[str], NDArray[Any]]:
            return [key for key, _ in images], infer(np.stack([pixels for _, pixels in images]))

        # One more than is being inferred: the next batch is collected meanwhile.
        for stored, entries in _in_order(inferrers, infer_batch, _batches(missing(), batch), infer_threads + 1):
            cache.append(stored, list(entries))
    return ImageKeys(keys, failures)


def _batches(items: Iterator[_Item], size: int) -> Iterator[list[_Item]]:
    while batch := list(itertools.islice(items, size)):
        yield batch


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
    pool: ThreadPoolExecutor, work: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int
) -> Iterator[_Result]:
    """Like pool.map, with at most `ahead` pending results to bound memory."""
    remaining = iter(items)
    queue = deque(pool.submit(work, item) for item in itertools.islice(remaining, ahead))
    while queue:
        yield queue.popleft().result()
        queue.extend(pool.submit(work, item) for item in itertools.islice(remaining, 1))
