import io
import os
import sys
import time

import pytest

from image_finder.components import phases
from image_finder.components.phases import accounted, phase, running_phase
from image_finder.components.progress_bar import progress_bar


@pytest.fixture
def soon(monkeypatch):
    """What takes a second or more in use takes milliseconds."""
    for name, seconds in {"_TICK_S": 0.01, "_START_S": 0.03, "_LOG_S": 0.05}.items():
        monkeypatch.setattr(phases, name, seconds)


class _Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """terminal(): standard error becomes a stream that says that it is a terminal of 60 columns."""

    def opened():  # within the test: pytest replaces standard error before it
        monkeypatch.setattr(sys, "stderr", _Terminal())
        monkeypatch.setenv("COLUMNS", "60")
        return sys.stderr

    return opened


def screen(stream):
    """Lines of a terminal after what was written: a carriage return overwrites from the left."""
    lines = []
    for line in stream.getvalue().split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


def test_a_log_gets_a_line_when_a_phase_starts_from_time_to_time_and_when_it_ends(soon, capsys):
    with accounted() as account:
        with account.phase("train"), progress_bar(total=4, desc="epochs", unit=" batches") as bar:
            bar.update(2)
            time.sleep(0.15)
        account.note("check recall", "cached")
    first, *between, ended, cached = capsys.readouterr().err.splitlines()
    assert first == "train: started"
    assert between
    assert set(between) == {"train: epochs, 2 of 4 batches"}
    assert ended == "train ................................... 0.2 s"
    assert cached == "check recall ............................ cached"


def test_short_phases_leave_no_line_if_they_should_not(soon, capsys):
    with accounted(keep_short=False), phase("scan folders"):
        pass
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_one_line_for_each_phase_and_other_text_above(soon, terminal):
    stream = terminal()
    with accounted(), phase("export"):
        time.sleep(0.05)
        sys.stderr.write("a warning")
        sys.stderr.write("\n")
        sys.stderr.write("model:  10%\rmodel: 100%")  # a bar of another library
        time.sleep(0.05)
    assert sys.stderr is stream
    warning, ended, rest = screen(stream)
    assert warning == "a warning"
    assert ended == "export .................................. 0.1 s"
    assert rest == "model: 100%"


def test_a_question_between_phases_appears_at_once(soon, terminal):
    stream = terminal()
    with accounted():
        sys.stderr.write("Download it? [Y/n]:")
        assert stream.getvalue() == "Download it? [Y/n]:"


def test_a_line_never_exceeds_the_terminal(soon, terminal):
    stream = terminal()
    with accounted() as account, account.phase("embed images") as running:
        running.follow(lambda: phases.Progress("x" * 100))
        time.sleep(0.05)
    assert max(len(part) for part in stream.getvalue().replace("\n", "\r").split("\r")) == 59


@pytest.mark.parametrize(("error", "outcome"), [(ValueError, "failed"), (KeyboardInterrupt, "stopped")])
def test_a_phase_that_does_not_end_well_says_so(error, outcome, capsys):
    with pytest.raises(error), accounted(), phase("train"):
        raise error
    assert capsys.readouterr().err == f"train ................................... {outcome}\n"
    assert running_phase() is None


def test_the_time_left_follows_from_the_progress_and_from_the_durations_to_expect(capsys):
    shown = []

    class Lines:
        def begin(self, title, *, keep_short): ...

        def tick(self, text):
            shown.append(text)

        def end(self, text, seconds): ...

    account = phases.Account(Lines(), keep_short=True)
    with account.phase("train") as running:
        running.follow(lambda: phases.Progress("epoch 2 of 8", 600))
        account.tick()
        account.expect({"train": 3600, "export": 1200})
        account.tick()
        running.follow()
        account.tick()
    with account.phase("export"):
        account.tick()
    assert shown == [
        "train: epoch 2 of 8, about 10 min left",
        "train: epoch 2 of 8, 10 min left (run: 30 min)",
        "train (run: about 80 min left)",
        "export (run: about 20 min left)",
    ]


def test_a_phase_within_another_is_a_part_of_its_line():
    with accounted() as account, account.phase("publish"):
        with phase("scan folders"), progress_bar(unit=" folders") as bar:
            bar.update(3)
            assert running_phase().text() == "publish: scan folders, 3 folders"
        assert running_phase().text() == "publish"


@pytest.mark.posix
def test_a_forked_process_writes_to_the_stream_itself(terminal):
    stream = terminal()
    with accounted(), phase("train"):
        child = os.fork()
        if child == 0:
            os._exit(0 if sys.stderr is stream and running_phase() is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
