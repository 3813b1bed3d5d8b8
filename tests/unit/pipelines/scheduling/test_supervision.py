import os
import signal
import subprocess
import sys
import weakref

import pytest

from image_finder.pipelines.scheduling import supervision
from image_finder.pipelines.scheduling.supervision import Ended
from tests.support.checkout import CHECKOUT

WORK = """
import os, signal, sys, time, weakref
from image_finder.pipelines.scheduling.supervision import Terminated, supervise

def lose():
    '''Receive a signal while a weak reference's callback runs.'''
    class Thing: pass
    thing = Thing()
    kept = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    del thing
    return kept

ended = supervise(grace_s=1)
if ended is not None:
    print("parent", *ended, flush=True)
    sys.exit()
try:
    print("child", os.getpid(), flush=True)
    {work}
except Terminated:
    print("terminated", flush=True)
    sys.exit(143)
print("continued", flush=True)
"""


def supervised(work):
    return subprocess.Popen(
        [sys.executable, "-c", WORK.format(work=work)],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def child_of(process):
    word, number = process.stdout.readline().split()
    assert word == "child"
    return int(number)


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_of_a_child_is_passed_on(code):
    with supervised(f"sys.exit({code})") as process:
        child_of(process)
        assert process.stdout.read() == f"parent {code} False\n"


def test_a_parent_passes_sigterm_to_its_child():
    with supervised("time.sleep(60)") as process:
        child_of(process)
        process.terminate()
        assert process.stdout.read() == "terminated\nparent 143 True\n"


def test_a_child_that_ignores_sigterm_is_killed():
    with supervised(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    ) as process:
        child_of(process)
        assert process.stdout.readline() == "deaf\n"
        process.terminate()
        assert process.stdout.read() == "parent -9 True\n"


def test_a_killed_child_is_noticed():
    with supervised("time.sleep(60)") as process:
        os.kill(child_of(process), signal.SIGKILL)
        assert process.stdout.read() == "parent -9 False\n"


def test_a_signal_that_python_cannot_raise_still_ends_the_child():
    with supervised("lose()") as process:
        child_of(process)
        assert process.stdout.read() == "parent 143 False\n"


def test_a_child_whose_parent_is_killed_is_killed():
    with supervised("time.sleep(60)") as process:
        child_of(process)
        process.kill()
        assert process.stdout.read() == "", "the pipe is closed, so the child has ended"


def test_other_errors_that_python_cannot_raise_are_still_printed(capsys):
    class Thing:
        pass

    thing = Thing()

    def fail(_):
        raise ValueError("shown")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", supervision._end_if_terminated)
        kept = weakref.ref(thing, fail)
        del thing
    assert kept() is None
    assert "ValueError: shown" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        (Ended(0, stop_requested=False), ""),
        (Ended(0, stop_requested=True), ""),  # it had already ended
        (Ended(1, stop_requested=False), ""),  # it reported itself
        (Ended(75, stop_requested=False), ""),
        (Ended(143, stop_requested=True), "SIGTERM"),
        (Ended(143, stop_requested=False), "SIGTERM"),  # only the child was terminated
        (Ended(-9, stop_requested=True), "SIGTERM"),
        (Ended(-9, stop_requested=False), "SIGKILL"),
        (Ended(-11, stop_requested=False), "SIGSEGV"),
    ],
)
def test_a_run_that_could_not_report_itself_has_a_reason(ended, reason):
    assert reason in ended.failure
    assert bool(ended.failure) == bool(reason)
