"""Image folder: lists and reads the files of a local folder or an object store; decodes nothing."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit, urlunsplit

from image_finder.components.errors import DataError
from image_finder.components.images.files import (
    IMAGE_ENDINGS,
    fingerprint_folder,
    read_image,
    require_readable_size,
    walk_files,
)
from image_finder.components.moments import modified_ns
from image_finder.components.storage import sha256_of_lines
from image_finder.components.text import one_line

_Answer = TypeVar("_Answer")


class FileState(NamedTuple):
    n_bytes: int
    modified_ns: int  # since 1970


class ImageFolder:
    """A local folder, or a URI of a pyarrow file system (s3, gs, abfs, hdfs, file)."""

    def __init__(self, location: str) -> None:
        """location: absolute path or URI; a URI is checked, a folder not yet. Raises DataError."""
        self.shown_location = shown_uri(location) if is_uri(location) else location
        self._location = location
        self._files: Any = None
        self._base = ""
        if is_uri(location):
            self._files, self._base = _open_uri(location)

    def states(self) -> dict[Path, FileState]:
        """Size and modification time of each visible image file, by relative path. Raises DataError."""
        if self._files is None:
            found = walk_files(Path(self._location))
            states = {Path(name): FileState(status.st_size, modified_ns(status)) for name, status in found}
        else:
            listed = self._listed().items()
            states = {Path(name): FileState(info.size or 0, info.mtime_ns or 0) for name, info in listed}
        return {path: state for path, state in states.items() if path.suffix.lower() in IMAGE_ENDINGS}

    def fingerprint(self) -> str:
        if self._files is None:
            return fingerprint_folder(Path(self._location))
        return sha256_of_lines((name, info.size or 0, info.mtime_ns or 0) for name, info in self._listed().items())

    def read(self, path: Path) -> bytes:
        """Content of a file, by relative path. Raises ImageError for its size, OSError."""
        if self._files is None:
            return read_image(Path(self._location, path))
        try:
            with self._files.open_input_file(self._below(path)) as stream:
                require_readable_size(stream.size())
                content: bytes = stream.read()
        except FileNotFoundError as error:
            raise FileNotFoundError(2, "No such file", self.shown(path)) from error
        return content

    def state(self, path: Path) -> FileState:
        if self._files is None:
            status = Path(self._location, path).stat()
            return FileState(status.st_size, modified_ns(status))
        info = self._files.get_file_info(self._below(path))
        if info.size is None:
            raise FileNotFoundError(2, "No such file", self.shown(path))
        return FileState(info.size, info.mtime_ns or 0)

    def shown(self, path: Path) -> str:
        return f"{self.shown_location.rstrip('/')}/{path.as_posix()}"

    def _listed(self) -> dict[str, Any]:
        from pyarrow import fs

        try:
            found = self._files.get_file_info(fs.FileSelector(self._base, recursive=True))
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            raise DataError(
                f"gallery: {self.shown_location} cannot be listed: {one_line(error)}; check the URI"
            ) from error
        base = PurePosixPath(self._base)
        files = {PurePosixPath(info.path).relative_to(base): info for info in found if info.type == fs.FileType.File}
        return {str(name): info for name, info in files.items() if not any(part[0] == "." for part in name.parts)}

    def _below(self, path: Path) -> str:
        return f"{self._base.rstrip('/')}/{path.as_posix()}"


@lru_cache(maxsize=16)
def opened_folder(location: str) -> ImageFolder:
    """An ImageFolder, opened once: connecting to an object store takes a while. Raises DataError."""
    return ImageFolder(location)


class StoredFile(NamedTuple):
    folder: ImageFolder
    path: Path

    def state(self) -> FileState:
        return self._reached(self.folder.state)

    def content(self) -> bytes:
        return self._reached(self.folder.read)

    def _reached(self, get: Callable[[Path], _Answer]) -> _Answer:
        if ".." in self.path.parts:
            raise DataError(f"{self.folder.shown(self.path)} leads outside the source; index it again")
        try:
            return get(self.path)
        except OSError as error:
            raise DataError(f"{self.folder.shown(self.path)} cannot be read: {one_line(error)}") from error


def is_uri(location: str) -> bool:
    """Whether location names an object store rather than a folder; no path holds two slashes after a colon."""
    return "://" in location


def shown_uri(uri: str) -> str:
    """A URI without its options, which may hold secrets, for messages and indices."""
    parts = urlsplit(uri)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))


def uri_below(uri: str, folder: str) -> str:
    """URI of a folder below another one, with the same options; "." is the folder itself."""
    parts = urlsplit(uri)
    path = parts.path.rstrip("/") if folder == "." else f"{parts.path.rstrip('/')}/{folder.strip('/')}"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def _open_uri(uri: str) -> tuple[Any, str]:
    from pyarrow import fs

    try:
        files, base = fs.FileSystem.from_uri(uri)
    except (OSError, ValueError, ImportError) as error:
        raise DataError(
            f"{shown_uri(uri)}: no file system for it: {one_line(error)}; pyarrow knows file, s3, gs, abfs and hdfs"
        ) from error
    return files, base
