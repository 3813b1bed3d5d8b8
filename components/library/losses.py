"""Losses: missing files that stay indexed until the user confirms, as a disk may be unmounted.

Entries are kept for a disk that was mounted in or above a source and is not mounted now, and for a source or mounted
disk of which at least half of 20 or more images are missing at once. A mount is recognised by a directory being on
another device than its parent; device numbers are not compared, since they change when a system restarts.
"""

import json
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from image_finder.components.library.catalog import FileRow, Rows, base_of
from image_finder.components.library.index_options import Warn
from image_finder.components.library.library import shown
from image_finder.components.library.mounts import inside
from image_finder.components.library.scan import Scan
from image_finder.components.text import counted

DISKS = "disks"  # setting of the catalogue: Memory.text
LEAST_IMAGES = 20  # in a source or on a disk; with fewer, any number may be deleted
LEAST_SHARE = 0.5  # of its images; a smaller share may be deleted at once


@dataclass(frozen=True)
class Memory:
    """State kept from one update to the next."""

    disks: frozenset[bytes] = frozenset()  # mount points of disks that hold images
    kept: frozenset[bytes] = frozenset()  # sources and disks whose missing files are kept

    @classmethod
    def parse(cls, text: str) -> "Memory":
        stored = json.loads(text or "{}")
        return cls(*(frozenset(map(os.fsencode, stored.get(name, ()))) for name in ("disks", "kept")))

    @property
    def text(self) -> str:
        return json.dumps({"disks": _names(self.disks), "kept": _names(self.kept)})


@dataclass(frozen=True)
class Kept:
    """Missing files of a source or disk that stay in the index."""

    unit: bytes  # the source or disk
    disk: bytes | None  # that is not mounted; None: most of the files are missing
    files: Sequence[bytes]
    known: int  # files of the unit in the catalogue

    @property
    def text(self) -> str:
        images = counted(len(self.files), "image")
        if self.disk is None:
            fact = f"{shown(self.unit)}: {len(self.files):,} of {self.known:,} images are missing, which are kept"
        elif self.disk == self.unit:
            fact = f"{shown(self.unit)} is not mounted: {images} kept"
        else:
            fact = f"{shown(self.disk)} is not mounted: {images} of {shown(self.unit)} kept"
        return f"{fact}; run image-finder index --prune if they are gone for good"


@dataclass
class Arrivals:
    """New files by their trace; each accounts for one missing file, which has moved."""

    trace: Callable[[FileRow], Hashable]
    counts: Counter[Hashable] = field(default_factory=Counter)
    found_again: Collection[bytes] = ()  # new files of a catalogue that has lost rows, so they may have been known

    def lost(self, paths: Iterable[bytes], known: Rows) -> list[bytes]:
        lost = []
        for path in paths:
            trace = self.trace(known[path])
            if self.counts[trace] > 0:
                self.counts[trace] -= 1
            else:
                lost.append(path)
        return lost


def kept_losses(missing: Sequence[bytes], known: Rows, arrivals: Arrivals, scan: Scan, memory: Memory) -> list[Kept]:
    """The missing files to keep. known: rows before this update, missing ones included, by absolute path."""
    if not missing:
        return []
    away = sorted(memory.disks - scan.mounts, key=len, reverse=True)
    inner = {disk for disk in memory.disks if any(inside(disk, root) for root in scan.roots)}
    units = sorted({*scan.roots, *inner}, key=len, reverse=True)
    totals = {unit: len(paths) for unit, paths in _by_unit([*known, *arrivals.found_again], units).items()}
    found = []
    for unit, paths in _by_unit(missing, units).items():
        disk = next((each for each in away if inside(unit, each)), None)
        lost = paths if disk is not None else arrivals.lost(paths, known)
        total = totals[unit]
        too_many = len(lost) >= LEAST_SHARE * total and (disk is not None or total >= LEAST_IMAGES)
        if lost and (too_many or unit in memory.kept):
            found.append(Kept(unit, disk, lost, total))
    return found


def remembered(memory: Memory, scan: Scan, kept: Sequence[Kept]) -> Memory:
    files = sorted(scan.files) if scan.mounts else []
    waiting = {each.disk for each in kept}
    disks = {
        disk
        for disk in (memory.disks | scan.mounts) - {b"/"}
        if (disk in scan.mounts and (disk in memory.disks or _holds(disk, scan.roots, files)))
        or disk in waiting
        or _hidden(disk, scan)
    }
    related = {disk for disk in disks if any(inside(root, disk) or inside(disk, root) for root in scan.roots)}
    still = {unit for unit in memory.kept if _hidden(unit, scan)}
    return Memory(frozenset(related), frozenset({each.unit for each in kept} | still))


def keep_unreadable(scan: Scan, known: Collection[bytes], warn: Warn, *, prune: bool) -> dict[str, int]:
    """Warn of roots that could not be listed; returns kept images of roots that became empty, by root.

    Roots that became empty are treated as unmounted disks, unless prune.
    """
    kept = {}
    for root in scan.roots:
        if root not in scan.unreadable and root not in scan.empty_roots:
            continue
        n = len(_by_unit(known, [root]).get(root, []))
        remedy = "--forget removes them"
        if root in scan.empty_roots:
            if prune or not n:
                continue
            scan.unreadable[root] = "empty, as a disk that is not mounted"
            kept[shown(root)] = n
            remedy = "--prune removes them, --forget the source too"
        images = f"its {n:,} known images are" if n != 1 else "its 1 known image is"
        warn(f"{shown(root)}: {scan.unreadable[root]}; {images} kept, {remedy}")
    return kept


def warn_of_losses(kept: Sequence[Kept], warn: Warn) -> dict[str, int]:
    """Returns the number of images by source or disk."""
    for each in kept:
        warn(each.text)
    return {shown(each.unit): len(each.files) for each in kept}


def _by_unit(paths: Iterable[bytes], units: Sequence[bytes]) -> dict[bytes, list[bytes]]:
    """Paths by the innermost unit that contains them. units: longest first."""
    found: dict[bytes, list[bytes]] = {}
    bases = [(unit, base_of(unit)) for unit in units]
    for path in paths:
        for unit, base in bases:
            if path.startswith(base):
                found.setdefault(unit, []).append(path)
                break
    return found


def _holds(disk: bytes, roots: Sequence[bytes], files: Sequence[bytes]) -> bool:
    if any(inside(root, disk) for root in roots):
        return True
    base = base_of(disk)
    position = bisect_left(files, base)
    return position < len(files) and files[position].startswith(base)


def _hidden(path: bytes, scan: Scan) -> bool:
    return scan.is_unreadable(path) or any(inside(each, path) for each in scan.unreadable)


def _names(paths: Collection[bytes]) -> list[str]:
    return sorted(map(os.fsdecode, paths))
