"""Image folder: lists and reads files of a folder of this machine or of an object store; decodes nothing."""

from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from image_finder.components.errors import DataError
from image_finder.components.images.files import (
    IMAGE_ENDINGS,
    find_images,
    read_image,
    require_readable_size,
    walk_files,
)
from image_finder.components.moments import modified_s
from image_finder.components.storage import sha256_of_lines
from image_finder.components.text import one_line


class FileState(NamedTuple):
    """What a listing says of a file."""

    n_bytes: int
    modified_s: int  # POSIX time, whole seconds


class ImageFolder:
    """A folder, named by its absolute path, or by a URI that pyarrow has a file system for (s3, gs, abfs, hdfs, file)."""

    def __init__(self, place: str) -> None:
        """Opens nothing yet on this machine; a URI is looked at. Raises DataError for one that cannot be used."""
        self.shown_place = shown_uri(place) if is_uri(place) else place
        self._place = place
        self._files: Any = None
        self._base = ""
        if is_uri(place):
            self._files, self._base = _open_uri(place)

    def images(self) -> list[Path]:
        """Files below with one of the known endings, relative, sorted by POSIX path; hidden ones are left out.

        Raises DataError if there is no such folder or it cannot be listed.
        """
        if self._files is None:
            return find_images(Path(self._place))
        paths = map(Path, sorted(self._listed()))
        return [path for path in paths if path.suffix.lower() in IMAGE_ENDINGS]

    def fingerprint(self) -> str:
        """Hex SHA-256 over names, sizes and times of change of the files below. Raises DataError as `images` does."""
        if self._files is None:
            return sha256_of_lines((name, s.st_size, s.st_mtime_ns) for name, s in walk_files(Path(self._place)))
        return sha256_of_lines((name, info.size or 0, info.mtime_ns or 0) for name, info in self._listed().items())

    def read(self, path: Path) -> bytes:
        """Content of a file, path relative to the folder. Raises ImageError for its size, OSError."""
        if self._files is None:
            return read_image(Path(self._place, path))
        with self._files.open_input_file(self._below(path)) as stream:
            require_readable_size(stream.size())
            content: bytes = stream.read()
        return content

    def state(self, path: Path) -> FileState:
        """Size and time of change of a file. Raises OSError."""
        if self._files is None:
            status = Path(self._place, path).stat()
            return FileState(status.st_size, modified_s(status))
        info = self._files.get_file_info(self._below(path))
        if info.size is None:
            raise FileNotFoundError(2, "No such file", self.shown(path))
        return FileState(info.size, (info.mtime_ns or 0) // 1_000_000_000)

    def shown(self, path: Path) -> str:
        """Where a file is, for people; bytes that are not UTF-8 are as the system gives them."""
        return f"{self.shown_place.rstrip('/')}/{path.as_posix()}"

    def _listed(self) -> dict[str, Any]:
        """The FileInfo of pyarrow of each file below that is not hidden, by relative POSIX path."""
        from pyarrow import fs

        try:
            found = self._files.get_file_info(fs.FileSelector(self._base, recursive=True))
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            raise DataError(
                f"gallery: {self.shown_place} cannot be listed: {one_line(error)}; check the URI"
            ) from error
        base = PurePosixPath(self._base)
        files = {PurePosixPath(info.path).relative_to(base): info for info in found if info.type == fs.FileType.File}
        return {str(name): info for name, info in files.items() if not any(part[0] == "." for part in name.parts)}

    def _below(self, path: Path) -> str:
        return f"{self._base.rstrip('/')}/{path.as_posix()}"


def is_uri(place: str) -> bool:
    """Whether place names an object store rather than a folder; no path holds two slashes after a colon."""
    return "://" in place


def shown_uri(uri: str) -> str:
    """A URI without its options, as it is told to people and kept in an index."""
    parts = urlsplit(uri)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))


def uri_below(uri: str, folder: str) -> str:
    """URI of a folder below another's, with the same options; "." is the folder itself."""
    parts = urlsplit(uri)
    path = parts.path.rstrip("/") if folder == "." else f"{parts.path.rstrip('/')}/{folder.strip('/')}"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def _open_uri(uri: str) -> tuple[Any, str]:
    """A file system of pyarrow's for a URI, and the path in it."""
    from pyarrow import fs

    try:
        files, base = fs.FileSystem.from_uri(uri)
    except (OSError, ValueError, ImportError) as error:
        raise DataError(
            f"{shown_uri(uri)}: no file system for it: {one_line(error)}; pyarrow knows file, s3, gs, abfs and hdfs"
        ) from error
    return files, base
