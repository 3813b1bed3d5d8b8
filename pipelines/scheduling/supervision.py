"""Supervision: a run goes on in a child process, so that somebody is left to tell of it whatever ends it.

A signal's exception is lost where Python cannot raise (a weak reference's callback, `__del__`), and code that it stops in
a transaction leaves the store locked to its own process. A parent that only waits knows neither trouble, and sees a
child that was killed, for want of memory say.
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NamedTuple, NoReturn

TERMINATED = 128 + signal.SIGTERM  # exit code of a child that ended because it was asked to
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_GRACE_S = 20  # to end by itself; systemd kills all after 90 s


class Terminated(BaseException):
    """The system asked this process to end (SIGTERM): a service was stopped, or took too long. Its parent tells of it."""


class Ended(NamedTuple):
    """How a child ended: its exit code, negative for the signal that killed it, and whether it was asked to."""

    code: int
    asked: bool


def supervise(*, grace_s: int = _GRACE_S) -> Ended | None:
    """None in the child, in which SIGTERM raises Terminated; in the parent, once it has ended, how the child ended.

    SIGTERM to the parent is passed on, and a child that has not ended grace_s seconds later is killed. When the parent
    is killed, so is the child (on Linux). Ctrl-C reaches both, and is the child's. To be called from the main thread,
    before anything that does not bear a fork is loaded.
    """
    child, asked = 0, False

    def ask(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if child:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
            signal.alarm(grace_s)

    def kill(_signal: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGTERM, ask)  # before the fork: none is missed
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _die_with(parent)
        signal.signal(signal.SIGTERM, _terminate)
        sys.unraisablehook = _end_if_terminated
        return None
    signal.signal(signal.SIGALRM, kill)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if asked:
        ask(signal.SIGTERM, None)
    _, status = os.waitpid(child, 0)
    signal.alarm(0)
    return Ended(os.waitstatus_to_exitcode(status), asked)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def _end_if_terminated(lost: "sys.UnraisableHookArgs") -> None:
    """Python would go on as if nothing had been: end as a kill does."""
    if issubclass(lost.exc_type, Terminated):
        os._exit(TERMINATED)
    sys.__unraisablehook__(lost)


def _die_with(parent: int) -> None:
    """Have the system kill this process when its parent ends, at once: a thread that watches would wait for imports."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # prctl(2)
        if os.getppid() != parent:  # it ended before
            os._exit(TERMINATED)
