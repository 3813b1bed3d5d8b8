import sys

import tqdm

from image_finder.components import progress_bar as module
from image_finder.components.progress_bar import progress_bar


def test_a_log_gets_whole_lines(monkeypatch, capsys):
    monkeypatch.setattr(module, "_LOG_S", 0.0)
    with progress_bar(total=2000, desc="indexing", unit=" images") as bar:
        for _ in range(4):
            bar.update(500)
    printed = capsys.readouterr().err
    lines = printed.splitlines()
    assert all(line.startswith("indexing: ") and " of 2000 images, " in line for line in lines)
    assert "\r" not in printed
    assert lines[-1].startswith("indexing: 2000 of 2000 images")


def test_a_log_gets_nothing_of_short_work_and_nothing_that_is_not_shown(capsys):
    assert list(progress_bar([1, 2], desc="reading", unit=" files")) == [1, 2]
    assert list(progress_bar([1, 2], desc="reading", unit=" files", shown=False)) == [1, 2]
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar(total=2, desc="indexing", unit=" images") as bar:
        bar.update(2)
    assert isinstance(bar, tqdm.tqdm)
    assert "\rindexing: 100%" in capsys.readouterr().err
