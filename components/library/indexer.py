"""Indexer: brings a library up to date with its folders and publishes what changed; searches go on meanwhile."""

import contextlib
import gc
import os
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from image_finder.components.arrays import Rows
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import EmbeddingConfig, IndexTierConfig
from image_finder.components.errors import StorageError
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.images.decoding import DECODING_VERSION
from image_finder.components.index.index import IndexManifest, VectorIndex, is_sealed
from image_finder.components.index.tiers import tier_for
from image_finder.components.library.bundles import choose_bundle, remember_bundle, remove_unused, used_bundle
from image_finder.components.library.catalog import Catalog, FileRow
from image_finder.components.library.folders import chosen_roots
from image_finder.components.library.library import Library, shown
from image_finder.components.library.losses import (
    Arrivals,
    Kept,
    Memory,
    keep_emptied,
    kept_losses,
    remembered,
    warn_of_losses,
    warn_of_unreadable,
)
from image_finder.components.library.moved_folders import adopt_folders
from image_finder.components.library.publishing import publish_rows
from image_finder.components.library.reading import PUBLISHED, Reader
from image_finder.components.library.recovery import lost_rows
from image_finder.components.library.scan import Scan, scan_folders
from image_finder.components.library.unsupported import by_kind
from image_finder.components.library.update_plan import Plan, make_plan
from image_finder.components.library.vectors import compact, open_vectors, remove_other_vectors
from image_finder.components.records.base import Record

_DISKS = "disks"  # setting: Memory.text
_DECODERS = "decoders"  # setting: versions of what decodes images
_DECODER_PACKAGES = ("text-guided-image-finder", "pillow", "pi-heif")
Warn = Callable[[str], None]


@dataclass(frozen=True)
class IndexOptions:
    """How a library is indexed."""

    config: EmbeddingConfig
    bundle: Path | None = None  # None: the library's own, or a newer default one
    default_bundles: Path | None = None  # where the pipeline publishes bundles
    starter: Callable[[], Bundle] | None = None  # makes the bundle to take where there is no other
    dry_run: bool = False
    prune: bool = False  # remove also the entries that are kept because a disk may be away
    progress: bool = False  # bars on stderr
    on_scan: Callable[[Scan], object] | None = None  # gets what the walk found, before any image is read


class IndexSummary(Record):
    """What one update did; of a dry run, what it would do, with moved files told by size and time."""

    library: str
    folders: tuple[str, ...]
    images: int  # in the index
    added: int
    changed: int
    moved: int
    copied: int  # new files whose content another file has
    removed: int
    unchanged: int
    absent: int  # known and not found, but kept
    kept: dict[str, int]  # source or disk -> those of absent that --prune removes
    vanished: int  # went while they were being indexed
    embedded: int
    failed: dict[str, str]  # file -> reason, of this run
    still_failing: int  # broken files that did not change
    unreadable: dict[str, str]  # folder or file that could not be looked at -> reason
    unsupported: dict[str, dict[str, int]]  # kind -> ending -> files of formats that are not supported
    cut: dict[str, str]  # JPEG files whose end is missing -> how much, of this run; they are indexed
    links_outside: int  # links that lead out of the folders, not followed
    bundle: str  # sha256
    published: bool
    dry_run: bool
    watching: Literal["", "events", "polling"] = ""  # how `index --watch` learns of changes, "" elsewhere
    seconds: float


def update(
    library: Library,
    folders: Sequence[Path],
    options: IndexOptions,
    *,
    forget: Sequence[Path] = (),
    warn: Warn,
) -> IndexSummary:
    """Index folders, and those the library has already, and publish; whatever stops it, the next call goes on.

    forget: folders that are removed from the library. warn: told, in one line each, of what the user should know.
    Raises DataError for a folder that is not there and for a library without folders; BundleError; StorageError, among
    others if another process is writing.
    """
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.callback(gc.unfreeze)
        if options.dry_run:
            catalog = Catalog.read(library.catalog) if library.catalog.exists() else None
        else:
            stack.enter_context(library.writing())
            catalog = Catalog.open(library.catalog, warn=warn)
        if catalog is not None:
            stack.enter_context(catalog)
            if options.default_bundles is not None and not options.dry_run:
                adopt_folders(library, catalog, options.default_bundles.parent, warn=warn)
        roots = chosen_roots(library, catalog, folders, forget, warn=warn)
        if catalog is None or options.dry_run:
            counts = _rehearse(library, catalog, roots, options, warn)
        else:
            counts = _Update(library, catalog, options, warn).run(roots)
    return IndexSummary(
        library=str(library.root), dry_run=options.dry_run, seconds=time.monotonic() - started, **counts
    )


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """While rows are made that all stay until the update's end, where gc.unfreeze gives them back.

    Looking for cycles among 100,000 of them, again and again, took 0.4 of 3.6 seconds (bench_library.py).
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def _scan(library: Library, roots: Sequence[bytes], options: IndexOptions) -> Scan:
    with tqdm(desc="looking", unit=" folders", disable=not options.progress, delay=1, leave=False) as bar:
        scan = scan_folders(roots, leave_out=[os.fsencode(library.root)], on_folder=bar.update)
    if options.on_scan is not None:
        options.on_scan(scan)
    return scan


def _known_rows(catalog: Catalog) -> tuple[Rows, int]:
    """Sound rows by absolute path, and how many were not sound."""
    bases = {identity: path.rstrip(b"/") + b"/" for identity, path in catalog.folders().items()}
    rows, damaged = catalog.files()
    known = {bases[row.folder] + row.path: row for row in rows if row.folder in bases}
    return known, damaged + len(rows) - len(known)


def _rehearse(
    library: Library, catalog: Catalog | None, roots: Sequence[bytes], options: IndexOptions, warn: Warn
) -> dict[str, Any]:
    known, damaged = _known_rows(catalog) if catalog is not None else ({}, 0)
    scan = _scan(library, roots, options)
    homes = _homes(scan, catalog.folders() if catalog is not None else {})
    incomplete = damaged > 0 or not known
    known |= lost_rows(library, scan, known, homes, incomplete=incomplete)
    emptied = keep_emptied(scan, known, prune=options.prune)
    contents = {row.sha256 for row in known.values()}
    plan = make_plan(scan, known, homes, vectors=contents, retry_failed=False)
    warn_of_unreadable(scan, known, warn)
    arrived = Counter(scan.files[path][1:] for path in plan.fresh)
    if not options.prune:
        memory = Memory.parse(catalog.setting(_DISKS) if catalog is not None else "")
        again = plan.fresh if incomplete else ()
        arrivals = Arrivals(lambda row: (row.size, row.mtime_ns), Counter(arrived), again)
        kept = kept_losses(plan.missing, known, arrivals, scan, memory)
        plan.keep(kept)
        emptied |= warn_of_losses(kept, warn)
    gone = Counter((known[path].size, known[path].mtime_ns) for path in plan.missing)
    moved = sum((gone & arrived).values())
    return {
        **_facts_of(scan, plan),
        "kept": emptied,
        "images": plan.unchanged + len(plan.absent) + len(plan.altered) + len(plan.fresh),
        "added": len(plan.fresh) - moved,
        "changed": len(plan.altered),
        "moved": moved,
        "copied": 0,
        "removed": len(plan.missing) - moved,
        "unchanged": plan.unchanged,
        "vanished": 0,
        "embedded": 0,
        "failed": {},
        "cut": {},
        "bundle": used_bundle(library, catalog) if catalog is not None else "",
        "published": False,
    }


def _homes(scan: Scan, ids: dict[int, bytes]) -> dict[int, int]:
    """Id of each root by its position in the scan; -1 - position for one that has none."""
    by_path = {path: identity for identity, path in ids.items()}
    return {position: by_path.get(root, -1 - position) for position, root in enumerate(scan.roots)}


def _facts_of(scan: Scan, plan: Plan) -> dict[str, Any]:
    return {
        "folders": tuple(map(shown, scan.roots)),
        "absent": len(plan.absent),
        "still_failing": plan.still_failing,
        "unreadable": {shown(path): reason for path, reason in scan.unreadable.items()},
        "unsupported": by_kind(scan.unsupported),
        "links_outside": scan.links_outside,
    }


class _Update:
    """One update, under the library's lock."""

    def __init__(self, library: Library, catalog: Catalog, options: IndexOptions, warn: Warn) -> None:
        self._library = library
        self._catalog = catalog
        self._options = options
        self._warn = warn
        self._n_published = 0

    def run(self, roots: Sequence[bytes]) -> dict[str, Any]:
        """Bring the library up to date with roots; what is in the summary."""
        chosen_ns = time.time_ns()
        with _without_collector():
            known, incomplete = self._sound_rows()
            bundle = self._bundle()
            cache = open_vectors(self._library, bundle, warn=self._warn)
            known = self._settle_folders(roots, known)
            scan = _scan(self._library, roots, self._options)
            homes = _homes(scan, self._catalog.folders())
            lost = lost_rows(self._library, scan, known, homes, incomplete=incomplete)
            self._catalog.put(lost.values())
            known |= lost
            emptied = keep_emptied(scan, known, prune=self._options.prune)
            warn_of_unreadable(scan, known, self._warn)
            plan = make_plan(scan, known, homes, vectors=cache, retry_failed=self._decoders_changed())
        self._warn_of_bundle(bundle, cache, plan, known)
        reader = Reader(self._catalog, known, scan, homes)
        for path in plan.rehomed:
            self._catalog.remove([(known[path].folder, known[path].path)])
            reader.keep(path, known[path])
        old = {path: known[path] for path in (*plan.altered, *plan.retried)}
        n_vectors = len(cache)
        read = Reading(bundle, cache, reader, self._options)
        read(plan.to_read)
        emptied |= self._keep_losses(plan, known, reader, incomplete=incomplete)
        counts = self._forget_missing(plan, known, old, reader)
        embedded = len(cache) - n_vectors
        with _without_collector():
            published, mended = self._publish(known, read, chosen_ns)
        return {
            **_facts_of(scan, plan),
            **counts,
            "kept": emptied,
            "images": self._n_published,
            "vanished": len(reader.vanished),
            "embedded": embedded + mended,
            "failed": {shown(path): reason for path, reason in sorted(reader.failed.items())},
            "cut": {shown(path): note for path, note in sorted(reader.cut.items())},
            "bundle": bundle.sha256,
            "published": published,
        }

    def _sound_rows(self) -> tuple[Rows, bool]:
        """Sound rows by absolute path, and whether others may have been lost."""
        known, damaged = _known_rows(self._catalog)
        if damaged:
            self._warn(f"{damaged:,} entries of {self._catalog.path} were damaged and are made anew from their images")
            self._catalog.remove_damaged()
        return known, damaged > 0 or not known

    def _bundle(self) -> Bundle:
        options = self._options
        return choose_bundle(
            self._library,
            self._catalog,
            given=options.bundle,
            defaults=options.default_bundles,
            starter=options.starter,
            warn=self._warn,
        )

    def _settle_folders(self, roots: Sequence[bytes], known: Rows) -> Rows:
        """Make the catalogue's folders the given ones; the rows that remain."""
        catalog = self._catalog
        for identity, path in catalog.folders().items():
            if path not in roots:
                catalog.remove_folder(identity)
                catalog.set(**{PUBLISHED: ""})
                known = {file: row for file, row in known.items() if row.folder != identity}
        there = set(catalog.folders().values())
        for root in roots:  # in their order: it numbers the labels of folders whose names are equal
            if root not in there:
                catalog.add_folder(root)
                catalog.set(**{PUBLISHED: ""})
        return known

    def _decoders_changed(self) -> bool:
        """Whether files that failed are to be tried again, since other software decodes them now."""
        versions = _decoder_versions()
        changed = self._catalog.setting(_DECODERS) != versions
        self._catalog.set(**{_DECODERS: versions})
        return changed

    def _warn_of_bundle(self, bundle: Bundle, cache: ContentCache, plan: Plan, known: Rows) -> None:
        before = used_bundle(self._library, self._catalog)
        if before and before != bundle.sha256:
            # Files that changed a moment ago are read in any case, and embedded if they hold what they held before.
            contents = {known[path].sha256 for path in (*plan.vectorless, *plan.altered)} - {""}
            n_embedded = sum(sha256 not in cache for sha256 in contents)
            self._warn(
                f"the bundle changed from {before[:12]} to {bundle.sha256[:12]}: {n_embedded:,} images are "
                "embedded again, searches use the old index until that is done"
            )

    def _keep_losses(self, plan: Plan, known: Rows, reader: Reader, *, incomplete: bool) -> dict[str, int]:
        """Keep missing files whose disk may be away; their number by source or disk."""
        memory = Memory.parse(self._catalog.setting(_DISKS))
        kept: list[Kept] = []
        if plan.missing and not self._options.prune:
            fresh = set(plan.fresh)
            before = {path: row for path, row in known.items() if path not in fresh}
            arrived = Counter(_content(known[path]) for path in fresh & known.keys())
            arrivals = Arrivals(_content, arrived, fresh if incomplete else ())
            kept = kept_losses(plan.missing, before, arrivals, reader.scan, memory)
            plan.keep(kept)
        if (now := remembered(memory, reader.scan, kept)) != memory:
            self._catalog.set(**{_DISKS: now.text})
        return warn_of_losses(kept, self._warn)

    def _forget_missing(self, plan: Plan, known: Rows, old: Rows, reader: Reader) -> dict[str, int]:
        """Remove what is not there any more, and say what became of the files that were read."""
        missing = [*plan.missing, *(path for path in reader.vanished if path in known)]
        gone = Counter(known[path].sha256 for path in missing)
        for path in missing:
            row = known.pop(path)
            self._catalog.remove([(row.folder, row.path)])
        if missing:
            self._catalog.set(**{PUBLISHED: ""})
        self._catalog.commit()
        fresh = set(plan.fresh)
        contents = {row.sha256 for path, row in known.items() if path not in fresh}
        counts = Counter(removed=len(missing), unchanged=plan.unchanged, added=0, changed=0, moved=0, copied=0)
        for path in plan.fresh:
            if path in known and not known[path].error:
                counts[_arrival(known[path].sha256, gone, contents)] += 1
        for path, row in old.items():
            if path in known and not known[path].error:
                counts["unchanged" if known[path].sha256 == row.sha256 else "changed"] += 1
        counts["unchanged"] -= sum(path in reader.failed or path not in known for path in plan.vectorless)
        counts["removed"] -= counts["moved"]
        return dict(counts)

    def _publish(self, known: Rows, read: "Reading", chosen_ns: int) -> tuple[bool, int]:
        """Publish unless that was done; whether it was needed, and how many damaged vectors were computed again."""
        bundle, cache, catalog = read.bundle, read.cache, self._catalog
        if self._in_force(bundle):
            return False, 0
        # Not a set: in its order of chance the vectors of 100,000 images take twice as long to read.
        used = dict.fromkeys(row.sha256 for row in known.values() if not row.error and row.sha256 in cache)
        if damaged := cache.damaged(list(used)):
            self._warn(f"{len(damaged):,} vectors in {cache.folder} were damaged and are computed again")
            cache.forget(damaged)
            paths = {row.sha256: path for path, row in known.items()}
            read([paths[sha256] for sha256 in damaged if paths[sha256] in read.found])
            used = dict.fromkeys(row.sha256 for row in known.values() if row.sha256 in cache)
        rows = sorted(row for row in known.values() if row.error or row.sha256 in used)
        if without := len(known) - len(rows):
            self._warn(f"{without:,} images have no vector of this bundle yet and cannot be read now: left out")
        self._n_published = sum(not row.error for row in rows)
        tier = self._options.config.tier
        name = publish_rows(self._library, bundle, cache, rows, catalog.folders(), tier=tier)
        catalog.set(**{PUBLISHED: name})
        remember_bundle(catalog, bundle, chosen_ns)
        catalog.commit()
        remove_unused(self._library, bundle)
        remove_other_vectors(self._library, cache)
        compact(cache, used)
        return True, len(damaged)

    def _in_force(self, bundle: Bundle) -> bool:
        """Whether a sound generation holds what the catalogue says, made with this bundle."""
        name = self._catalog.setting(PUBLISHED)
        if not name:
            return False
        try:
            index = VectorIndex.open(self._library.index)
        except StorageError as error:
            self._warn(f"{error}: it is built again now")
            return False
        manifest, tier = index.manifest, self._options.config.tier
        self._n_published = manifest.count
        # What auto chose is left as it is: it may have stayed exact for a reason that has not gone.
        if (
            index.fault
            or not is_sealed(index.path)
            or (tier.kind != "auto" and _kind_of(manifest, tier) != manifest.kind)
        ):
            return False
        return index.path.name == name and manifest.bundle_sha256 == bundle.sha256


def _kind_of(manifest: IndexManifest, tier: IndexTierConfig) -> str:
    return tier_for(manifest.count, manifest.embedding_dim, tier).kind


@dataclass(frozen=True)
class Reading:
    """A reader with all it needs."""

    bundle: Bundle
    cache: ContentCache
    reader: Reader
    options: IndexOptions

    def __call__(self, paths: Sequence[bytes]) -> None:
        """Read files and keep what is found."""
        self.reader.read(self.bundle, self.cache, paths, self.options.config, progress=self.options.progress)
        self.reader.commit()

    @property
    def found(self) -> Container[bytes]:
        """Paths that can be read."""
        return self.reader.scan.files


def _content(row: FileRow) -> object:
    """Facts by which two files are recognised as equal."""
    return row.sha256 or (row.size, row.mtime_ns)


def _arrival(sha256: str, gone: Counter[str], contents: set[str]) -> str:
    """What a new file is: its content was at a place that is gone, is elsewhere too, or is new. Updates both."""
    if gone[sha256] > 0:
        gone[sha256] -= 1
        return "moved"
    if sha256 in contents:
        return "copied"
    contents.add(sha256)
    return "added"


def _decoder_versions() -> str:
    found = [f"decoding {DECODING_VERSION}"]
    for package in _DECODER_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{package} {metadata.version(package)}")
    return ", ".join(found)
