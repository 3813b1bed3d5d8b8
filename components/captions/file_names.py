"""File names of annotations: resolves what other tools wrote to existing files; reads directory listings only.

Tools write names with directories ("val2017/1.jpg", "data/val2017/1.jpg"), with backslashes, in another case, or with
decomposed characters (NFD, as macOS stores them). A name is resolved within its folder and never leads out of it.
"""

import contextlib
import itertools
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from image_finder.components.errors import DataError

_WINDOWS_ROOT = re.compile(r"[A-Za-z]:[\\/]")


def leads_out(name: str) -> bool:
    """Whether a file name is absolute or goes up, in POSIX or Windows notation."""
    absolute = name.startswith(("/", "\\")) or _WINDOWS_ROOT.match(name) is not None
    return absolute or ".." in name.replace("\\", "/").split("/")


def plain_name(name: str, folder: str) -> str:
    """A name without redundant parts: backslashes, "./", directories up to one named folder."""
    tidy = _tidy(name)
    return name if leads_out(name) else _below(tidy, folder) or tidy


class ImageNames:
    """The files of one image folder by their annotated names."""

    def __init__(self, root: Path | None, images: str) -> None:
        """root: of the data set, None if not local. images: POSIX path below it, "" for root itself."""
        self._root = root
        self._images = images
        self._name = PurePosixPath(images).name or (root.resolve().name if root else "")
        self._listings: dict[str, _Listing] = {}

    def resolve(self, names: Sequence[str]) -> list[str]:
        """The path below root of each name.

        Tried in this order: the name itself; below a directory named like the folder; without leading directories that
        all names share. Each exactly, else in another case or Unicode form. A name without a file gets the first of
        these paths. Raises DataError if a name matches several files, or several names match one file.
        """
        listed = self._listing(self._images)
        paths = {name: self._path(name) for name in names if name in listed.names}  # nearly all
        others = {name: _tidy(name) for name in names if name not in paths}
        shared = 0 if paths else _shared_directories([each for name, each in others.items() if not leads_out(name)])
        owner = {path: name for name, path in paths.items()}
        for name, tidy in others.items():
            found = None if leads_out(name) else self._find(name, tidy, shared)
            if found is not None and _tidy(owner.setdefault(found, name)) != tidy:
                raise DataError(f"file names {owner[found]!r} and {name!r} both match {found}; rename or leave out one")
            paths[name] = found or self._first_path(name, tidy)
        return [paths[name] for name in names]

    def _find(self, name: str, tidy: str, shared: int) -> str | None:
        tried = self._candidates(name, tidy, shared)
        return next((found for each in tried if (found := self._lookup(each)) is not None), None)

    def _candidates(self, name: str, tidy: str, shared: int) -> Iterator[str]:
        if "\\" in name:
            yield name  # a file name may contain backslashes
        yield tidy
        if below := _below(tidy, self._name):
            yield below
        parts = tidy.split("/")
        for dropped in range(1, shared + 1):
            yield "/".join(parts[dropped:])

    def _first_path(self, name: str, tidy: str) -> str:
        if tidy.startswith(("/", "\\")) or _WINDOWS_ROOT.match(name):
            return tidy
        folders = (folder for folder in (self._images, self._name) if folder and tidy.startswith(f"{folder}/"))
        inner = tidy.removeprefix(f"{next(folders, '')}/")
        return self._path(inner)

    def _path(self, inner: str) -> str:
        return f"{self._images}/{inner}" if self._images else inner

    def _lookup(self, name: str) -> str | None:
        found = self._images
        for part in name.split("/"):
            entry = self._listing(found).entry(part)
            if entry is None:
                return None
            found = f"{found}/{entry}" if found else entry
        return found

    def _listing(self, folder: str) -> "_Listing":
        if folder not in self._listings:
            self._listings[folder] = _Listing(self._root, folder)
        return self._listings[folder]


class _Listing:
    def __init__(self, root: Path | None, folder: str) -> None:
        self._folder = folder
        self.names: frozenset[str] = frozenset()
        if root is not None:
            with contextlib.suppress(OSError):  # files of an absent folder are reported as missing later
                self.names = frozenset(os.listdir(root / folder))  # noqa: PTH208 - only names are needed

    def entry(self, name: str) -> str | None:
        """The entry of that name, else the only one that differs in case or Unicode form. Raises DataError."""
        if name in self.names:
            return name
        matches = self._folded.get(_folded(name), [])
        if len(matches) > 1:
            listed = " and ".join(repr(match) for match in sorted(matches)[:2])
            raise DataError(f"file name {name!r} matches both {listed} in {self._folder or '.'}; rename one of them")
        return matches[0] if matches else None

    @cached_property
    def _folded(self) -> dict[str, list[str]]:
        folded: dict[str, list[str]] = {}
        for name in self.names:
            folded.setdefault(_folded(name), []).append(name)
        return folded


def _tidy(name: str) -> str:
    """A name with slashes, without "." and empty parts; unchanged if it leads out or is empty."""
    if leads_out(name):
        return name
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in {"", "."}) or name


def _below(tidy: str, folder: str) -> str | None:
    """The part after the last directory named folder; None if there is none."""
    *directories, file = tidy.split("/")
    for position in range(len(directories), 0, -1):
        if folder and _folded(directories[position - 1]) == _folded(folder):
            return "/".join([*directories[position:], file])
    return None


def _shared_directories(names: Sequence[str]) -> int:
    parents = [name.split("/")[:-1] for name in names]
    if not parents:
        return 0
    pairs = zip(min(parents), max(parents), strict=False)  # all names share what the first and last in order share
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
