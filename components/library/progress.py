"""Progress of an update: a small file in the library that `info` and servers read while images are indexed."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, ValidationError

from image_finder.components.library.library import Library
from image_finder.components.progress_bar import progress_bar
from image_finder.components.records.base import Record
from image_finder.components.system import replace
from image_finder.components.temporaries import temporary_file
from image_finder.components.text import duration

_EVERY_S = 1.0
_STALE_S = 60.0  # a killed update leaves its file; a running one may publish for long


class IndexProgress(Record):
    """State of a running update."""

    done: int = Field(description="images read by this update")
    total: int = Field(description="images that it reads")
    seconds: float = Field(description="since it began to read")

    @property
    def remaining_s(self) -> float | None:
        """Estimate from the mean rate so far; None before the first image."""
        return self.seconds / self.done * (self.total - self.done) if self.done else None

    def text(self) -> str:
        """For people: "2,140 of 6,000 images, about 3 min left"."""
        left = self.remaining_s
        return f"{self.done:,} of {self.total:,} images" + (f", about {duration(left)} left" if left else "")


def read_progress(library: Path) -> IndexProgress | None:
    """Progress of the update that runs now; None if there is none."""
    path = library / Library.PROGRESS
    try:
        if time.time() - path.stat().st_mtime > _STALE_S:
            return None
        return IndexProgress.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


class Progress:
    """Counts images on a bar and, about once a second, in the library's file."""

    def __init__(self, path: Path, total: int, *, shown: bool) -> None:
        self._path = path
        self._total = total
        self._done = 0
        self._started = self._written = time.monotonic()
        self._bar = progress_bar(total=total, unit=" images", shown=shown and total > 0)

    def advance(self) -> None:
        self._done += 1
        self._bar.update()
        now = time.monotonic()
        if now - self._written >= _EVERY_S:
            self._written = now
            self._write(now - self._started)

    def _write(self, seconds: float) -> None:
        content = {"done": self._done, "total": self._total, "seconds": round(seconds, 1)}
        # Not synced: nobody needs it after a crash. A full disk stops the update where it writes vectors.
        with contextlib.suppress(OSError), temporary_file(self._path) as (stream, temporary):
            stream.write(json.dumps(content).encode())
            stream.close()
            replace(temporary, self._path)

    def close(self) -> None:
        self._bar.close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def reported(library: Library, total: int, *, shown: bool) -> Iterator[Progress]:
    """Progress of reading a number of images, reported until the end. shown: also as a bar on stderr."""
    progress = Progress(library.root / Library.PROGRESS, total, shown=shown)
    try:
        yield progress
    finally:
        progress.close()
