"""Cancellation: ends a computation early if nobody waits for its result; knows nothing of who waits."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar


class Cancelled(BaseException):
    """Nobody waits for the result. Not an Exception: handlers of failures must not catch it."""


def _never() -> bool:
    return False


_is_abandoned: ContextVar[Callable[[], bool]] = ContextVar("is_abandoned", default=_never)


@contextlib.contextmanager
def cancellable(is_abandoned: Callable[[], bool]) -> Iterator[None]:
    """Within this block, checkpoint() ends the computation once is_abandoned() is true."""
    token = _is_abandoned.set(is_abandoned)
    try:
        checkpoint()
        yield
    finally:
        _is_abandoned.reset(token)


def checkpoint() -> None:
    """Raise Cancelled if nobody waits any more. Call it before each expensive part."""
    if _is_abandoned.get()():
        raise Cancelled
