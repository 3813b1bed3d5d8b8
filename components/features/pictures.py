"""Features of pictures: decode and infer side by side, keep the result by picture content.

Used for the frozen trunk's features and for a gallery's embeddings alike; knows nothing of what the graph computes.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from components.data.preprocess import Pixels, Preprocess
from components.errors import PictureError
from components.features.content_cache import ContentCache
from components.storage import sha256_of_bytes

Infer = Callable[[Pixels], NDArray[Any]]


class PictureKeys(NamedTuple):
    """Content hash of each readable picture and the one-line reason of each that is not, by path."""

    keys: dict[Path, str]
    failures: dict[Path, str]


class _Decoded(NamedTuple):
    path: Path
    key: str
    pixels: Pixels | None  # None: already cached
    failure: str


def cache_pictures(
    paths: Sequence[Path],
    preprocess: Preprocess,
    infer: Infer,
    cache: ContentCache,
    *,
    batch: int = 32,
    decode_threads: int = 2,
    title: str = "",
) -> PictureKeys:
    """Make sure the cache holds an entry for each readable picture; equal content is computed once.

    infer: (n, H, W, 3) uint8 to (n, rows, width). title: of the progress bar on stderr; empty: no bar. Raises
    StorageError.
    """
    keys: dict[Path, str] = {}
    failures: dict[Path, str] = {}
    pending: dict[str, Pixels] = {}
    with (
        cache,
        ThreadPoolExecutor(decode_threads) as pool,
        tqdm(total=len(paths), desc=title, unit="pic", disable=not title) as bar,
    ):
        for decoded in _in_order(pool, lambda path: _decode(path, preprocess, cache), paths, ahead=2 * batch):
            bar.update()
            if decoded.failure:
                failures[decoded.path] = decoded.failure
                continue
            keys[decoded.path] = decoded.key
            if decoded.pixels is not None:
                pending.setdefault(decoded.key, decoded.pixels)
            if len(pending) >= batch:
                _flush(pending, infer, cache)
        _flush(pending, infer, cache)
    return PictureKeys(keys, failures)


def _decode(path: Path, preprocess: Preprocess, cache: ContentCache) -> _Decoded:
    try:
        data = path.read_bytes()
        key = sha256_of_bytes(data)
        return _Decoded(path, key, None if key in cache else preprocess.load(data), "")
    except PictureError as error:
        return _Decoded(path, "", None, str(error))
    except OSError as error:
        return _Decoded(path, "", None, f"cannot be read: {error.strerror}")


def _flush(pending: dict[str, Pixels], infer: Infer, cache: ContentCache) -> None:
    # A copy of a picture that was in flight when its twin was written is already there by now.
    fresh = {key: pixels for key, pixels in pending.items() if key not in cache}
    if fresh:
        cache.append(list(fresh), list(infer(np.stack(list(fresh.values())))))
    pending.clear()


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[Path], _Decoded], paths: Iterable[Path], *, ahead: int
) -> Iterator[_Decoded]:
    """Like pool.map, but with at most `ahead` results in flight, so that memory stays flat."""
    remaining = iter(paths)
    queue: list[Future[_Decoded]] = [pool.submit(work, path) for path in itertools.islice(remaining, ahead)]
    while queue:
        yield queue.pop(0).result()
        queue.extend(pool.submit(work, path) for path in itertools.islice(remaining, 1))
