"""Watcher: runs `image-finder index --watch` as a child process and restarts it."""

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
from typing import Any, Literal, NamedTuple, Self

from image_finder.components import system

logger = logging.getLogger(__name__)

_STOP_S = 10
_SETTLE_S = 0.5  # Ctrl-C also reaches the child; ending while the server stops is not a failure
_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_OVERDUE = 3  # rescan intervals without an update before the child counts as hung, e.g. on a network disk
_LOGGED_COUNTS = ("added", "changed", "moved", "copied", "removed", "images", "seconds")


class Watching(NamedTuple):
    """How a server detects changed images."""

    failure: str | None = None  # why the index may be outdated, None if it is not
    how: Literal["", "events", "polling"] = ""  # "": nothing is watched, or watching has not started


class Watcher:
    """Runs a command while entered; restarts it after growing pauses and logs its output."""

    def __init__(self, command: Sequence[str], *, pause_s: float = _PAUSE_S, rescan_s: float = math.inf) -> None:
        """command: prints a JSON line per update, at least every rescan_s."""
        self._ended: str | None = None  # why the last run ended, until an update succeeds
        self._how: Literal["", "events", "polling"] = ""
        self._updated = time.monotonic()
        self._rescan_s = rescan_s
        self._command = list(command)
        self._pause_s = pause_s
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()  # guards starting and stopping
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_running, name="watcher", daemon=True)

    @classmethod
    def of_library(cls, library: Path, *, rescan_s: float) -> "Watcher":
        index = [sys.executable, "-m", "image_finder", "index", "--watch", "--json", "--library", str(library)]
        return cls([*index, "--rescan-s", str(rescan_s)], rescan_s=rescan_s)

    @property
    def failure(self) -> str | None:
        """Why the index may be outdated, None if it is not."""
        overdue = time.monotonic() - self._updated > _OVERDUE * self._rescan_s
        if self._ended is None and overdue:
            return f"no update has finished within {_OVERDUE} rescan intervals of {self._rescan_s:g} s"
        return self._ended

    def state(self) -> Watching:
        failure = self.failure
        return Watching(failure, "" if failure else self._how)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        with self._lock:
            process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()  # safe: files are written atomically
                process.wait()
        self._thread.join(_STOP_S)

    def _keep_running(self) -> None:
        pause_s = self._pause_s
        while True:
            began = time.monotonic()
            reason = self._run()
            if self._stopping.wait(_SETTLE_S):
                return
            if time.monotonic() - began > _LONGEST_PAUSE_S:
                pause_s = self._pause_s
            self._ended = f"folders are not watched: {reason}"
            logger.error("%s; restarting in %g s", self._ended, pause_s)
            if self._stopping.wait(pause_s):
                return
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _run(self) -> str:
        try:
            process = self._start()
        except OSError as error:
            return f"could not start the watcher: {error.strerror}"
        if process is None or process.stdout is None:
            return "the server is stopping"
        system.lower_priority(process.pid)  # not in preexec_fn, which may deadlock with threads
        last = ""
        with process.stdout as lines:
            for line in lines:
                last = self._relay(line.strip()) or last
        return f"the watcher exited with {process.wait()}{f' ({last})' if last else ''}"

    def _start(self) -> "subprocess.Popen[str] | None":
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
                env={**os.environ, "PYTHONIOENCODING": "utf-8"},
                creationflags=system.background_flags(),
            )
            return self._process

    def _relay(self, line: str) -> str:
        """Log a line of output. Returns it unless it is the summary of a successful update, else ""."""
        summary = _summary(line)
        if summary is None:
            logger.info("watcher: %s", line)
            return line
        self._ended = None
        self._updated = time.monotonic()
        self._how = summary.get("watching", "")
        counts = {name: summary.get(name) for name in _LOGGED_COUNTS}
        logger.info("folders updated", extra={**counts, "failed": len(summary.get("failed", ()))})
        return ""


def _summary(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
