"""Former home: brings a home of an earlier version, which had a second index beside the library, up to date.

Items, captions and vectors of that index become a source of the library; nothing is embedded. Each step can be repeated,
and the former index goes last: a migration that was killed is completed by the next command.
"""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Collection
from pathlib import Path

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import EmbeddingConfig
from image_finder.components.errors import BundleError, StorageError
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.index.format import read_manifest, write_manifest
from image_finder.components.index.generations import POINTER, current_generation, is_published_root
from image_finder.components.index.index import VectorIndex
from image_finder.components.index.publish import current_bundle_sha256, generation_of_bundle_before
from image_finder.components.index.vector_cache import joined_rows
from image_finder.components.library.bundles import keep, published_ns, remember_bundle
from image_finder.components.library.catalog import PUBLISHED, Catalog, base_of
from image_finder.components.library.library import Library
from image_finder.components.library.publishing import publish_rows
from image_finder.components.library.recovery import captions_of, put_captions, row_of_item
from image_finder.components.library.vectors import open_vectors
from image_finder.components.storage import new_directory
from image_finder.components.system import path_bytes
from image_finder.components.temporaries import temporary_directory
from image_finder.components.text import counted

logger = logging.getLogger(__name__)

_FORMER_INDEX = "index"
_WAIT_S = 60.0  # for a process that is migrating or indexing
_ROWS_AT_ONCE = 65_536


def bring_up_to_date(home: Path) -> None:
    """Make the former index of a home a source of its library, and rename its cache. Quick where there is none.

    A home that cannot be written stays as it is. Several processes may call it at a time. Raises StorageError.
    """
    _rename_cache(home / "cache")
    if not is_published_root(home / _FORMER_INDEX) or not os.access(home, os.W_OK):
        return
    library = Library(home / "library")
    with library.writing(wait_s=_WAIT_S):
        if is_published_root(home / _FORMER_INDEX):  # else another process did it meanwhile
            _adopt_index(home, library)


def _rename_cache(cache: Path) -> None:
    former, now = cache / "pictures", cache / "images"
    if not former.is_dir():
        return
    with contextlib.suppress(OSError):  # another process did it, or the home cannot be written: it is made again
        now.mkdir(exist_ok=True)
        for entry in former.iterdir():
            if not (now / entry.name).exists():
                entry.rename(now / entry.name)
        shutil.rmtree(former)


def _adopt_index(home: Path, library: Library) -> None:
    former = home / _FORMER_INDEX
    try:
        index = VectorIndex.open(former)
        bundle = keep(library, Bundle.open(Path(index.manifest.bundle_uri)))
    except (StorageError, BundleError) as error:
        aside = former.with_name("index.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        former.rename(aside)
        logger.warning("the former index of %s cannot be read: %s; it was moved to %s", home, error, aside.name)
        return
    with Catalog.open(library.catalog, warn=logger.warning) as catalog:
        _move_vectors(home, library)
        cache = open_vectors(library, bundle, warn=logger.warning)
        _keep_vectors(cache, index)
        _keep_items(catalog, index)
        catalog.commit()
        if _is_searched(former, library):
            _keep_generations(home, library, generation_of_bundle_before(former))
            _publish(home, library, catalog, bundle, cache)
        else:
            _keep_generations(home, library, [current_generation(former).name])
            _warn_of_rest(index.manifest.count)
    with temporary_directory(home / "index-adopted") as unused:
        former.rename(unused / former.name)
    images = counted(index.manifest.count, "image")
    logger.warning("the index in %s, %s, is a source of the library %s now", former, images, library.root)


def _move_vectors(home: Path, library: Library) -> None:
    for folder in (home / "cache").glob("vectors-*"):
        if not (library.root / folder.name).exists():
            folder.rename(library.root / folder.name)


def _keep_vectors(cache: ContentCache, index: VectorIndex) -> None:
    contents = index.items["sha256"].to_pylist()
    first = {sha256: row for row, sha256 in reversed([*enumerate(contents)]) if sha256 not in cache}
    missing, hashes = sorted(first.values()), index.items["dhash"].to_numpy()
    with cache:
        for start in range(0, len(missing), _ROWS_AT_ONCE):
            rows = missing[start : start + _ROWS_AT_ONCE]
            cache.append([contents[row] for row in rows], list(joined_rows(index.vectors[rows], hashes[rows])[:, None]))


def _keep_items(catalog: Catalog, index: VectorIndex) -> None:
    """Add the roots as sources, with what is known of their files; what the catalogue knows of a file stays."""
    identities = catalog.folder_ids()
    added = [root for root in map(path_bytes, index.manifest.roots) if root not in identities]
    identities |= {root: catalog.add_folder(root) for root in added}
    bases = {identity: base_of(root) for root, identity in identities.items()}
    known, _ = catalog.files_by_path()
    roots = [identities[path_bytes(root)] for root in index.manifest.roots]
    rows = (row_of_item(item, roots[item["root"]]) for item in index.items.to_pylist())
    catalog.put(row for row in rows if bases[row.folder] + row.path not in known)
    for root, captions in captions_of(index).items():
        if identities[root] not in catalog.galleries():
            put_captions(catalog, identities[root], captions, listed=root in added)
    catalog.set(**{PUBLISHED: ""})


def _keep_generations(home: Path, library: Library, names: Collection[str]) -> None:
    for name in names:
        folder = home / _FORMER_INDEX / "generations" / name
        target = library.index / "generations" / name
        if target.exists():
            continue
        try:
            manifest = read_manifest(folder)
            kept = keep(library, Bundle.open(Path(manifest.bundle_uri)))
        except (StorageError, BundleError):  # nobody can go back to it
            continue
        with new_directory(target) as copy:
            shutil.copytree(folder, copy, dirs_exist_ok=True)
            write_manifest(copy, manifest.model_copy(update={"bundle_uri": str(kept.path)}), base=home)


def _is_searched(former: Path, library: Library) -> bool:
    """Whether searches used the former index, or the library belongs to the same bundle."""
    if not is_published_root(library.index) or current_bundle_sha256(library.index) == current_bundle_sha256(former):
        return True
    return (former / POINTER).stat().st_mtime_ns > (library.index / POINTER).stat().st_mtime_ns


def _publish(home: Path, library: Library, catalog: Catalog, bundle: Bundle, cache: ContentCache) -> None:
    known, _ = catalog.files_by_path()
    rows = sorted(row for row in known.values() if row.error or row.sha256 in cache)
    publish_rows(library, catalog, bundle, cache, rows, home=home, config=EmbeddingConfig())
    if left := len(known) - len(rows):
        _warn_of_rest(left)
    remember_bundle(catalog, bundle, max(time.time_ns(), published_ns(home / "bundles")))
    catalog.commit()


def _warn_of_rest(n_images: int) -> None:
    are, them = ("is", "it") if n_images == 1 else ("are", "them")
    images = counted(n_images, "image")
    logger.warning("%s %s not searched until 'image-finder index' has embedded %s", images, are, them)
