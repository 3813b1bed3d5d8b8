"""Sources of a library: directories, annotated galleries and object stores, and their files and captions.

A source is a folder of the catalogue. A gallery also has facts: its annotation file or URI, and whether only annotated
images belong to it. The catalogue stores the captions, so that they remain without the annotation file.
"""

import os
import re
from collections.abc import Collection, Container, Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from pydantic import ValidationError

from image_finder.components.captions.annotated_images import captions_by_image
from image_finder.components.configs import GalleryConfig
from image_finder.components.errors import DataError
from image_finder.components.images.image_folder import ImageFolder, shown_uri, uri_below
from image_finder.components.library.catalog import Catalog, Rows, base_of
from image_finder.components.library.index_options import IndexOptions, Warn
from image_finder.components.library.library import Library, shown
from image_finder.components.library.mounts import inside
from image_finder.components.library.scan import Scan, scan_folders
from image_finder.components.phases import phase
from image_finder.components.progress_bar import progress_bar
from image_finder.components.records.base import Record
from image_finder.components.system import path_bytes, path_of_file_uri, relative_path, resolved

Captions = Mapping[bytes, tuple[str, ...]]  # by absolute path


class GalleryFacts(Record):
    uri: str = ""  # of an object store, with its options except secrets
    annotations: str = ""  # COCO captions JSON, relative to the source; "" if there is none or it is unknown
    annotations_state: str = ""  # size and modification time of that file when it was read
    listed: bool = False  # only the files that have an entry among the captions belong to the source


def is_store(root: bytes) -> bool:
    return b"://" in root


def root_of(gallery: GalleryConfig) -> bytes:
    """Root of a gallery: absolute directory, or URI without options. Raises DataError."""
    if gallery.uri and urlsplit(gallery.uri).scheme != "file":
        return shown_uri(uri_below(gallery.uri, gallery.images)).encode()
    folder = _directory(gallery)
    if not folder.is_dir():
        raise DataError(f"gallery: no such folder: {folder}; check root and images")
    return path_bytes(resolved(folder))


def gallery_facts(catalog: Catalog) -> dict[bytes, GalleryFacts]:
    roots, found = catalog.folders(), {}
    for identity, text in catalog.galleries().items():
        if identity in roots:
            try:
                found[roots[identity]] = GalleryFacts.model_validate_json(text)
            except ValidationError:  # of a later version: treated as a directory
                continue
    return found


def captions_by_path(catalog: Catalog) -> Captions:
    bases = {identity: base_of(root) for identity, root in catalog.folders().items()}
    return {bases[folder] + path: texts for (folder, path), texts in catalog.captions().items() if folder in bases}


def uris_of(catalog: Catalog) -> dict[bytes, str]:
    """URI with options of each object store, by root."""
    facts = gallery_facts(catalog)
    stores = filter(is_store, catalog.folders().values())
    return {root: facts[root].uri if root in facts and facts[root].uri else root.decode() for root in stores}


def given_uris(galleries: Sequence[GalleryConfig]) -> dict[bytes, str]:
    """URI with all options of each gallery that is an object store, by root."""
    roots = {root_of(each): each for each in galleries}
    return {root: uri_below(each.uri, each.images) for root, each in roots.items() if is_store(root)}


def settle_galleries(
    catalog: Catalog,
    galleries: Sequence[GalleryConfig],
    *,
    directories: Collection[bytes],
    named: Collection[bytes],
    warn: Warn,
) -> bool:
    """Update facts and captions of galleries; returns whether any changed. The caller commits.

    directories: existing sources that are not galleries; all their images stay. named: directories that the user gave;
    all their images belong to the library from now on. An unreadable annotation file is an error for one of
    `galleries`, otherwise a warning, and the captions read before stay. Raises DataError.
    """
    identities = catalog.folder_ids()
    before = gallery_facts(catalog), catalog.captions()
    given = {root_of(gallery): gallery for gallery in galleries}
    for root, gallery in given.items():
        facts = GalleryFacts(uri=_without_secrets(uri_below(gallery.uri, gallery.images)) if is_store(root) else "")
        captions = {}
        if gallery.annotations is not None and gallery.root is not None:
            path = gallery.root.expanduser().resolve() / gallery.annotations
            captions = _captions(path, _directory(gallery))
            facts = GalleryFacts(
                annotations=relative_path(str(path), os.fsdecode(root)),
                annotations_state=_state(path),
                listed=root not in directories,
            )
        catalog.set_gallery(identities[root], facts.model_dump_json())
        catalog.set_captions(identities[root], captions)
    for root, facts in gallery_facts(catalog).items():
        if root in named and facts.listed:
            catalog.set_gallery(identities[root], facts.model_copy(update={"listed": False}).model_dump_json())
        if root not in given and facts.annotations:
            _refresh(catalog, identities[root], root, facts, warn)
    return before != (gallery_facts(catalog), catalog.captions())


def scan_sources(library: Library, catalog: Catalog | None, roots: Sequence[bytes], options: IndexOptions) -> Scan:
    """Scan the directories among the sources; object stores become roots that are not listed."""
    folders = [root for root in roots if not is_store(root)]
    with (
        phase("scan folders"),
        progress_bar(unit=" folders", shown=options.progress, delay=1, leave=False) as bar,
    ):
        scan = scan_folders(folders, leave_out=[path_bytes(library.root)], on_folder=bar.update)
    if options.on_scan is not None:
        options.on_scan(scan)
    if catalog is not None and (facts := gallery_facts(catalog)):
        _keep_members(scan, facts, captions_by_path(catalog))
    scan.roots = (*scan.roots, *filter(is_store, roots))
    return scan


def _keep_members(scan: Scan, facts: Mapping[bytes, GalleryFacts], captions: Captions) -> None:
    """Drop files of annotated galleries that have no annotation and are in no other source."""
    listed = {position for position, root in enumerate(scan.roots) if root in facts and facts[root].listed}
    if not listed:
        return
    others = [root for root in scan.roots if root not in facts or not facts[root].listed]
    strangers = [
        path
        for path, (position, *_) in scan.files.items()
        if position in listed and path not in captions and not any(inside(path, root) for root in others)
    ]
    for path in strangers:
        del scan.files[path]


def list_stores(
    scan: Scan, uris: Mapping[bytes, str], options: IndexOptions, known: Rows, cache: Container[str]
) -> Rows:
    """Add the images of object stores to the scan; returns the rows of stores that need no listing."""
    given = given_uris(options.galleries)
    unlisted: Rows = {}
    for root, uri in uris.items():
        rows = rows_of(root, known)
        has_vectors = all(row.error or row.sha256 in cache for row in rows.values())
        if root in given or options.prune or not has_vectors:
            _list_store(scan, root, uri)
        else:
            unlisted |= rows
    return unlisted


def _list_store(scan: Scan, root: bytes, uri: str) -> None:
    position = scan.roots.index(root)
    try:
        states = ImageFolder(uri).states()
    except DataError as error:
        scan.unreadable[root] = str(error)
        return
    for path, state in states.items():
        scan.files[base_of(root) + os.fsencode(path.as_posix())] = (position, state.n_bytes, state.modified_ns)


def rows_of(root: bytes, known: Rows) -> Rows:
    return {path: row for path, row in known.items() if inside(path, root)}


def require_readable(gallery: GalleryConfig, known: Rows, warn: Warn) -> None:
    """Warn of the unreadable images of a gallery.

    Raises DataError if all are unreadable or more than max_failed_share, and for a gallery without images.
    """
    root = root_of(gallery)
    rows = rows_of(root, known)
    if not rows:
        raise DataError(f"gallery: no images in {shown(root)} and below; check the configuration of the gallery")
    failed = {path: row.error for path, row in sorted(rows.items()) if row.error}
    if not failed:
        return
    named = [f"{shown(path[len(root) :].lstrip(b'/'))}: {reason}" for path, reason in failed.items()]
    more = f"; and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    name = shown(root.rpartition(b"/")[2] or root)
    message = f"{len(failed)} of {len(rows)} images of '{name}' cannot be read ({'; '.join(named[:_NAMED])}{more})"
    if len(failed) > gallery.max_failed_share * len(rows) or len(failed) == len(rows):
        share = f"{len(failed) / len(rows):.2%}, allowed {gallery.max_failed_share:.2%}"
        raise DataError(f"{message}: {share}; repair or remove them, or raise max_failed_share")
    warn(f"{message}; they are left out of the index")


_NAMED = 5
_SECRET = re.compile("secret|key|token|password|credential", re.IGNORECASE)


def _without_secrets(uri: str) -> str:
    """The URI without options that may be credentials; later readers take those from their environment."""
    parts = urlsplit(uri)
    kept = [(name, value) for name, value in parse_qsl(parts.query) if not _SECRET.search(name)]
    return urlunsplit(parts._replace(query=urlencode(kept)))


def _directory(gallery: GalleryConfig) -> Path:
    if gallery.uri:
        return path_of_file_uri(unquote(urlsplit(gallery.uri).path)) / gallery.images
    if gallery.root is None:
        raise DataError("gallery: root is not set; name the folder of the images")
    return gallery.root.expanduser().resolve() / gallery.images


def _captions(annotations: Path, folder: Path) -> dict[bytes, tuple[str, ...]]:
    found = captions_by_image(annotations, folder)
    return {os.fsencode(path.as_posix()): captions for path, captions in found.items()}


def _refresh(catalog: Catalog, identity: int, root: bytes, facts: GalleryFacts, warn: Warn) -> None:
    folder = Path(os.fsdecode(root))
    path = Path(os.path.normpath(folder / facts.annotations))
    state = _state(path)
    if state == facts.annotations_state:
        return
    try:
        captions = _captions(path, folder)
    except DataError as error:
        if folder.is_dir():
            warn(f"{error}; the captions read before are kept")
        return
    catalog.set_captions(identity, captions)
    catalog.set_gallery(identity, facts.model_copy(update={"annotations_state": state}).model_dump_json())


def _state(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}"
