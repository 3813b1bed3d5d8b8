"""Indexer: updates a library from its sources and publishes the changes; searches continue."""

import contextlib
import gc
import os
import time
from collections import Counter
from collections.abc import Collection, Container, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import IndexTierConfig
from image_finder.components.errors import DataError, StorageError
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.images.decoding import DECODING_VERSION
from image_finder.components.index.format import IndexManifest, is_sealed
from image_finder.components.index.index import VectorIndex
from image_finder.components.index.tiers import tier_for
from image_finder.components.library.bundles import (
    choose_bundle,
    remember_bundle,
    remember_next_bundle,
    remove_unused,
    used_bundle,
)
from image_finder.components.library.catalog import Catalog, FileRow
from image_finder.components.library.dry_run import facts_of, rehearse
from image_finder.components.library.folders import chosen_roots
from image_finder.components.library.index_options import IndexOptions, IndexSummary, Warn
from image_finder.components.library.library import Library, shown
from image_finder.components.library.losses import (
    DISKS,
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
from image_finder.components.library.publishing import PublishedSources, publish_rows
from image_finder.components.library.reading import PUBLISHED, Reader
from image_finder.components.library.recovery import lost_rows, recover_captions
from image_finder.components.library.scan import Scan
from image_finder.components.library.sources import (
    captions_by_path,
    gallery_facts,
    given_uris,
    list_stores,
    require_readable,
    root_of,
    rows_of,
    scan_sources,
    settle_galleries,
    uris_of,
)
from image_finder.components.library.update_plan import Plan, Rows, folder_ids, make_plan
from image_finder.components.library.vectors import compact, open_vectors, remove_other_vectors

_DECODERS = "decoders"  # setting: versions of what decodes images
_DECODER_PACKAGES = ("text-guided-image-finder", "pillow", "pi-heif")


def update(
    library: Library,
    folders: Sequence[Path],
    options: IndexOptions,
    *,
    forget: Sequence[Path] = (),
    warn: Warn,
) -> IndexSummary:
    """Index given and known sources, and publish; an interrupted update is resumed by the next.

    Object stores are listed if their gallery is given, if the bundle changed, and with prune; otherwise their images
    stay as they are. forget: sources to remove from the library. warn: gets one line for each thing that the user
    should know. Raises DataError for a missing folder and for a library without sources, BundleError, and StorageError,
    for example if another process is writing.
    """
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.callback(gc.unfreeze)
        if options.dry_run:
            catalog = Catalog.read(library.catalog) if library.catalog.exists() else None
        else:
            stack.enter_context(library.writing(wait_s=options.wait_s))
            catalog = Catalog.open(library.catalog, warn=warn)
        if catalog is not None:
            stack.enter_context(catalog)
            if options.default_bundles is not None and not options.dry_run:
                adopt_folders(library, catalog, options.default_bundles.parent, warn=warn)
        galleries = [root_of(each) for each in options.galleries]
        roots = chosen_roots(library, catalog, folders, forget, galleries=galleries, warn=warn)
        if catalog is None or options.dry_run:
            counts = rehearse(library, catalog, roots, options, warn)
        else:
            named = {os.fsencode(each.expanduser().resolve()) for each in folders}
            counts = _Update(library, catalog, options, warn).run(roots, named)
    return IndexSummary(
        library=str(library.root), dry_run=options.dry_run, seconds=time.monotonic() - started, **counts
    )


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Disable the garbage collector while rows are made that live until the end of the update.

    Searching 100,000 of them for cycles took 0.4 of 3.6 seconds (bench_library.py).
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


class _Update:
    """One update. Needs the library's lock."""

    def __init__(self, library: Library, catalog: Catalog, options: IndexOptions, warn: Warn) -> None:
        self._library = library
        self._catalog = catalog
        self._options = options
        self._warn = warn
        self._n_published = 0

    def run(self, roots: Sequence[bytes], named: Collection[bytes]) -> dict[str, Any]:
        """Update the library; returns values of the summary. named: directories given by the user."""
        chosen_ns = time.time_ns()
        with _without_collector():
            known, incomplete = self._sound_rows()
            bundle = self._bundle()
            cache = open_vectors(self._library, bundle, warn=self._warn)
            added = set(roots) - set(self._catalog.folders().values())
            known = self._settle_folders(roots, known, named, incomplete=incomplete)
            scan = self._scan(roots)
            homes = folder_ids(scan, self._catalog.folders())
            lost = lost_rows(self._library, scan, known, homes, incomplete=incomplete)
            self._catalog.put(lost.values())
            known |= lost
            resting = self._list_stores(scan, known, cache)
            known = {path: row for path, row in known.items() if path not in resting}
            emptied = keep_emptied(scan, known, prune=self._options.prune)
            warn_of_unreadable(scan, known, self._warn)
            plan = make_plan(scan, known, homes, vectors=cache, retry_failed=self._decoders_changed())
        self._warn_of_bundle(bundle, cache, plan, known)
        reader = Reader(self._catalog, known, scan, homes, self._uris())
        for path in plan.rehomed:
            self._catalog.remove([(known[path].folder, known[path].path)])
            reader.keep(path, known[path])
        old = {path: known[path] for path in (*plan.altered, *plan.retried)}
        n_vectors = len(cache)
        read = Reading(bundle, cache, reader, self._options)
        read(plan.to_read)
        emptied |= self._keep_losses(plan, known, reader, incomplete=incomplete)
        counts = self._forget_missing(plan, known, old, reader)
        self._require_readable(known, added)
        embedded = len(cache) - n_vectors
        known |= resting
        with _without_collector():
            published, mended = self._publish(known, read, chosen_ns)
        return {
            **facts_of(scan, plan),
            **counts,
            "unchanged": counts["unchanged"] + sum(not row.error for row in resting.values()),
            "kept": emptied,
            "images": self._n_published,
            "vanished": len(reader.vanished),
            "embedded": embedded + mended,
            "failed": {shown(path): reason for path, reason in sorted(reader.failed.items())},
            "cut": {shown(path): note for path, note in sorted(reader.cut.items())},
            "bundle": bundle.sha256,
            "published": published,
        }

    def _scan(self, roots: Sequence[bytes]) -> Scan:
        options = self._options
        return scan_sources(self._library, self._catalog, roots, progress=options.progress, on_scan=options.on_scan)

    def _sound_rows(self) -> tuple[Rows, bool]:
        """Undamaged rows by absolute path, and whether rows may have been lost."""
        known, damaged = self._catalog.files_by_path()
        if damaged:
            self._warn(f"{damaged:,} entries of {self._catalog.path} were damaged and are rebuilt from their images")
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

    def _settle_folders(
        self, roots: Sequence[bytes], known: Rows, named: Collection[bytes], *, incomplete: bool
    ) -> Rows:
        """Update folders, galleries and captions of the catalogue; returns the remaining rows."""
        catalog = self._catalog
        directories = set(catalog.folders().values()) - set(gallery_facts(catalog))
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
        if incomplete:
            recover_captions(self._library, catalog)
        galleries = self._options.galleries
        if settle_galleries(catalog, galleries, directories=directories, named=named, warn=self._warn):
            catalog.set(**{PUBLISHED: ""})
        return known

    def _list_stores(self, scan: Scan, known: Rows, cache: ContentCache) -> Rows:
        """Add the images of object stores to the scan; returns the rows of stores not listed."""
        given = given_uris(self._options.galleries)
        listed: dict[bytes, str] = {}
        resting: Rows = {}
        for root, uri in self._uris().items():
            rows = rows_of(root, known)
            has_vectors = all(row.error or row.sha256 in cache for row in rows.values())
            if root in given or self._options.prune or not has_vectors:
                listed[root] = uri
            else:
                resting |= rows
        list_stores(scan, listed)
        return resting

    def _uris(self) -> dict[bytes, str]:
        return uris_of(self._catalog) | given_uris(self._options.galleries)

    def _require_readable(self, known: Rows, added: Collection[bytes]) -> None:
        """Raises DataError for a gallery with too many unreadable images; a new one is removed."""
        for gallery in self._options.galleries:
            try:
                require_readable(gallery, known, self._warn)
            except DataError:
                identities = {root: identity for identity, root in self._catalog.folders().items()}
                if (root := root_of(gallery)) in added:
                    self._catalog.remove_folder(identities[root])
                    self._catalog.commit()
                raise

    def _decoders_changed(self) -> bool:
        """Whether to retry failed files, because the decoding software changed."""
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
        """Keep missing files whose disk may be unmounted; their number by source or disk."""
        memory = Memory.parse(self._catalog.setting(DISKS))
        kept: list[Kept] = []
        if plan.missing and not self._options.prune:
            fresh = set(plan.fresh)
            before = {path: row for path, row in known.items() if path not in fresh}
            arrived = Counter(_content(known[path]) for path in fresh & known.keys())
            arrivals = Arrivals(_content, arrived, fresh if incomplete else ())
            kept = kept_losses(plan.missing, before, arrivals, reader.scan, memory)
            plan.keep(kept)
        if (now := remembered(memory, reader.scan, kept)) != memory:
            self._catalog.set(**{DISKS: now.text})
        return warn_of_losses(kept, self._warn)

    def _forget_missing(self, plan: Plan, known: Rows, old: Rows, reader: Reader) -> dict[str, int]:
        """Remove missing files, and count what became of the files that were read."""
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
        """Publish if needed; whether it was, and the number of damaged vectors computed again."""
        bundle, cache, catalog = read.bundle, read.cache, self._catalog
        if not self._options.publish:
            self._n_published = sum(not row.error for row in known.values())
            remember_next_bundle(catalog, bundle)
            catalog.commit()
            return False, 0
        if self._in_force(bundle):
            return False, 0
        # A dict, since reading 100,000 vectors in the random order of a set takes twice as long.
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
        name = publish_rows(
            self._library,
            bundle,
            cache,
            rows,
            PublishedSources(catalog.folders(), uris_of(catalog), captions_by_path(catalog), self._home()),
            config=self._options.config,
            checked_by=read.reader if self._options.self_check else None,
        )
        catalog.set(**{PUBLISHED: name})
        remember_bundle(catalog, bundle, chosen_ns)
        catalog.commit()
        remove_unused(self._library, catalog, bundle)
        remove_other_vectors(self._library, cache)
        compact(cache, used)
        return True, len(damaged)

    def _home(self) -> Path | None:
        """The home that the library is in, if it is in one."""
        bundles = self._options.default_bundles
        return bundles.parent if bundles is not None and self._library.root.is_relative_to(bundles.parent) else None

    def _in_force(self, bundle: Bundle) -> bool:
        """Whether the current generation is undamaged and matches catalogue and bundle."""
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
    """A reader with its bundle, vector cache and options."""

    bundle: Bundle
    cache: ContentCache
    reader: Reader
    options: IndexOptions

    def __call__(self, paths: Sequence[bytes]) -> None:
        """Read files and commit what was found."""
        options = self.options
        self.reader.read(
            self.bundle, self.cache, paths, options.config, engine=options.engine, progress=options.progress
        )
        self.reader.commit()

    @property
    def found(self) -> Container[bytes]:
        """Paths of the scanned files."""
        return self.reader.scan.files


def _content(row: FileRow) -> object:
    """What makes two files equal: content, or size and time if that is unknown."""
    return row.sha256 or (row.size, row.mtime_ns)


def _arrival(sha256: str, gone: Counter[str], contents: set[str]) -> str:
    """Classify a new file by its content; updates both arguments."""
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
