"""Registry errors: exceptions of MLflow and its stores as one line that says what to do."""

import errno
import logging
import os
import re
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import requests
import sqlalchemy.exc
from mlflow.exceptions import MlflowException
from sqlalchemy.engine import make_url

from image_finder.components.errors import StorageError
from image_finder.components.text import one_line

_P = ParamSpec("_P")
_R = TypeVar("_R")

ANSWERS = {"RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_PARAMETER_VALUE"}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Words of servers, database drivers and systems in lower case, and the message; the first match counts.
_KNOWN = (
    (
        ("readonly database", "read-only", "permission denied", "insufficient privilege"),
        "is read-only; nothing was changed: ask for write access, or name another one with --mlflow-uri",
    ),
    (
        ("disk is full", "no space left", "file too large", "disk i/o error", "disk full"),
        "has no space left; nothing was registered or moved: free some space and run again",
    ),
    (
        ("not a database", "malformed"),
        "is damaged: restore its database from a backup; searches work without it",
    ),
    (("database is locked",), "is busy with other writers: run again"),
    (("out-of-date database schema",), "was written by another version of MLflow: run `mlflow db upgrade` on it"),
    (
        ("timed out", "timeout"),
        "did not answer in time; nothing was changed: run again later, or raise MLFLOW_HTTP_REQUEST_TIMEOUT (seconds)",
    ),
    (
        ("401", "403", "unauthorized", "forbidden", "authentication failed", "permission_denied"),
        "rejected the login: check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    ),
    (
        (
            *("refused", "failed to establish", "max retries exceeded", "name or service not known"),
            *("could not connect", "could not translate host", "unable to open database", "failed to resolve"),
            "connection to server",
        ),
        "cannot be reached; nothing was changed: start it, or check --mlflow-uri and MLFLOW_TRACKING_URI",
    ),
    (("error code 404", "endpoint not found"), "is no MLflow server: check --mlflow-uri and MLFLOW_TRACKING_URI"),
)
# Additions of SQLAlchemy: the statement, whose values may contain any word, and background.
_ADDITIONS = re.compile(r"\[SQL:.*|\(Background on this error.*|\(raised as a result of [^)]*\)", re.DOTALL)


class HasAddress(Protocol):
    """A client of a tracking store."""

    tracking_uri: str


_S = TypeVar("_S", bound=HasAddress)


def guarded(method: Callable[Concatenate[_S, _P], _R]) -> Callable[Concatenate[_S, _P], _R]:
    """Decorate a method to raise StorageError with the registry's address."""

    @wraps(method)
    def call(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return method(self, *args, **kwargs)
        except (MlflowException, sqlalchemy.exc.SQLAlchemyError, requests.RequestException, OSError) as error:
            raise registry_error(error, self.tracking_uri) from error

    return call


def registry_error(error: Exception, address: str) -> StorageError:
    text = one_line(_ADDITIONS.sub("", str(error)) or type(error).__name__)
    lowered = text.lower()
    registry = f"the registry at {shown_address(address)}"
    if isinstance(error, OSError) and error.errno in _FULL:
        lowered = "no space left"
    for signs, advice in _KNOWN:
        if any(sign in lowered for sign in signs):
            return StorageError(f"{registry} {advice} ({text})")
    return StorageError(f"{registry} failed: {text}")


def or_none(request: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R | None:
    """Result of a request; None if the store answers ("does not exist", "exists already") rather than fails."""
    try:
        return request(*args, **kwargs)
    except MlflowException as error:
        if error.error_code in ANSWERS:
            return None
        raise


def shown_address(address: str) -> str:
    """An address without its password."""
    try:
        return make_url(address).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return address


def limit_waiting(timeout_s: int, retries: int) -> None:
    """Limit MLflow's requests, by default seven attempts of two minutes, unless the user did."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(timeout_s))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(retries))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    # It logs the traceback of every database error that it raises.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
