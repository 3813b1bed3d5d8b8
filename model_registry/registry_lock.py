"""Registry lock: one writer at a time for a model, across processes and machines; knows nothing of what is written.

Beside a SQLite file it is a lock on a file, which the system frees when its holder dies. Elsewhere it is a registered
model `<model>.lock`, of which the store makes only one: its holder renews a tag every few seconds, and one that has not
changed for a minute of a waiter's own clock is taken over. Clocks of two machines are never compared.
"""

import contextlib
import getpass
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import sqlalchemy.exc
from filelock import FileLock, Timeout
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.engine import make_url

from image_finder.components.errors import BusyError, ConfigError
from image_finder.components.storage import write_errors
from image_finder.model_registry import names
from image_finder.model_registry.registry_errors import is_answer

_logger = logging.getLogger(__name__)

_POLL_S = 0.2
_BEAT_S = 5.0
_STALE_S = 60.0


class Held(Protocol):
    """A lock that is held."""

    def check(self) -> None:
        """Raise ConfigError if somebody else took it over meanwhile, because this process stood still for long."""


@contextlib.contextmanager
def exclusive(client: MlflowClient, tracking_uri: str, model: str, *, wait_s: float) -> Iterator[Held]:
    """Hold the lock of a model. Raises BusyError naming the holder after wait_s seconds, StorageError."""
    database = sqlite_file(tracking_uri)
    if database is not None:
        safe = re.sub(r"[^\w.-]", "_", model)
        held = _file_lock(database.with_name(f"{database.name}.{safe}.lock"), model, wait_s)
    else:
        held = StoreLock(client, model).held(wait_s)
    with held as lock:
        yield lock


def sqlite_file(tracking_uri: str) -> Path | None:
    """The file of a SQLite store, None for any other."""
    try:
        url = make_url(tracking_uri)
    except sqlalchemy.exc.ArgumentError:
        return None
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    return Path(url.database.removeprefix("file:"))


def holder_text() -> str:
    """Who this process is, for others who wait for it."""
    return f"{user_and_host()}, process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"


def user_and_host() -> str:
    """user@host; a container may know no name for its user."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


class _FileHeld:
    def check(self) -> None:
        """Nobody can take it over."""


@contextlib.contextmanager
def _file_lock(path: Path, model: str, wait_s: float) -> Iterator[Held]:
    holder = path.with_suffix(".holder")
    lock = FileLock(path, is_singleton=True)  # one object in a process: a thread that holds it may take it again
    with write_errors(path):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            who = _read(holder)
            _say_waiting(model, who, wait_s)
            try:
                lock.acquire(timeout=wait_s, poll_interval=_POLL_S)
            except Timeout as error:
                raise _too_long(model, _read(holder), wait_s) from error
    try:
        with contextlib.suppress(OSError):
            holder.write_text(holder_text(), encoding="utf-8")
        yield _FileHeld()
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return "another process"


class StoreLock:
    """A lock that is a registered model. beat_s: how often it is renewed; stale_s: when a waiter takes it over."""

    def __init__(self, client: MlflowClient, model: str, *, beat_s: float = _BEAT_S, stale_s: float = _STALE_S) -> None:
        self._client = client
        self._model = model
        self._name = f"{model}{names.LOCK_SUFFIX}"
        self._token = secrets.token_hex(8)
        self._beat_s, self._stale_s = beat_s, stale_s
        self._ended = threading.Event()
        self._taken_from: list[str] = []

    @contextlib.contextmanager
    def held(self, wait_s: float) -> Iterator[Held]:
        """Wait for it, hold it, give it back."""
        self._acquire(wait_s)
        thread = threading.Thread(target=self._renew, name=self._name, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join()
            self._release()

    def check(self) -> None:
        """Raise ConfigError if it is another's by now."""
        tags = self._tags()
        if tags.get("token") != self._token:
            who = tags.get("holder", "somebody who removed it")
            raise ConfigError(
                f"the lock of model '{self._model}' was taken over by {who} because this process did not answer for "
                f"{self._stale_s:.0f} s; nothing more was changed: run again"
            )

    def _acquire(self, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        seen, seen_at, told = "", time.monotonic(), False
        while not self._create():
            tags = self._tags()
            now = time.monotonic()
            if (beat := tags.get("token", "") + tags.get("beat", "")) != seen:
                seen, seen_at = beat, now
            elif beat and now - seen_at > self._stale_s:
                self._take_over(tags["token"], tags.get("holder", ""))
                continue
            if not told:
                told = True
                _say_waiting(self._model, tags.get("holder", "another process"), wait_s)
            if now > deadline:
                raise _too_long(self._model, tags.get("holder", "another process"), wait_s)
            time.sleep(min(_POLL_S * 5, self._beat_s))

    def _create(self) -> bool:
        tags = {"token": self._token, "holder": holder_text(), "beat": secrets.token_hex(8)}
        told = f"Lock: '{self._model}' is being compared, promoted or rolled back. It goes away by itself."
        try:
            self._client.create_registered_model(self._name, tags=tags, description=told)
        except MlflowException as error:
            if error.error_code in {"RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"}:  # the latter: gone meanwhile
                return False
            raise
        return True

    def _take_over(self, token: str, holder: str) -> None:
        """Put a dead holder's lock aside. Two waiters rename to the same name, so only one succeeds."""
        aside = f"{self._name}.{token}"
        try:
            self._client.rename_registered_model(self._name, aside)
        except MlflowException as error:
            if is_answer(error):
                return
            raise
        _logger.warning("took over the lock of model '%s' from %s, which did not renew it", self._model, holder)
        self._taken_from.append(aside)

    def _renew(self) -> None:
        while not self._ended.wait(self._beat_s):
            # A store that cannot be reached for a while is no reason to stop; `check` notices a lock that was lost.
            with contextlib.suppress(Exception):
                if self._tags().get("token") != self._token:
                    return
                self._client.set_registered_model_tag(self._name, "beat", secrets.token_hex(8))

    def _release(self) -> None:
        with contextlib.suppress(MlflowException):  # it goes stale if it cannot be removed
            if self._tags().get("token") == self._token:
                self._client.delete_registered_model(self._name)
            for name in self._taken_from:
                self._client.delete_registered_model(name)

    def _tags(self) -> dict[str, str]:
        try:
            return dict(self._client.get_registered_model(self._name).tags)
        except MlflowException as error:
            if is_answer(error):
                return {}
            raise


def _say_waiting(model: str, holder: str, wait_s: float) -> None:
    _logger.warning("model '%s' is held by %s; waiting up to %.0f s", model, holder, wait_s)


def _too_long(model: str, holder: str, wait_s: float) -> BusyError:
    return BusyError(
        f"model '{model}' is held by {holder}, still after {wait_s:.0f} s: another promotion, rollback or comparison is "
        "at work; wait for it and run again"
    )
