"""Folder adding: indexes a folder for a page, in a child process; decides nothing about who may do so."""

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path

from image_finder.components import system

logger = logging.getLogger(__name__)

_STOP_S = 30


class FolderAdding:
    """Adds folders to a library, one at a time. Thread-safe."""

    def __init__(self, library: Path) -> None:
        self._library = library
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._following: threading.Thread | None = None
        self._failure = ""

    @property
    def running(self) -> bool:
        return self._following is not None and self._following.is_alive()  # until the outcome is known

    @property
    def failure(self) -> str:
        """Why the last folder could not be added; "" if it could, or is being added."""
        return self._failure

    def start(self, folder: Path) -> bool:
        """Index a folder, with all that the library has, in the background. Returns False if one is being indexed."""
        with self._lock:
            if self.running:
                return False
            self._failure = ""
            command = [sys.executable, "-m", "image_finder", "index", "--json", "--library", str(self._library), "--"]
            self._process = subprocess.Popen(  # noqa: S603
                [*command, str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                creationflags=system.background_flags(),
            )
            system.lower_priority(self._process.pid)
            self._following = threading.Thread(
                target=self._follow, args=(self._process,), name="folder adding", daemon=True
            )
            self._following.start()
        return True

    def stop(self) -> None:
        """End a running update; what it has published stays."""
        with self._lock:
            process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()  # safe: files are written atomically

    def _follow(self, process: "subprocess.Popen[str]") -> None:
        output, messages = process.communicate()
        if process.returncode:
            lines = messages.strip().splitlines() or [f"the update ended with {process.returncode}"]
            self._failure = lines[-1].removeprefix("Error: ")
            logger.error("could not add a folder: %s", self._failure)
        else:
            summary = json.loads(output)
            logger.info("folder added", extra={name: summary.get(name) for name in ("added", "images", "seconds")})
