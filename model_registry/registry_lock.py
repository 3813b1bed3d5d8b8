"""Registry lock: one writer of a model at a time, across processes and machines; knows nothing of what is written.

Beside a SQLite file it is a file lock, which the system releases when its holder dies. An MLflow server gives its clients
neither files nor its database, but creates a registered model only once: there the lock is a registered model
`<model>.lock`. Its holder changes a tag every few seconds. Waiters take over a lock whose tag did not change for a minute
of the waiter's clock; clocks of two machines are never compared.
"""

import contextlib
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import sqlalchemy.exc
from filelock import FileLock, Timeout
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.engine import make_url

from image_finder.components.errors import BusyError, ConfigError
from image_finder.components.storage import write_errors
from image_finder.components.system import account
from image_finder.model_registry import names
from image_finder.model_registry.registry_errors import ANSWERS, or_none

_logger = logging.getLogger(__name__)

_POLL_S = 0.2
_BEAT_S = 5.0
_STALE_S = 60.0
_UNKNOWN = "another process"


Check = Callable[[], None]
"""Raises ConfigError if another process took the lock over from this one."""


@contextlib.contextmanager
def locked(client: MlflowClient, tracking_uri: str, model: str, *, wait_s: float) -> Iterator[Check]:
    """Hold a model's lock; yields its check. Raises BusyError with the holder after wait_s seconds, StorageError."""
    database = sqlite_file(tracking_uri)
    if database is None:
        with StoreLock(client, model).held(wait_s) as lock:
            yield lock.check
    else:
        safe = re.sub(r"[^\w.-]", "_", model)
        with _file_lock(database.with_name(f"{database.name}.{safe}.lock"), model, wait_s):
            yield lambda: None  # a file lock cannot be taken over


def sqlite_file(tracking_uri: str) -> Path | None:
    """The file of a SQLite store, None for other stores."""
    try:
        url = make_url(tracking_uri)
    except sqlalchemy.exc.ArgumentError:
        return None
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    return Path(url.database.removeprefix("file:"))


def user_and_host() -> str:
    """user@host; the user id if it has no name, as in some containers."""
    return f"{account()}@{socket.gethostname()}"


def _this_holder() -> str:
    return f"{user_and_host()}, process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"


@contextlib.contextmanager
def _file_lock(path: Path, model: str, wait_s: float) -> Iterator[None]:
    holder = path.with_suffix(".holder")
    lock = FileLock(path, is_singleton=True)  # one object per process, which makes it reentrant
    with write_errors(path):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _log_waiting(model, _read(holder), wait_s)
            try:
                lock.acquire(timeout=wait_s, poll_interval=_POLL_S)
            except Timeout as error:
                raise _busy(model, _read(holder), wait_s) from error
    try:
        with contextlib.suppress(OSError):
            holder.write_text(_this_holder(), encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return _UNKNOWN


class StoreLock:
    """A lock that is a registered model.

    beat_s: interval of renewals. stale_s: time without renewal after which a waiter takes it over.
    """

    def __init__(self, client: MlflowClient, model: str, *, beat_s: float = _BEAT_S, stale_s: float = _STALE_S) -> None:
        self._client = client
        self._model = model
        self._name = f"{model}{names.LOCK_SUFFIX}"
        self._token = secrets.token_hex(8)
        self._beat_s, self._stale_s = beat_s, stale_s
        self._ended = threading.Event()
        self._taken_over: list[str] = []

    @contextlib.contextmanager
    def held(self, wait_s: float) -> Iterator[Self]:
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
        """Raise ConfigError if another process holds the lock now."""
        tags = self._tags()
        if tags.get("token") != self._token:
            who = tags.get("holder", "a process that has released it")
            raise ConfigError(
                f"the lock of model '{self._model}' was taken over by {who} because this process did not renew it for "
                f"{self._stale_s:.0f} s; nothing more was changed: run again"
            )

    def _acquire(self, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        seen, seen_at, logged = "", time.monotonic(), False
        while not self._create():
            tags, now = self._tags(), time.monotonic()
            holder = tags.get("holder", _UNKNOWN)
            if (beat := tags.get("token", "") + tags.get("beat", "")) != seen:
                seen, seen_at = beat, now
            elif beat and now - seen_at > self._stale_s:
                self._take_over(tags["token"], holder)
                continue
            if not logged:
                logged = True
                _log_waiting(self._model, holder, wait_s)
            if now > deadline:
                raise _busy(self._model, holder, wait_s)
            time.sleep(min(_POLL_S * 5, self._beat_s))

    def _create(self) -> bool:
        tags = {"token": self._token, "holder": _this_holder(), "beat": secrets.token_hex(8)}
        text = f"Lock while '{self._model}' is compared, promoted or rolled back; removed automatically."
        try:
            self._client.create_registered_model(self._name, tags=tags, description=text)
        except MlflowException as error:
            if error.error_code in {"RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"}:  # the latter: just released
                return False
            raise
        return True

    def _take_over(self, token: str, holder: str) -> None:
        """Rename a dead holder's lock. All waiters rename to the same name, so only one succeeds."""
        aside = f"{self._name}.{token}"
        try:
            self._client.rename_registered_model(self._name, aside)
        except MlflowException as error:
            if error.error_code in ANSWERS:
                return
            raise
        _logger.warning("took over the lock of model '%s' from %s, which did not renew it", self._model, holder)
        self._taken_over.append(aside)

    def _renew(self) -> None:
        while not self._ended.wait(self._beat_s):
            # A store that is unreachable for a while must not end the work; `check` detects a lost lock.
            with contextlib.suppress(Exception):
                if self._tags().get("token") != self._token:
                    return
                self._client.set_registered_model_tag(self._name, "beat", secrets.token_hex(8))

    def _release(self) -> None:
        with contextlib.suppress(MlflowException):  # a lock that is not removed becomes stale
            if self._tags().get("token") == self._token:
                self._client.delete_registered_model(self._name)
            for name in self._taken_over:
                self._client.delete_registered_model(name)

    def _tags(self) -> dict[str, str]:
        model = or_none(self._client.get_registered_model, self._name)
        return dict(model.tags) if model else {}


def _log_waiting(model: str, holder: str, wait_s: float) -> None:
    _logger.warning("model '%s' is locked by %s; waiting up to %.0f s", model, holder, wait_s)


def _busy(model: str, holder: str, wait_s: float) -> BusyError:
    return BusyError(
        f"model '{model}' is still locked by {holder} after {wait_s:.0f} s: another promotion, rollback or comparison "
        "is in progress; wait for it and run again"
    )
