"""Watch: reports when images of some folders, or the default bundle, may have changed.

The system reports changes (inotify on Linux) in each folder of the last update. Where it cannot, the folders are
scanned at intervals and compared with the last update. An update is due after rescan_s in any case.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from watchfiles import Change, watch
from watchfiles._rust_notify import WatchfilesRustInternalError

from image_finder.components.images.files import IMAGE_ENDINGS
from image_finder.components.library.ignore import IGNORE_FILE
from image_finder.components.library.library import shown
from image_finder.components.library.mounts import mounted_at, remote_mount
from image_finder.components.library.scan import Scan, scan_folders
from image_finder.components.system import path_bytes
from image_finder.components.text import one_line

Cause = Literal["start", "images", "folders", "bundle", "interval"]
_LOOK_S = (
    5.0  # between looks at what the system does not report: sources and disks that come and go, the default bundle
)
_QUIET_MS = 1000  # time without a change before changes are reported
_AT_MOST_MS = 30_000  # longest delay of a report
_IDLE_SHARE = 20  # polling takes at most a twentieth of one core
_AGAIN_S = 1.0  # before folders that changed at the start of the watch are listed again


class Due(NamedTuple):
    """An update is due. polling: why the folders are polled; "" while the system reports changes."""

    cause: Cause
    polling: str


class View(NamedTuple):
    """What is compared of an update."""

    folders: frozenset[tuple[bytes, int]] = frozenset()  # path and inode
    files: int = 0  # hash of all paths, sizes and times
    locked: tuple[bytes, ...] = ()  # folders without permission to list


def view_of(scan: Scan) -> View:
    files = sum(hash((path, facts[1:])) for path, facts in scan.files.items()) & 0xFFFFFFFFFFFFFFFF
    locked = sorted(path for path in scan.unreadable if not _can_be_listed(path))
    return View(frozenset(scan.folders), files, tuple(locked))


@dataclass
class FolderWatch:
    folders: Sequence[Path]  # the sources
    leave_out: Path  # the library, which may be inside a source
    seen: Callable[[], View]  # view of the last update
    bundle_ns: Callable[[], int]  # time of the last published default bundle
    stop: threading.Event
    warn: Callable[[str], None]  # gets one line when the watch switches between events and polling
    rescan_s: float  # an update is due after this time
    look_s: float = _LOOK_S
    _polling: str = field(default="", init=False)
    _began: bool = field(default=False, init=False)
    _updated: float = field(default_factory=time.monotonic, init=False)
    _state: tuple[object, ...] = field(default=(), init=False)

    def causes(self) -> Iterator[Due]:
        """Yield whenever an update is due. The consumer must update before it continues."""
        self._state = self._outside()
        while not self.stop.is_set():
            for cause in self._causes():
                yield Due(cause, self._polling)
                self._updated = time.monotonic()

    def _causes(self) -> Iterator[Cause]:
        if remote := remote_mount([path_bytes(folder) for folder in self.folders]):
            point, kind = remote
            reason = f"{shown(point)} is a network file system ({kind}), which does not report every change"
            yield from self._by_looking(reason, "")
            return
        if odd := next((path for path, _ in self.seen().folders if not _is_utf8(path)), None):
            yield from self._by_looking(f"the system cannot watch {shown(odd)}: its name is not UTF-8", "")
            return
        try:
            yield from self._by_events()
        except (FileNotFoundError, NotADirectoryError, PermissionError):  # a folder changed before it was watched
            if not self.stop.wait(_AGAIN_S):
                yield "folders"
        except (OSError, WatchfilesRustInternalError) as error:
            yield from self._by_looking(*_reason_and_remedy(str(error)))

    def _by_events(self) -> Iterator[Cause]:
        seen = self.seen()
        paths = sorted(os.fsdecode(path) for path, _ in seen.folders)
        names = frozenset(map(os.path.normcase, paths))
        watching = False
        for changes in (
            watch(
                *paths,
                watch_filter=lambda change, path: self._matters(change, path, names),
                debounce=_AT_MOST_MS,
                step=_QUIET_MS,
                stop_event=self.stop,
                rust_timeout=int(self.look_s * 1000),
                yield_on_timeout=True,
                raise_interrupt=True,
                recursive=False,  # recursively, one folder that cannot be watched ends the watch of those after it
                ignore_permission_denied=False,  # it would hide that a limit is reached
            )
            if paths
            else _ticks(self.stop, self.look_s)
        ):
            if not watching:  # earlier changes were not reported
                watching = True
                self._report("", "")
                yield "start"
            elif changes:
                yield "images"
            if cause := self._other_cause(seen):
                yield cause
            if self.seen().folders != seen.folders:
                return

    def _by_looking(self, reason: str, remedy: str) -> Iterator[Cause]:
        """Poll until the rescan interval has passed; then events are tried again."""
        if self._report(reason, remedy):
            yield "start"
        rescanned = False
        pause_s = self.look_s
        while not rescanned and not self.stop.wait(pause_s):
            began = time.monotonic()
            seen = self.seen()
            roots = [path_bytes(folder) for folder in self.folders]
            now = view_of(scan_folders(roots, leave_out=[path_bytes(self.leave_out)]))
            pause_s = max(self.look_s, _IDLE_SHARE * (time.monotonic() - began))
            if (now.files, now.locked) != (seen.files, seen.locked):
                yield "images"
            elif cause := self._other_cause(seen):
                rescanned = cause == "interval"
                yield cause

    def _report(self, polling: str, remedy: str) -> bool:
        """Warn if the way of watching changed; returns whether it changed or just began."""
        changed = polling != self._polling or not self._began
        if changed and polling:
            self.warn(f"{polling}; looking for changes every {self.look_s:g} s or less often instead{remedy}")
        elif changed and self._began:
            self.warn("the system reports changes again")
        self._polling, self._began = polling, True
        return changed

    def _other_cause(self, seen: View) -> Cause | None:
        before, self._state = self._state, self._outside()
        if self._state[0] != before[0]:
            return "bundle"
        if self._state != before or any(map(_can_be_listed, seen.locked)):
            return "folders"
        return "interval" if time.monotonic() - self._updated >= self.rescan_s else None

    def _outside(self) -> tuple[object, ...]:
        """State that events do not cover: default bundle, existing sources, mounts."""
        return (self.bundle_ns(), _present(self.folders), mounted_at([path_bytes(folder) for folder in self.folders]))

    def _matters(self, change: Change, path: str, watched: frozenset[str]) -> bool:
        path, left_out = os.path.normcase(path), os.path.normcase(self.leave_out)
        if path == left_out or path.startswith(f"{left_out}{os.sep}"):
            return False
        name = os.path.basename(path)  # noqa: PTH119 - a Path for each event of a large copy costs more than all else
        if name == IGNORE_FILE or os.path.splitext(name)[1].lower() in IMAGE_ENDINGS:  # noqa: PTH122
            return True
        # Images of an added or removed folder have no events themselves.
        return (change == Change.deleted and path in watched) or (change == Change.added and os.path.isdir(path))  # noqa: PTH112


def _present(folders: Sequence[Path]) -> dict[Path, tuple[int, int]]:
    """With device and inode, to detect replaced folders."""
    found = {}
    for folder in folders:
        try:
            status = folder.stat()
        except OSError:
            continue
        found[folder] = (status.st_dev, status.st_ino)
    return found


def _can_be_listed(folder: bytes) -> bool:
    return os.access(folder, os.R_OK | os.X_OK)


def _is_utf8(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True


def _reason_and_remedy(error: str) -> tuple[str, str]:
    if "watch limit" in error:
        reason = "the system cannot watch so many folders: its inotify watches are used up"
        return reason, "; to raise the limit: sudo sysctl fs.inotify.max_user_watches=1048576"
    if "os error 24" in error:
        reason = "the system cannot watch the folders: no inotify instance is left"
        return reason, "; to raise the limit: sudo sysctl fs.inotify.max_user_instances=1024"
    return f"the system cannot watch the folders: {one_line(error)}", ""


def _ticks(stop: threading.Event, seconds: float) -> Iterator[set[object]]:
    while not stop.wait(seconds):
        yield set()
