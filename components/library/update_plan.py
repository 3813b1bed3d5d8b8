"""Update plan: the differences between a catalogue and a scan."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from image_finder.components.library.catalog import Catalog, Rows
from image_finder.components.library.losses import Kept
from image_finder.components.library.scan import Scan


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

    def keep(self, kept: Iterable[Kept]) -> None:
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
