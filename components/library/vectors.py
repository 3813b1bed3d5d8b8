"""Vectors of a library: opens the vector cache, repairs it, and compacts it."""

import contextlib
import shutil
from collections.abc import Callable, Collection
from itertools import islice
from pathlib import Path

from image_finder.components import system
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.errors import BundleError, StorageError
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.index.vector_cache import vector_cache, vector_maker
from image_finder.components.library.library import Library
from image_finder.components.storage import write_errors

_CHUNK = 4096
_WORTH_IT = 1000  # unused entries


def open_vectors(library: Library, bundle: Bundle, *, warn: Callable[[str], None]) -> ContentCache:
    """The cache of a bundle's vectors; a damaged one is removed with a warning. Needs the library's lock."""
    for unfinished in library.root.glob("vectors-*.smaller"):  # left by a killed run
        shutil.rmtree(unfinished, ignore_errors=True)
    for retired in library.root.glob("vectors-*.retired"):  # left by a run that was killed while it compacted the cache
        with write_errors(retired):
            if retired.with_suffix("").exists():
                shutil.rmtree(retired)
            else:
                retired.rename(retired.with_suffix(""))
    try:
        return vector_cache(bundle, library.root)
    except StorageError as error:
        damaged = [folder for folder in library.root.glob("vectors-*") if str(folder) in str(error)]
        if not damaged:
            raise
        warn(f"{error}; it was removed, and its vectors are computed again")
        with write_errors(damaged[0]):
            shutil.rmtree(damaged[0])
        return vector_cache(bundle, library.root)


def compact(cache: ContentCache, used: Collection[str]) -> bool:
    """Drop unused entries if they are more than 1,000 and the majority; returns whether it did.

    On Windows not while another process has them mapped. If it is killed, open_vectors finds either the old cache or the new one. Raises StorageError.
    """
    unused = len(cache) - len(used)
    if unused <= max(_WORTH_IT, len(used)):
        return False
    smaller = cache.folder.with_name(cache.folder.name + ".smaller")
    retired = cache.folder.with_name(cache.folder.name + ".retired")
    with write_errors(cache.folder):
        shutil.rmtree(smaller, ignore_errors=True)
        _copy(cache, smaller, used)
        cache.unmap()
        try:
            system.rename(cache.folder, retired)
        except PermissionError as error:
            if not system.is_in_use(error):
                raise
            shutil.rmtree(smaller, ignore_errors=True)
            return False  # a search has the vectors mapped; the next update tries again
        system.rename(smaller, cache.folder)
        shutil.rmtree(retired, ignore_errors=True)
    return True


def remove_other_vectors(library: Library, cache: ContentCache) -> None:
    """Remove vector caches of bundles that the library no longer has; a rollback needs the rest."""
    needed = {cache.folder.name}
    for folder in library.bundles.glob("[0-9a-f]*"):
        with contextlib.suppress(BundleError):  # damaged: it cannot embed anything
            needed.add(f"vectors-{vector_maker(Bundle.open(folder, verify=False))[:16]}")
    for folder in library.root.glob("vectors-*"):
        if folder.name not in needed:
            shutil.rmtree(folder, ignore_errors=True)


def _copy(cache: ContentCache, folder: Path, keys: Collection[str]) -> None:
    copy = ContentCache(folder, width=cache.width, dtype=cache.dtype_name, maker=cache.maker)
    remaining = iter(keys)
    with copy:
        while chunk := list(islice(remaining, _CHUNK)):
            starts, counts = cache.spans(chunk)
            parts = [cache.rows[start : start + n] for start, n in zip(starts, counts, strict=True)]
            copy.append(chunk, parts)
