"""Indexer: updates a library from its sources and publishes the changes; searches continue."""

import contextlib
import gc
import itertools
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import EmbeddingConfig, IndexTierConfig
from image_finder.components.errors import DataError
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.images.decoding import DECODING_VERSION
from image_finder.components.library import bundles, losses, sources
from image_finder.components.library.catalog import PUBLISHED, Catalog, FileRow, Rows
from image_finder.components.library.folders import adopt_folders, chosen_roots
from image_finder.components.library.index_options import IndexOptions, IndexSummary, Warn
from image_finder.components.library.library import Library, shown
from image_finder.components.library.partial import PartialPublisher
from image_finder.components.library.publishing import current_count, indexed_count, publish_rows
from image_finder.components.library.reading import Reader
from image_finder.components.library.recovery import lost_rows, recover_captions
from image_finder.components.library.update_plan import Plan, facts_of, folder_ids, make_plan, rehearse
from image_finder.components.library.vectors import compact, open_vectors, remove_other_vectors
from image_finder.components.phases import phase
from image_finder.components.system import path_bytes, resolved
from image_finder.components.text import counted

_DECODERS = "decoders"  # setting: versions of what decodes images
_DECODER_PACKAGES = ("text-guided-image-finder", "pillow", "pi-heif")


def update(
    library: Library, folders: Sequence[Path], options: IndexOptions, *, forget: Sequence[Path] = (), warn: Warn
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
            if not options.dry_run and (home := options.home_of(library)) is not None:
                adopt_folders(library, catalog, home, warn=warn)
        galleries = [sources.root_of(each) for each in options.galleries]
        roots = chosen_roots(library, catalog, folders, forget, galleries=galleries, warn=warn)
        if catalog is None or options.dry_run:
            counts = rehearse(library, catalog, roots, options, warn)
        else:
            named = {path_bytes(resolved(each)) for each in folders}
            counts = _Update(library, catalog, options, warn).run(roots, named)
    return IndexSummary(
        library=str(library.root), dry_run=options.dry_run, seconds=time.monotonic() - started, **counts
    )


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Spare the garbage collector rows that live on: it took 0.4 of 3.6 s for 100,000 (bench_library.py)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


class _Published(NamedTuple):
    n_images: int  # in the index
    is_new: bool
    n_mended: int = 0  # damaged vectors that were computed again


@dataclass(frozen=True)
class _Update:
    """Needs the library's lock."""

    library: Library
    catalog: Catalog
    options: IndexOptions
    warn: Warn

    def run(self, roots: Sequence[bytes], named: Collection[bytes]) -> dict[str, Any]:
        """Update the library; returns values of the summary. named: directories given by the user."""
        library, catalog, options = self.library, self.catalog, self.options
        chosen_ns = time.time_ns()
        with _without_collector():
            known, incomplete = self._sound_rows()
            bundle = bundles.choose_bundle(library, catalog, options, warn=self.warn)
            cache = open_vectors(library, bundle, warn=self.warn)
            added = set(roots) - set(catalog.folders().values())
            known = self._settle_folders(roots, known, named, incomplete=incomplete)
            scan = sources.scan_sources(library, catalog, roots, options)
            ids = folder_ids(scan, catalog)
            lost = lost_rows(library, scan, known, ids, incomplete=incomplete)
            catalog.put(lost.values())
            known |= lost
            uris = sources.uris_of(catalog) | sources.given_uris(options.galleries)
            unlisted = sources.list_stores(scan, uris, options, known, cache)
            known = {path: row for path, row in known.items() if path not in unlisted}
            emptied = losses.keep_unreadable(scan, known, self.warn, prune=options.prune)
            plan = make_plan(scan, known, ids, vectors=cache, retry_failed=self._decoders_changed())
        self._warn_of_bundle(bundle, cache, plan, known)
        reader = Reader(catalog, known, scan, ids, uris, bundle, cache, options, library)
        for path in plan.rehomed:
            catalog.remove([(known[path].folder, known[path].path)])
            reader.keep(path, known[path])
        old = {path: known[path] for path in (*plan.altered, *plan.retried)}
        n_vectors = len(cache)
        self._read(reader, plan.to_read, unlisted, chosen_ns)
        emptied |= self._keep_losses(plan, known, reader, incomplete=incomplete)
        counts = self._forget_missing(plan, known, old, reader)
        self._require_readable(known, added)
        n_embedded = len(cache) - n_vectors
        known |= unlisted
        with _without_collector(), phase("publish the index"):
            published = self._publish(known, reader, chosen_ns)
        return {
            **facts_of(scan, plan),
            **counts,
            "unchanged": counts["unchanged"] + sum(not row.error for row in unlisted.values()),
            "kept": emptied,
            "images": published.n_images,
            "vanished": len(reader.vanished),
            "embedded": n_embedded + published.n_mended,
            "failed": {shown(path): reason for path, reason in sorted(reader.failed.items())},
            "cut": {shown(path): note for path, note in sorted(reader.cut.items())},
            "bundle": bundle.sha256,
            "published": published.is_new,
        }

    def _read(self, reader: Reader, paths: Sequence[bytes], unlisted: Rows, chosen_ns: int) -> None:
        """Read files; what is embedded is published from time to time, and when the user stops the update."""
        part = self._partial_publisher(reader, unlisted, chosen_ns)
        reader.on_image = part.offer if part else None
        try:
            with phase("embed images") if paths else contextlib.nullcontext():
                reader.read(paths)
        except KeyboardInterrupt:
            if part is not None and paths:
                self.warn(f"stopping: {counted(part.now(), 'image')} can be searched")
            raise
        finally:
            reader.on_image = None

    def _partial_publisher(self, reader: Reader, unlisted: Rows, chosen_ns: int) -> PartialPublisher | None:
        """None where searches must continue with the current index until the update has ended.

        These are updates with another bundle, whose first publications would lack most images, and those that check the
        index before it is published.
        """
        used = bundles.used_bundle(self.library, self.catalog)
        if not self.options.publish or self.options.self_check or used not in {"", reader.bundle.sha256}:
            return None
        current = indexed_count(self.library)
        return PartialPublisher(lambda: self._publish_part(reader, unlisted, chosen_ns, current))

    def _publish_part(self, reader: Reader, unlisted: Rows, chosen_ns: int, current: int) -> int:
        """Returns the number of images that can be searched. current: of those that can be without publishing.

        Publishes nothing while fewer are known, as after a loss of the catalogue or of vectors.
        """
        reader.commit()
        with _without_collector():
            known = itertools.chain(reader.known.values(), unlisted.values())
            rows = sorted(row for row in known if row.error or row.sha256 in reader.cache)
            if sum(not row.error for row in rows) < current:
                return current
            exact = self.options.config.model_copy(update={"tier": IndexTierConfig(kind="exact")})
            self._publish_rows(rows, reader, exact)
        bundles.remember_bundle(self.catalog, reader.bundle, chosen_ns)
        self.catalog.set(**{PUBLISHED: ""})
        self.catalog.commit()
        return sum(not row.error for row in rows)

    def _publish_rows(self, rows: Sequence[FileRow], reader: Reader, config: EmbeddingConfig) -> str:
        return publish_rows(
            self.library,
            self.catalog,
            reader.bundle,
            reader.cache,
            rows,
            home=self.options.home_of(self.library),
            config=config,
            checked_by=reader if self.options.self_check else None,
        )

    def _sound_rows(self) -> tuple[Rows, bool]:
        """Undamaged rows, and whether rows may have been lost."""
        known, damaged = self.catalog.files_by_path()
        if damaged:
            self.warn(f"{damaged:,} entries of {self.catalog.path} were damaged and are rebuilt from their images")
            self.catalog.remove_damaged()
        return known, damaged > 0 or not known

    def _settle_folders(
        self, roots: Sequence[bytes], known: Rows, named: Collection[bytes], *, incomplete: bool
    ) -> Rows:
        """Update folders, galleries and captions of the catalogue; returns the remaining rows."""
        catalog = self.catalog
        directories = set(catalog.folders().values()) - set(sources.gallery_facts(catalog))
        for identity, path in catalog.folders().items():
            if path not in roots:
                catalog.remove_folder(identity)
                catalog.set(**{PUBLISHED: ""})
                known = {file: row for file, row in known.items() if row.folder != identity}
        ids = catalog.folder_ids()
        for root in roots:  # in their order: it numbers the labels of folders whose names are equal
            if root not in ids:
                catalog.add_folder(root)
                catalog.set(**{PUBLISHED: ""})
        if incomplete:
            recover_captions(self.library, catalog)
        galleries = self.options.galleries
        if sources.settle_galleries(catalog, galleries, directories=directories, named=named, warn=self.warn):
            catalog.set(**{PUBLISHED: ""})
        return known

    def _require_readable(self, known: Rows, added: Collection[bytes]) -> None:
        for gallery in self.options.galleries:
            try:
                sources.require_readable(gallery, known, self.warn)
            except DataError:
                if (root := sources.root_of(gallery)) in added:
                    self.catalog.remove_folder(self.catalog.folder_ids()[root])
                    self.catalog.commit()
                raise

    def _decoders_changed(self) -> bool:
        versions = _decoder_versions()
        changed = self.catalog.setting(_DECODERS) != versions
        self.catalog.set(**{_DECODERS: versions})
        return changed

    def _warn_of_bundle(self, bundle: Bundle, cache: ContentCache, plan: Plan, known: Rows) -> None:
        before = bundles.used_bundle(self.library, self.catalog)
        if before and before != bundle.sha256:
            # Files that changed a moment ago are read in any case, and embedded if they hold what they held before.
            contents = {known[path].sha256 for path in (*plan.vectorless, *plan.altered)} - {""}
            n_embedded = sum(sha256 not in cache for sha256 in contents)
            self.warn(
                f"the bundle changed from {before[:12]} to {bundle.sha256[:12]}: {n_embedded:,} images are "
                "embedded again, searches use the old index until that is done"
            )

    def _keep_losses(self, plan: Plan, known: Rows, reader: Reader, *, incomplete: bool) -> dict[str, int]:
        """Keep missing files whose disk may be unmounted; their number by source or disk."""
        memory = losses.Memory.parse(self.catalog.setting(losses.DISKS))
        kept: list[losses.Kept] = []
        if plan.missing and not self.options.prune:
            fresh = set(plan.fresh)
            before = {path: row for path, row in known.items() if path not in fresh}
            arrived = Counter(_content(known[path]) for path in fresh & known.keys())
            arrivals = losses.Arrivals(_content, arrived, fresh if incomplete else ())
            kept = losses.kept_losses(plan.missing, before, arrivals, reader.scan, memory)
            plan.keep(kept)
        if (now := losses.remembered(memory, reader.scan, kept)) != memory:
            self.catalog.set(**{losses.DISKS: now.text})
        return losses.warn_of_losses(kept, self.warn)

    def _forget_missing(self, plan: Plan, known: Rows, old: Rows, reader: Reader) -> dict[str, int]:
        """Remove missing files; counts what became of the files that were read."""
        missing = [*plan.missing, *(path for path in reader.vanished if path in known)]
        gone = Counter(known[path].sha256 for path in missing)
        for path in missing:
            row = known.pop(path)
            self.catalog.remove([(row.folder, row.path)])
        if missing:
            self.catalog.set(**{PUBLISHED: ""})
        self.catalog.commit()
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

    def _publish(self, known: Rows, reader: Reader, chosen_ns: int) -> _Published:
        catalog, options, bundle, cache = self.catalog, self.options, reader.bundle, reader.cache
        if not options.publish:
            bundles.remember_next_bundle(catalog, bundle)
            catalog.commit()
            return _Published(sum(not row.error for row in known.values()), is_new=False)
        name = catalog.setting(PUBLISHED)
        current = current_count(self.library, name, bundle, options.config.tier, warn=self.warn)
        if current is not None:
            return _Published(current, is_new=False)
        n_mended = self._mend_vectors(known, reader)
        # A dict, since reading 100,000 vectors in the random order of a set takes twice as long.
        used = dict.fromkeys(row.sha256 for row in known.values() if not row.error and row.sha256 in cache)
        rows = sorted(row for row in known.values() if row.error or row.sha256 in used)
        if without := len(known) - len(rows):
            self.warn(f"{without:,} images have no vector of this bundle yet and cannot be read now: left out")
        name = self._publish_rows(rows, reader, options.config)
        catalog.set(**{PUBLISHED: name})
        bundles.remember_bundle(catalog, bundle, chosen_ns)
        catalog.commit()
        bundles.remove_unused(self.library, catalog, bundle)
        remove_other_vectors(self.library, cache)
        compact(cache, used)
        return _Published(sum(not row.error for row in rows), is_new=True, n_mended=n_mended)

    def _mend_vectors(self, known: Rows, reader: Reader) -> int:
        cache = reader.cache
        paths = {row.sha256: path for path, row in known.items() if not row.error and row.sha256 in cache}
        if damaged := cache.damaged(list(paths)):
            self.warn(f"{len(damaged):,} vectors in {cache.folder} were damaged and are computed again")
            cache.forget(damaged)
            reader.read([paths[sha256] for sha256 in damaged if paths[sha256] in reader.scan.files])
        return len(damaged)


def _content(row: FileRow) -> object:
    """What makes two files equal: content, or size and time if that is unknown."""
    return row.sha256 or (row.size, row.mtime_ns)


def _arrival(sha256: str, gone: Counter[str], contents: set[str]) -> str:
    """Updates both arguments."""
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
