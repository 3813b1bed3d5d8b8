"""Dry run: what an update of a library would do, from sizes and times alone; reads no image and writes nothing."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from image_finder.components.library.bundles import used_bundle
from image_finder.components.library.catalog import Catalog
from image_finder.components.library.index_options import IndexOptions, Warn
from image_finder.components.library.library import Library, shown
from image_finder.components.library.losses import (
    DISKS,
    Arrivals,
    Memory,
    keep_emptied,
    kept_losses,
    warn_of_losses,
    warn_of_unreadable,
)
from image_finder.components.library.mounts import inside
from image_finder.components.library.recovery import lost_rows
from image_finder.components.library.scan import Scan
from image_finder.components.library.sources import is_store, scan_sources
from image_finder.components.library.unsupported import by_kind
from image_finder.components.library.update_plan import Plan, folder_ids, make_plan


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
    emptied = keep_emptied(scan, known, prune=options.prune)
    contents = {row.sha256 for row in known.values()}
    plan = make_plan(scan, known, ids, vectors=contents, retry_failed=False)
    warn_of_unreadable(scan, known, warn)
    arrived = Counter(scan.files[path][1:] for path in plan.fresh)
    if not options.prune:
        memory = Memory.parse(catalog.setting(DISKS) if catalog is not None else "")
        again = plan.fresh if incomplete else ()
        arrivals = Arrivals(lambda row: (row.size, row.mtime_ns), Counter(arrived), again)
        kept = kept_losses(plan.missing, known, arrivals, scan, memory)
        plan.keep(kept)
        emptied |= warn_of_losses(kept, warn)
    gone = Counter((known[path].size, known[path].mtime_ns) for path in plan.missing)
    moved = sum((gone & arrived).values())
    return {
        **facts_of(scan, plan),
        "kept": emptied,
        "images": plan.unchanged + len(plan.absent) + len(plan.altered) + len(plan.fresh) + len(unlisted),
        "added": len(plan.fresh) - moved,
        "changed": len(plan.altered),
        "moved": moved,
        "copied": 0,
        "removed": len(plan.missing) - moved,
        "unchanged": plan.unchanged + len(unlisted),
        "vanished": 0,
        "embedded": 0,
        "failed": {},
        "cut": {},
        "bundle": used_bundle(library, catalog) if catalog is not None else "",
        "published": False,
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
