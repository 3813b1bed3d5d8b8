"""Scan: finds image files below folders, with size and time; opens no image.

Skipped: names that begin with a dot, SYSTEM_FOLDERS in any case, files and folders that `.finderignore` files exclude,
and links. A link to a file inside the folders adds nothing, since that file is found itself; links to the outside are counted.
"""

import contextlib
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from image_finder.components.errors import StorageError
from image_finder.components.images.files import IMAGE_ENDINGS
from image_finder.components.library.catalog import base_of
from image_finder.components.library.ignore import IGNORE_FILE, MAX_IGNORE_BYTES, IgnoreRules
from image_finder.components.library.mounts import inside, mount_point
from image_finder.components.library.unsupported import KIND_OF_ENDING
from image_finder.components.moments import modified_ns
from image_finder.components.system import is_link, openable, path_bytes, without_slash

# Recycle bins, thumbnails, resource forks and packages of systems, network disks and programs.
SYSTEM_FOLDERS = frozenset(
    {
        *(b"lost+found", b"$recycle.bin", b"recycler", b"system volume information"),
        *(b"@eadir", b"#recycle", b"#snapshot", b"@recycle", b"__macosx", b"node_modules", b"__pycache__"),
    }
)
_UNSUPPORTED = frozenset(os.fsencode(ending) for ending in KIND_OF_ENDING)
_ENDINGS = frozenset(os.fsencode(ending) for ending in IMAGE_ENDINGS)
_IGNORE_FILE = os.fsencode(IGNORE_FILE)


@dataclass
class Scan:
    """What a scan found. Paths are absolute, as bytes of the file system."""

    roots: tuple[bytes, ...]
    files: dict[bytes, tuple[int, int, int]] = field(default_factory=dict)  # (position of root, size, mtime_ns)
    unreadable: dict[bytes, str] = field(default_factory=dict)  # folders and files that could not be listed: reason
    empty_roots: list[bytes] = field(default_factory=list)  # without visible entries, like an unmounted disk
    folders: set[tuple[bytes, int]] = field(default_factory=set)  # (path, inode) of each listed folder
    mounts: set[bytes] = field(default_factory=set)  # mount points of the file systems of roots and below
    unsupported: Counter[str] = field(default_factory=Counter)  # files by ending, of KIND_OF_ENDING
    links_outside: int = 0
    began_ns: int = 0  # nanoseconds since 1970
    ended_ns: int = 0

    def is_unreadable(self, path: bytes) -> bool:
        """Whether path, or a folder above it, could not be listed."""
        if not self.unreadable:
            return False
        while path not in self.unreadable:
            above = without_slash(path.rpartition(b"/")[0] + b"/")
            if above == path:
                return False
            path = above
        return True


def outermost_first(folders: Sequence[bytes]) -> tuple[bytes, ...]:
    return tuple(sorted(set(folders), key=lambda folder: (folder.count(b"/") if folder != b"/" else 0, folder)))


def scan_folders(
    roots: Sequence[bytes], *, leave_out: Sequence[bytes] = (), on_folder: Callable[[], object] = lambda: None
) -> Scan:
    """Find each image file below roots (absolute, resolved) once, under its outermost root.

    leave_out: folders to skip (the library itself). on_folder: called for each folder. Raises nothing: folders that
    cannot be listed, and missing roots, are part of the result.
    """
    scan = Scan(outermost_first(roots), began_ns=time.time_ns())
    walk = _Walk(scan, frozenset(leave_out))
    for position, root in enumerate(scan.roots):
        for _ in walk.folders(position, root):
            on_folder()
    scan.ended_ns = time.time_ns()
    return scan


class _Visit(NamedTuple):
    folder: bytes  # ends with a slash
    rules: IgnoreRules
    device: int  # of the folder above


@dataclass(frozen=True)
class _Walk:
    scan: Scan
    leave_out: frozenset[bytes]
    visited: set[tuple[int, int]] = field(default_factory=set)

    def folders(self, position: int, root: bytes) -> Iterator[None]:
        base = base_of(root)
        with contextlib.suppress(OSError):  # _folder records the reason
            self.scan.mounts.add(mount_point(root))
        waiting = [_Visit(base, IgnoreRules(), 0)]
        while waiting:
            waiting += self._folder(position, base, waiting.pop())
            yield

    def _folder(self, position: int, base: bytes, visit: _Visit) -> list[_Visit]:
        """Add the files of a folder; returns its subfolders to visit, with their rules."""
        folder, rules, device = visit
        try:
            status = os.stat(openable(folder))  # noqa: PTH116 - paths are bytes here, and Path objects cost as much as the stat
            if (status.st_dev, status.st_ino) in self.visited:
                return []
            if folder != base and status.st_dev != device:
                self.scan.mounts.add(folder.rstrip(b"/"))
            with os.scandir(openable(folder)) as listing:
                entries = list(listing)
            if any(entry.name == _IGNORE_FILE for entry in entries):
                rules = rules.extended(
                    os.fsdecode(folder[len(base) :]), _read_ignore_file(openable(folder + _IGNORE_FILE))
                )
        except (OSError, StorageError) as error:
            if isinstance(error, FileNotFoundError) and folder != base:  # just deleted
                return []
            reason = (error.strerror or "cannot be listed") if isinstance(error, OSError) else str(error)
            self.scan.unreadable[without_slash(folder)] = reason
            return []
        self.visited.add((status.st_dev, status.st_ino))
        self.scan.folders.add((without_slash(folder), status.st_ino))
        if folder == base and all(entry.name[0] == 46 or entry.name.lower() in SYSTEM_FOLDERS for entry in entries):
            self.scan.empty_roots.append(self.scan.roots[position])
        inner = self._entries(position, base, folder, entries, rules)
        return [_Visit(path, rules, status.st_dev) for path in inner]

    def _entries(
        self,
        position: int,
        base: bytes,
        folder: bytes,
        entries: Sequence["os.DirEntry[bytes]"],
        rules: IgnoreRules,
    ) -> list[bytes]:
        """Add the files among entries; returns the subfolders to visit, each ending in a slash."""
        inner = []
        files = self.scan.files
        for entry in entries:
            name = entry.name
            if name[0] == 46:  # a dot
                continue
            path = folder + name
            try:
                if is_link(entry):
                    self.scan.links_outside += self._leads_outside(path)
                elif entry.is_dir(follow_symlinks=False):
                    if name.lower() in SYSTEM_FOLDERS or path in self.leave_out:
                        continue
                    if not rules or not rules.ignores(os.fsdecode(path[len(base) :]) + "/"):
                        inner.append(path + b"/")
                elif (ending := name[name.rfind(b".") :].lower()) in _UNSUPPORTED:
                    if not rules or not rules.ignores(os.fsdecode(path[len(base) :])):
                        self.scan.unsupported[os.fsdecode(ending)] += 1
                elif ending in _ENDINGS and path not in files:
                    status = entry.stat(follow_symlinks=False)
                    if not stat.S_ISREG(status.st_mode) or (rules and rules.ignores(os.fsdecode(path[len(base) :]))):
                        continue
                    files[path] = (position, status.st_size, modified_ns(status))
            except FileNotFoundError:  # just deleted
                continue
            except OSError as error:
                self.scan.unreadable[path] = error.strerror or "cannot be looked at"
        return inner

    def _leads_outside(self, link: bytes) -> bool:
        target = path_bytes(os.fsdecode(os.path.realpath(link)))
        try:
            mode = os.stat(target).st_mode  # noqa: PTH116 - bytes
        except OSError:  # dangling, or a loop
            return False
        if not stat.S_ISDIR(mode) and target[target.rfind(b".") :].lower() not in _ENDINGS:
            return False
        return not any(inside(target, root) for root in self.scan.roots)


def _read_ignore_file(path: bytes) -> bytes:
    """Content of a rules file. Raises StorageError, since excluded files must not be indexed."""
    try:
        status = os.lstat(path)  # not stat: a link may lead outside the given folders
        if not stat.S_ISREG(status.st_mode):
            raise StorageError(f"its {IGNORE_FILE} is not a regular file")
        if status.st_size > MAX_IGNORE_BYTES:
            raise StorageError(f"its {IGNORE_FILE} has {status.st_size:,} bytes, at most {MAX_IGNORE_BYTES:,} are read")
        with open(path, "rb") as stream:  # noqa: PTH123 - bytes
            return stream.read()
    except OSError as error:  # also if it was just deleted, as by an editor that saves it
        raise StorageError(f"its {IGNORE_FILE} cannot be read: {error.strerror}") from error
