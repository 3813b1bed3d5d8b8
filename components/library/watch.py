"""Watch: says when the pictures of some folders, or the default bundle, may have changed; indexes nothing."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from watchfiles import Change, watch

from components.data.images import PICTURE_ENDINGS
from components.library.ignore import IGNORE_FILE

Cause = Literal["start", "pictures", "folders", "bundle"]
_LOOK_S = 5.0  # between looks at what the system does not report: folders that come and go, the default bundle
_QUIET_MS = 1000  # changes are reported once none came for so long
_AT_MOST_MS = 30_000  # and after so long in any case


def watch_folders(
    folders: Sequence[Path],
    *,
    leave_out: Path,
    bundle_ns: Callable[[], int],
    stop: threading.Event,
    warn: Callable[[str], None],
    look_s: float = _LOOK_S,
) -> Iterator[Cause]:
    """Yield why another look is due, as often as it is, until stop is set.

    The first cause is that watching began. A folder that vanishes is watched again once it is back; either is a cause. leave_out: the library itself, which may
    lie in a watched folder. bundle_ns: when a default bundle was published last. Where the system cannot watch so many
    folders (inotify's limit), they are looked through regularly instead, which warn is told once.
    """
    poll = False
    present = _present(folders)
    bundle = bundle_ns()
    while not stop.is_set():
        watching = False
        try:
            for changes in (
                watch(
                    *present,
                    watch_filter=lambda change, path: _matters(change, path, leave_out),
                    debounce=_AT_MOST_MS,
                    step=_QUIET_MS,
                    stop_event=stop,
                    rust_timeout=int(look_s * 1000),
                    yield_on_timeout=True,
                    raise_interrupt=True,
                    force_polling=poll or None,
                    ignore_permission_denied=True,
                )
                if present
                else _ticks(stop, look_s)
            ):
                if not watching:  # what changed before the system watched was not reported
                    watching = True
                    yield "start"
                elif changes:
                    yield "pictures"
                if bundle_ns() != bundle:
                    bundle = bundle_ns()
                    yield "bundle"
                if _present(folders) != present:
                    break
        except FileNotFoundError:  # a folder vanished before it was watched
            pass
        except OSError as error:
            if poll:
                raise
            poll = True
            warn(f"the system cannot watch so many folders ({error}); they are looked through regularly instead")
            continue
        if not stop.is_set() and _present(folders) != present:
            present = _present(folders)
            yield "folders"


def _present(folders: Sequence[Path]) -> dict[Path, tuple[int, int]]:
    """Folders that are there, with what tells one that came back from the one that went."""
    found = {}
    for folder in folders:
        try:
            status = folder.stat()
        except OSError:
            continue
        found[folder] = (status.st_dev, status.st_ino)
    return found


def _ticks(stop: threading.Event, seconds: float) -> Iterator[set[object]]:
    """Nothing, every so many seconds: there is no folder to watch."""
    while not stop.wait(seconds):
        yield set()


def _matters(change: Change, path: str, leave_out: Path) -> bool:
    if path == str(leave_out) or path.startswith(f"{leave_out}{os.sep}"):
        return False
    name = os.path.basename(path)  # noqa: PTH119 - a Path for each event of a large copy costs more than all else
    if name == IGNORE_FILE or os.path.splitext(name)[1].lower() in PICTURE_ENDINGS:  # noqa: PTH122
        return True
    # A folder that came or went brings or takes its pictures without an event for each.
    return (change == Change.deleted and "." not in name) or (change == Change.added and os.path.isdir(path))  # noqa: PTH112
