"""Plan: what differs between a catalogue and what a walk found; pure, reads and writes nothing."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from image_finder.components.library.catalog import FileRow
from image_finder.components.library.losses import Kept
from image_finder.components.library.scan import Scan

Rows = dict[bytes, FileRow]  # by absolute path


@dataclass
class Plan:
    """Absolute paths by what is to be done with them, each list in the order of the paths."""

    fresh: list[bytes] = field(default_factory=list)  # not known yet: to be read
    altered: list[bytes] = field(default_factory=list)  # known with another size or mtime: to be read
    retried: list[bytes] = field(default_factory=list)  # failed, and may not fail any more: to be read
    vectorless: list[bytes] = field(default_factory=list)  # one for each content whose vector is not there: to be read
    missing: list[bytes] = field(default_factory=list)  # known and not there: to be forgotten
    absent: list[bytes] = field(default_factory=list)  # known, in a place that cannot be looked at: kept
    rehomed: list[bytes] = field(default_factory=list)  # reached from another of the given folders than before
    unchanged: int = 0
    still_failing: int = 0

    @property
    def to_read(self) -> list[bytes]:
        """All that is to be read, by path: neighbours lie near each other on the disk."""
        return sorted([*self.fresh, *self.altered, *self.retried, *self.vectorless])

    def keep(self, kept: Iterable[Kept]) -> None:
        """Count missing files as absent."""
        files = {path for each in kept for path in each.files}
        self.absent += [path for path in self.missing if path in files]
        self.missing = [path for path in self.missing if path not in files]


def make_plan(
    scan: Scan, known: Rows, folder_ids: Mapping[int, int], *, vectors: Container[str], retry_failed: bool
) -> Plan:
    """Compare. folder_ids: catalogue's id of each position in scan.roots; vectors: contents whose vector is there."""
    plan = Plan()
    wanted: set[str] = set()
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
            if row.sha256 not in vectors and row.sha256 not in wanted:
                wanted.add(row.sha256)
                plan.vectorless.append(path)
    for path in known.keys() - scan.files.keys():
        gone = plan.absent if scan.is_unreadable(path) else plan.missing
        gone.append(path)
    return plan
