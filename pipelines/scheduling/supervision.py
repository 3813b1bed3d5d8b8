"""Supervision: runs the work in a child process, so that the parent can report however it ends.

A signal handler's exception is lost where Python cannot raise (`__del__`, a weak reference's callback), and an
exception within a transaction leaves the store locked for its own process. A parent that only waits has neither
problem, and notices a child that was killed, for example because memory ran out.
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NamedTuple, NoReturn

from image_finder.components.system import posix_only

TERMINATED = 128 + signal.SIGTERM  # exit code of a child that ended because of SIGTERM
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_GRACE_S = 20  # between SIGTERM and SIGKILL; systemd kills everything after 90 s


class Terminated(BaseException):
    """Raised in the child on SIGTERM: its service was stopped or ran too long."""


class Ended(NamedTuple):
    """How a child ended. code is negative for the signal that killed it."""

    code: int
    stop_requested: bool  # SIGTERM was sent to the parent

    @property
    def failure(self) -> str:
        """Why the child ended before it could report; "" if it reported itself."""
        if self._terminated:
            return "the system ended this run (SIGTERM): it was stopped, or exceeded the time limit of its service"
        if self.code < 0:
            name = signal.Signals(-self.code).name
            return f"this run was killed ({name}); probably out of memory; see `journalctl -k`"
        return ""

    @property
    def exit_code(self) -> int:
        if self.failure:
            return TERMINATED if self.stop_requested or self._terminated else 1
        return self.code

    @property
    def _terminated(self) -> bool:
        return self.code == TERMINATED or (self.stop_requested and self.code < 0)


def supervise(*, grace_s: int = _GRACE_S) -> Ended | None:
    """Fork. Returns None in the child; the parent waits and returns how the child ended.

    In the child SIGTERM raises Terminated. SIGTERM to the parent is passed on, and a child that has not ended grace_s
    seconds later is killed. If the parent is killed, so is the child (on Linux). Ctrl-C is left to the child. Call it
    from the main thread, before importing anything that is not fork-safe. Raises ConfigError on Windows.
    """
    if sys.platform == "win32":
        raise posix_only("supervised runs")
    child, stop_requested = 0, False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stop_requested
        stop_requested = True
        if child:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
            signal.alarm(grace_s)

    def kill(_signal: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGTERM, stop)  # before the fork, so that no signal is missed
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _die_with(parent)
        signal.signal(signal.SIGTERM, _terminate)
        sys.unraisablehook = _end_if_terminated
        return None
    signal.signal(signal.SIGALRM, kill)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if stop_requested:
        stop(signal.SIGTERM, None)
    _, status = os.waitpid(child, 0)
    signal.alarm(0)
    return Ended(os.waitstatus_to_exitcode(status), stop_requested)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def _end_if_terminated(lost: "sys.UnraisableHookArgs") -> None:
    """Exit where Python would ignore the exception."""
    if issubclass(lost.exc_type, Terminated):
        os._exit(TERMINATED)
    sys.__unraisablehook__(lost)


def _die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends; imports would block a thread."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # prctl(2)
        if os.getppid() != parent:  # the parent ended before the call
            os._exit(TERMINATED)
