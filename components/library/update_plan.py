"""Update plan: the differences between a catalogue and a scan, and what a dry run reports of them."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from image_finder.components.library import losses
from image_finder.components.library.bundles import used_bundle
from image_finder.components.library.catalog import Catalog, Rows
from image_finder.components.library.index_options import IndexOptions, Warn
from image_finder.components.library.library import Library, shown
from image_finder.components.library.mounts import inside
from image_finder.components.library.recovery import lost_rows
from image_finder.components.library.scan import Scan
from image_finder.components.library.sources import is_store, scan_sources
from image_finder.components.library.unsupported import by_kind


@dataclass
class Plan:
    """Absolute paths by what the update does with them."""

    fresh: list[bytes] = field(default_factory=list)  # unknown: to be read
    altered: list[bytes] = field(default_factory=list)  # known with another size or mtime: to be read
    retried: list[bytes] = field(default_factory=list)  # failed with other software: to be read
    vectorless: list[bytes] = field(default_factory=list)  # one for each content without vector: to be read
    missing: list[bytes] = field(default_factory=list)  # known and not found: to be removed
    absent: list[bytes] = field(default_factory=list)  # known, in a folder that cannot be listed: kept
    rehomed: list[bytes] = field(default_factory=list)  # found under another root than before
    unchanged: int = 0
    still_failing: int = 0

    @property
    def to_read(self) -> list[bytes]:
        """Paths to read in sorted order: neighbours are close on the disk."""
        return sorted([*self.fresh, *self.altered, *self.retried, *self.vectorless])

    def keep(self, kept: Iterable[losses.Kept]) -> None:
        files = {path for each in kept for path in each.files}
        self.absent += [path for path in self.missing if path in files]
        self.missing = [path for path in self.missing if path not in files]


def make_plan(
    scan: Scan, known: Rows, folder_ids: Mapping[int, int], *, vectors: Container[str], retry_failed: bool
) -> Plan:
    """Compare. folder_ids: catalogue id by position in scan.roots; vectors: contents with a vector."""
    plan = Plan()
    queued: set[str] = set()
    for path, (position, size, mtime_ns) in scan.files.items():
        row = known.get(path)
        if row is None:
            plan.fresh.append(path)
            continue
        if row.size != size or row.mtime_ns != mtime_ns or not row.settled:
            plan.altered.append(path)
            continue
        if row.folder != folder_ids[position]:
            plan.rehomed.append(path)
        if row.error and retry_failed:
            plan.retried.append(path)
        elif row.error:
            plan.still_failing += 1
        else:
            plan.unchanged += 1
            if row.sha256 not in vectors and row.sha256 not in queued:
                queued.add(row.sha256)
                plan.vectorless.append(path)
    for path in known.keys() - scan.files.keys():
        (plan.absent if scan.is_unreadable(path) else plan.missing).append(path)
    return plan


def folder_ids(scan: Scan, catalog: Catalog | None) -> dict[int, int]:
    """Catalogue id of each root by its position in the scan; -1 - position if it has none."""
    ids = catalog.folder_ids() if catalog is not None else {}
    return {position: ids.get(root, -1 - position) for position, root in enumerate(scan.roots)}


def rehearse(
    library: Library, catalog: Catalog | None, roots: Sequence[bytes], options: IndexOptions, warn: Warn
) -> dict[str, Any]:
    """What an update would do, as values of its summary. catalog: None if there is none yet."""
    known, damaged = catalog.files_by_path() if catalog is not None else ({}, 0)
    incomplete = damaged > 0 or not known
    scan = scan_sources(library, catalog, roots, options)
    ids = folder_ids(scan, catalog)
    unlisted = {
        path: row for path, row in known.items() if any(is_store(root) and inside(path, root) for root in roots)
    }
    known = {path: row for path, row in known.items() if path not in unlisted}
    known |= lost_rows(library, scan, known, ids, incomplete=incomplete)
    emptied = losses.keep_unreadable(scan, known, warn, prune=options.prune)
    contents = {row.sha256 for row in known.values()}
    plan = make_plan(scan, known, ids, vectors=contents, retry_failed=False)
    arrived = Counter(scan.files[path][1:] for path in plan.fresh)
    if not options.prune:
        memory = losses.Memory.parse(catalog.setting(losses.DISKS) if catalog is not None else "")
        again = plan.fresh if incomplete else ()
        arrivals = losses.Arrivals(lambda row: (row.size, row.mtime_ns), Counter(arrived), again)
        kept = losses.kept_losses(plan.missing, known, arrivals, scan, memory)
        plan.keep(kept)
        emptied |= losses.warn_of_losses(kept, warn)
    gone = Counter((known[path].size, known[path].mtime_ns) for path in plan.missing)
    moved = sum((gone & arrived).values())
    return {
        **facts_of(scan, plan),
        "kept": emptied,
        "images": plan.unchanged + len(plan.absent) + len(plan.altered) + len(plan.fresh) + len(unlisted),
        "added": len(plan.fresh) - moved,
        "changed": len(plan.altered),
        "moved": moved,
        "removed": len(plan.missing) - moved,
        "unchanged": plan.unchanged + len(unlisted),
        "bundle": used_bundle(library, catalog) if catalog is not None else "",
    }


def facts_of(scan: Scan, plan: Plan) -> dict[str, Any]:
    return {
        "folders": tuple(map(shown, scan.roots)),
        "absent": len(plan.absent),
        "still_failing": plan.still_failing,
        "unreadable": {shown(path): reason for path, reason in scan.unreadable.items()},
        "unsupported": by_kind(scan.unsupported),
        "links_outside": scan.links_outside,
    }
