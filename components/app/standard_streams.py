"""Standard streams: a full or closed stream never causes a traceback."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

import click

from image_finder.components import system

_BROKEN_PIPE = 141  # 128 + SIGPIPE, as shells report it
_FAILED = 1


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Replace the standard streams of the process; flush standard output at the end.

    If standard output cannot be written: one line on stderr and exit code 1; silent exit 141 for a pipe without a
    reader. Failed writes to standard error are dropped. A closed stream (`>&-`) becomes /dev/null.
    """
    _open_closed_descriptors()
    # Keep streams that a test or notebook has replaced.
    if (sys.stderr is None or sys.stderr is sys.__stderr__) and not system.is_console(sys.stderr):
        sys.stderr = _guarded(sys.stderr, _Dropping(2, "w", closefd=False))
    if (sys.stdout is None or sys.stdout is sys.__stdout__) and not system.is_console(sys.stdout):
        sys.stdout = _guarded(sys.stdout, _Ending(1, "w", closefd=False))
    try:
        yield
    finally:
        sys.stdout.flush()


def _open_closed_descriptors() -> None:
    """Open /dev/null for closed descriptors 0 to 2, or the next file would get the output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number


def _guarded(stream: TextIO | None, raw: io.FileIO) -> TextIO:
    """Wrap raw with the encoding and buffering of stream; escapes what it cannot encode."""
    errors = getattr(stream, "errors", None)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        getattr(stream, "encoding", "utf-8"),
        errors if errors not in {None, "strict"} else "backslashreplace",
        line_buffering=getattr(stream, "line_buffering", True),
        write_through=getattr(stream, "write_through", False),
    )


class _Dropping(io.FileIO):
    def write(self, data: "bytes | memoryview", /) -> int:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError:
            return len(data)


class _Ending(io.FileIO):
    """Ends the program on the first failed write; drops later writes."""

    failed = False

    def write(self, data: "bytes | memoryview", /) -> int:  # type: ignore[override]
        if self.failed:
            return len(data)
        try:
            return super().write(data)
        except OSError as error:
            self.failed = True  # buffered output must not fail again at interpreter exit
            if system.is_broken_pipe(error):
                raise SystemExit(_BROKEN_PIPE) from None
            click.echo(f"Error: could not write to standard output: {error.strerror}", err=True)
            raise SystemExit(_FAILED) from None
