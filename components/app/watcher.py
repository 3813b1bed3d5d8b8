"""Watcher: keeps the process running that indexes a library's folders as they change; indexes and serves nothing itself."""

import contextlib
import json
import logging
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

logger = logging.getLogger(__name__)

_NICENESS = 10  # it gives way to whatever else wants the machine
_STOP_S = 10
_SETTLE_S = 0.5  # Ctrl-C reaches the watcher as well: one that ends while the server stops has not failed
_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_OVERDUE = (
    3  # rescan intervals without an update, after which the watcher has hung: a network disk may block it for ever
)
_COUNTS = ("added", "changed", "moved", "copied", "removed", "images", "seconds")  # of a summary, into the log


class Watching(NamedTuple):
    """How a server learns of changes of the images."""

    failure: str | None = None  # why the index may be behind the folders, None if it is not
    how: Literal["", "events", "polling"] = ""  # "": nothing is watched, or the watcher has not begun


class Watcher:
    """While entered, `image-finder index --watch` runs; if it ends it is started again, after growing pauses.

    What it says becomes lines of this process' log.
    """

    def __init__(self, command: Sequence[str], *, pause_s: float = _PAUSE_S, rescan_s: float = math.inf) -> None:
        """command: prints a JSON object a line for each update, at least one in rescan_s. pause_s: before it is first
        started again.
        """
        self._ended: str | None = None
        self._how: Literal["", "events", "polling"] = ""
        self._updated = time.monotonic()
        self._rescan_s = rescan_s
        self._command = list(command)
        self._pause_s = pause_s
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()  # of starting and stopping
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="watcher", daemon=True)

    @classmethod
    def of(cls, library: Path, *, rescan_s: float) -> "Watcher":
        """The watcher of a library's folders."""
        index = [sys.executable, "-m", "image_finder", "index", "--watch", "--json", "--library", str(library)]
        return cls([*index, "--rescan-s", str(rescan_s)], rescan_s=rescan_s)

    @property
    def failure(self) -> str | None:
        """Why the index may be behind the folders, None if it is not."""
        overdue = time.monotonic() - self._updated > _OVERDUE * self._rescan_s
        if self._ended is None and overdue:
            return f"no update of the folders has finished for {_OVERDUE} rescan intervals of {self._rescan_s:g} s"
        return self._ended

    def state(self) -> Watching:
        """What it reports at this moment."""
        failure = self.failure
        return Watching(failure, "" if failure else self._how)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        with self._lock:
            process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()  # what it was writing is whole or absent
                process.wait()
        self._thread.join(_STOP_S)

    def _keep(self) -> None:
        pause_s = self._pause_s
        while True:
            began = time.monotonic()
            reason = self._run()
            if self._stopping.wait(_SETTLE_S):
                return
            if time.monotonic() - began > _LONGEST_PAUSE_S:
                pause_s = self._pause_s
            self._ended = f"the folders are not watched: {reason}"
            logger.error("%s; tried again in %g s", self._ended, pause_s)
            if self._stopping.wait(pause_s):
                return
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _run(self) -> str:
        """Run the process once; why it ended."""
        try:
            process = self._started()
        except OSError as error:
            return f"the watcher cannot be started: {error.strerror}"
        if process is None or process.stdout is None:
            return "the server stops"
        with contextlib.suppress(OSError):  # from here on, since code between fork and exec may hang beside threads
            os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
        said = ""
        with process.stdout as lines:
            for line in lines:
                said = self._relay(line.strip()) or said
        return f"the watcher ended with {process.wait()}{f' ({said})' if said else ''}"

    def _started(self) -> "subprocess.Popen[str] | None":
        with self._lock:
            if self._stopping.is_set():
                return None
            self._process = subprocess.Popen(  # noqa: S603
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
            )
            return self._process

    def _relay(self, line: str) -> str:
        """Log what the watcher says. Returns words as they are, "" for the summary of an update: then all is well."""
        summary = _summary(line)
        if summary is None:
            logger.info("watcher: %s", line)
            return line
        self._ended = None
        self._updated = time.monotonic()
        self._how = summary.get("watching", "")
        counts = {name: summary.get(name) for name in _COUNTS}
        logger.info("folders indexed", extra={**counts, "failed": len(summary.get("failed", ()))})
        return ""


def _summary(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
