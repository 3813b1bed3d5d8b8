"""Phases: an account of long work on standard error, a line for each phase; knows nothing of pipelines.

On a terminal the line of the running phase is redrawn in place with its progress and the time left, and other text
appears above it. A log gets a line when a phase starts, one every 30 s and one when it ends.
"""

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TextIO, cast

from image_finder.components.text import duration, elapsed

_TICK_S = 0.5
_LOG_S = 30.0
_START_S = 1.0  # a phase that ends before gets one line in a log, not two
_TITLE_CHARACTERS = 40


class Progress(NamedTuple):
    """How far work is, for people, and an estimate of the time left."""

    text: str = ""
    left_s: float | None = None


class Phase:
    """Work that is running."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.outcome = ""  # shown at the end instead of the duration
        self._part = ""
        self._started = time.monotonic()
        self._progress: Callable[[], Progress] = Progress

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def left_s(self) -> float | None:
        return self._progress().left_s

    def follow(self, progress: Callable[[], Progress] = Progress) -> None:
        """Show this progress, which another thread reads; without one, the duration so far."""
        self._progress = progress

    @contextlib.contextmanager
    def within(self, title: str) -> Iterator[None]:
        """Name a part of the work while it runs."""
        self._part = "" if title == self.title else title
        try:
            yield
        finally:
            self._part = ""
            self.follow()

    def text(self) -> str:
        said = ", ".join(filter(None, (self._part, self._progress().text)))
        if not said and self.seconds < _START_S:
            return self.title
        return f"{self.title}: {said or duration(self.seconds)}"


class Account:
    """Phases of one piece of work, one after the other."""

    def __init__(self, lines: "_Lines", *, keep_short: bool) -> None:
        self.running: Phase | None = None
        self._lines = lines
        self._keep_short = keep_short
        self._expected: dict[str, float] = {}
        self._lock = threading.RLock()

    def expect(self, durations_s: Mapping[str, float]) -> None:
        """Set the durations of all phases to come, by title: from them follows the time left of the whole."""
        self._expected = dict(durations_s)

    @contextlib.contextmanager
    def phase(self, title: str, *, keep_short: bool = True) -> Iterator[Phase]:
        """Account for the work in a with statement. keep_short: see `accounted`."""
        phase = Phase(title)
        with self._lock:
            self.running = phase
            self._lines.begin(title, keep_short=keep_short and self._keep_short)
        try:
            yield phase
        except BaseException as error:
            self._end(phase, "failed" if isinstance(error, Exception) else "stopped")
            raise
        self._end(phase, phase.outcome or elapsed(phase.seconds))

    def note(self, title: str, outcome: str) -> None:
        """Account for a phase without work."""
        with self.phase(title) as phase:
            phase.outcome = outcome

    def tick(self) -> None:
        """Show how far the running phase is."""
        with self._lock:
            if self.running is not None:
                self._lines.tick(self.running.text() + self._left(self.running))

    def _end(self, phase: Phase, outcome: str) -> None:
        with self._lock:
            self.running = None
            self._expected.pop(phase.title, None)
            dots = "." * (_TITLE_CHARACTERS - len(phase.title))
            self._lines.end(f"{phase.title} {dots} {outcome}", phase.seconds)

    def _left(self, phase: Phase) -> str:
        """Time left of the phase by its progress, and of the whole where durations of all phases are expected."""
        own, expected = phase.left_s, self._expected.get(phase.title)
        phase_left = f"{duration(own)} left" if own is not None and own >= 1 else ""
        if expected is None:
            return phase_left and f", about {phase_left}"
        later = sum(seconds for title, seconds in self._expected.items() if title != phase.title)
        total = later + (max(expected - phase.seconds, 0.0) if own is None else own)
        if total < 1:
            return ""
        # Without "about", the line of a training fits into 80 columns.
        return f", {phase_left} (run: {duration(total)})" if phase_left else f" (run: about {duration(total)} left)"


_current: Account | None = None


@contextlib.contextmanager
def accounted(*, keep_short: bool = True) -> Iterator[Account]:
    """Show the phases within a with statement; within another account, yields that one.

    keep_short: whether phases of less than a second (in a log: of less than 30 s) leave a line.
    """
    global _current  # noqa: PLW0603 - there is one standard error
    if _current is not None:
        yield _current
        return
    stop = threading.Event()
    lines = _TerminalLines(sys.stderr) if sys.stderr.isatty() else _LogLines(sys.stderr)
    account = Account(lines, keep_short=keep_short)
    ticks = threading.Thread(target=_tick, args=(account, stop), daemon=True, name="phases")
    with lines:
        _current = account
        ticks.start()
        try:
            yield account
        finally:
            _current = None
            stop.set()


@contextlib.contextmanager
def phase(title: str, *, keep_short: bool = True) -> Iterator[None]:
    """A phase of the current account, or a part of its running phase; without an account, nothing is shown."""
    if _current is None:
        yield
    elif _current.running is None:
        with _current.phase(title, keep_short=keep_short):
            yield
    else:
        with _current.running.within(title):
            yield


def running_phase() -> Phase | None:
    """The phase whose line shows progress; None outside of an account."""
    return _current.running if _current is not None else None


def write_unwrapped(text: str) -> int:
    """Write to standard error, above the line of a phase, but not through ZenML, which replaces `write` of the stream."""
    return type(sys.stderr).write(sys.stderr, text)


def _tick(account: Account, stop: threading.Event) -> None:
    while not stop.wait(_TICK_S):
        account.tick()


class _Lines(Protocol):
    """Where an account is shown."""

    def begin(self, title: str, *, keep_short: bool) -> None: ...

    def tick(self, text: str) -> None: ...

    def end(self, text: str, seconds: float) -> None: ...


class _LogLines:
    """Whole lines, at intervals."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._keep_short = True
        self._title = ""
        self._due = 0.0
        self._written = False

    def __enter__(self) -> None: ...

    def __exit__(self, *exception: object) -> None: ...

    def begin(self, title: str, *, keep_short: bool) -> None:
        self._title, self._keep_short, self._written = title, keep_short, False
        self._due = time.monotonic() + (_START_S if self._keep_short else _LOG_S)

    def tick(self, text: str) -> None:
        if time.monotonic() >= self._due:
            self._write(text if self._written or not self._keep_short else f"{self._title}: started")
            self._due += _LOG_S
            self._written = True

    def end(self, text: str, seconds: float) -> None:
        if self._keep_short or self._written:
            self._write(text)

    def _write(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()


class _TerminalLines:
    """Replaces sys.stderr: what is written to it appears above a line that is redrawn in place."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._keep_short = True
        self._line = ""
        self._unfinished = ""  # text of others without its end of line
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        sys.stderr = cast("TextIO", self)

    def __exit__(self, *exception: object) -> None:
        sys.stderr = self.stream
        with self._lock:
            self._redraw("")
            self._write(self._unfinished)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of the stream
        return getattr(self.stream, name)

    def begin(self, title: str, *, keep_short: bool) -> None:
        self._keep_short = keep_short
        if keep_short:
            self._redraw(title)

    def tick(self, text: str) -> None:
        self._redraw(text)

    def end(self, text: str, seconds: float) -> None:
        self._redraw("")
        if self._keep_short or seconds >= _START_S:
            self._write(f"{text}\n")

    def write(self, text: str) -> int:
        with self._lock:
            written = self._unfinished + text
            self._unfinished = ""
            if self._line:
                whole, newline, rest = written.rpartition("\n")
                self._unfinished = rest.rpartition("\r")[2]  # of a bar of another library only the last state
                written = whole + newline
            if written:
                line = self._line
                self._redraw("")
                self._write(written)
                self._redraw(line)
        return len(text)

    def _redraw(self, line: str) -> None:
        with self._lock:
            shown = line[: _columns(self.stream) - 1]
            if self._line or shown:
                self._write(f"\r{shown.ljust(len(self._line))}" + ("" if shown else "\r"))
            self._line = shown

    def _write(self, text: str) -> None:
        type(self.stream).write(self.stream, text)  # see write_unwrapped
        self.stream.flush()


def _columns(stream: TextIO) -> int:
    """Width of the terminal of a stream; of standard output, which may be redirected, where that fails."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or shutil.get_terminal_size().columns
    except OSError:
        return shutil.get_terminal_size().columns


def _leave_to_parent() -> None:
    """In a forked process, whose copy of a lock another thread may hold: write to the stream itself."""
    global _current  # noqa: PLW0603
    _current = None
    if isinstance(sys.stderr, _TerminalLines):
        sys.stderr = sys.stderr.stream


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
