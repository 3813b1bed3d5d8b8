"""Bundles of a library: the choice of the next one, and the copies inside the library."""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

from image_finder.components.bundle.bundle import Bundle, BundleManifest
from image_finder.components.errors import BundleError, StorageError
from image_finder.components.index.format import read_manifest
from image_finder.components.index.generations import POINTER
from image_finder.components.index.index import VectorIndex
from image_finder.components.index.publish import default_bundle, keep_bundle
from image_finder.components.library.catalog import Catalog
from image_finder.components.library.index_options import IndexOptions
from image_finder.components.library.library import Library
from image_finder.components.storage import write_errors

_SETTING = "bundle"
_SINCE = "bundle_since_ns"
_NEXT = "next_bundle"  # images are being embedded with it, and it is published later


def used_bundle(library: Library, catalog: Catalog) -> str:
    """Hash of the bundle the library was last indexed with; "" if unknown."""
    if known := catalog.setting(_SETTING):
        return known
    try:
        return VectorIndex.open(library.index, verify=False).manifest.bundle_sha256
    except StorageError:
        return ""


def choose_bundle(library: Library, catalog: Catalog, options: IndexOptions, *, warn: Callable[[str], None]) -> Bundle:
    """Choose the bundle to index with, and copy it into the library.

    In this order: the given one, a default one published after the library chose its own, its own, the starter. Raises
    BundleError if there is none, StorageError.
    """
    if options.bundle is not None:
        return keep(library, Bundle.open(options.bundle))
    used, defaults = used_bundle(library, catalog), options.default_bundles
    if defaults is not None and (not used or published_ns(defaults) > int(catalog.setting(_SINCE) or 0)):
        try:
            if newer := default_bundle(defaults):
                return keep(library, Bundle.open(newer))
        except (BundleError, StorageError) as error:
            if not used:
                raise
            warn(f"the newer bundle in {defaults} is not used: {error}")
    return _own(library, used, options) if used else _first(library, options)


def _first(library: Library, options: IndexOptions) -> Bundle:
    kept = sorted(library.bundles.glob("[0-9a-f]*"))
    if len(kept) == 1:  # the first run was stopped after it had copied its bundle
        return Bundle.open(kept[0])
    if options.starter is not None:
        return keep(library, options.starter())
    published = f" to {options.default_bundles}" if options.default_bundles else ""
    raise BundleError(
        f"no bundle to index with: none was published{published}; train one with "
        "'image-finder pipeline run training' and 'indexing', or name one with --bundle"
    )


def remember_bundle(catalog: Catalog, bundle: Bundle, chosen_ns: int) -> None:
    """Record the chosen bundle, and when it was chosen in nanoseconds since 1970; the caller commits."""
    catalog.set(**{_SETTING: bundle.sha256, _SINCE: str(chosen_ns)})
    if catalog.setting(_NEXT) == bundle.sha256:
        catalog.set(**{_NEXT: ""})


def remember_next_bundle(catalog: Catalog, bundle: Bundle) -> None:
    catalog.set(**{_NEXT: bundle.sha256})


def published_ns(bundles: Path) -> int:
    """Time of the last publication of a default bundle, nanoseconds since 1970; 0 if never."""
    try:
        return (bundles / POINTER).stat().st_mtime_ns
    except OSError:
        return 0


def remove_unused(library: Library, catalog: Catalog, bundle: Bundle) -> None:
    """Remove bundles that no generation and no later publication needs, except the given one."""
    needed = {bundle.sha256[:16], catalog.setting(_NEXT)[:16]}
    for generation in (library.index / "generations").glob("[0-9]*"):
        with contextlib.suppress(OSError, StorageError):  # damaged: nobody can search it
            needed.add(read_manifest(generation).bundle_sha256[:16])
    for folder in library.bundles.iterdir():
        if folder.name not in needed:
            shutil.rmtree(folder, ignore_errors=True)


def _own(library: Library, sha256: str, options: IndexOptions) -> Bundle:
    """The library's copy of the bundle; if damaged, copied again from the default bundles or the starter."""
    home, defaults = library.bundles / sha256[:16], options.default_bundles
    try:
        return Bundle.open(home)
    except BundleError:
        source = defaults / sha256[:16] if defaults is not None else None
        if source is not None and source.is_dir():
            return keep(library, Bundle.open(source))
        if options.starter is None or not _is_starter(home) or (starter := options.starter()).sha256 != sha256:
            raise
        return keep(library, starter)


def _is_starter(path: Path) -> bool:
    try:
        return BundleManifest.read(path).starter
    except BundleError:
        return False


def keep(library: Library, bundle: Bundle) -> Bundle:
    try:
        return Bundle.open(keep_bundle(bundle, library.bundles))
    except BundleError:  # the existing copy is damaged
        with write_errors(library.bundles):
            shutil.rmtree(library.bundles / bundle.sha256[:16])
        return Bundle.open(keep_bundle(bundle, library.bundles))
