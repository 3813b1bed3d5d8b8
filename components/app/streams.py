"""Standard streams: a full or closed one ends a command with one line or quietly, never with a traceback."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

import click

_BROKEN_PIPE = 141  # 128 + SIGPIPE: what a shell reports of `grep` and others whose reader has gone
_FAILED = 1


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Replace the standard streams for the rest of the process, and flush standard output at the end.

    Standard output that cannot be written: one line on stderr and exit code 1; a pipe without a reader: quietly 141.
    What standard error does not take is dropped, and the exit code stays. A closed stream (`>&-`) is /dev/null.
    """
    _open_closed_descriptors()
    # Streams that a caller has replaced (a test, a notebook) are the caller's.
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _guarded(sys.stderr, _Dropping(2, "w", closefd=False))
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = _guarded(sys.stdout, _Ending(1, "w", closefd=False))
    try:
        yield
    finally:
        sys.stdout.flush()


def _open_closed_descriptors() -> None:
    """Open /dev/null as each of 0, 1 and 2 that is closed: the next file opened would get its number, and output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number that is free


def _guarded(stream: TextIO | None, raw: io.FileIO) -> TextIO:
    """A stream over raw with the encoding and buffering of another; characters it cannot encode become escapes."""
    if stream is None:
        return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=True)
    errors = stream.errors if stream.errors not in {None, "strict"} else "backslashreplace"
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        stream.encoding,
        errors,
        line_buffering=bool(stream.line_buffering),
        write_through=getattr(stream, "write_through", False),
    )


class _Dropping(io.FileIO):
    """A stream that takes whatever is written, and drops what it cannot write."""

    def write(self, data: "bytes | memoryview", /) -> int:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError:
            return len(data)


class _Ending(io.FileIO):
    """A stream whose first failure ends the program; what is written afterwards is dropped."""

    failed = False

    def write(self, data: "bytes | memoryview", /) -> int:  # type: ignore[override]
        if self.failed:
            return len(data)
        try:
            return super().write(data)
        except OSError as error:
            self.failed = True  # what is buffered must not fail again while the interpreter ends
            if error.errno == errno.EPIPE:
                raise SystemExit(_BROKEN_PIPE) from None
            click.echo(f"Error: standard output cannot be written: {error.strerror}", err=True)
            raise SystemExit(_FAILED) from None
