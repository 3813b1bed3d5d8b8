"""Paths and lines for a terminal, read back by a shell."""

import os
import subprocess

import pytest

from image_finder.components.text import aligned, counted, duration, elapsed, one_line, shown_path, visible

PLAIN = ("/a/two  blanks.jpg", "/a/nfd e\u0301 日本 \N{FAMILY} \u202fPM.jpg", '/a/it\'s \\ "q" $x.jpg', "/a\\nb")
ODD = (
    "/a/line\nbreak.jpg",
    "/a/\x1b[31mred\x07.jpg",
    "/a/tab\t\x85\u202egpj.exe",
    "/a/it's\n\\n",
    " ends ",
    "$'x'",
    "/a/\udcff.jpg",
)


@pytest.mark.parametrize("path", PLAIN)
def test_a_path_that_harms_no_terminal_is_printed_as_it_is(path):
    assert shown_path(path) == path
    assert aligned([["path"], [path]]).splitlines() == ["path", path]


@pytest.mark.posix
@pytest.mark.parametrize("path", ODD)
def test_a_shell_reads_a_quoted_path_back_exactly(path):
    shown = shown_path(path)
    assert shown.startswith("$'")
    assert shown.isprintable()
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    read = subprocess.run(["bash", "-c", f"printf %s {shown}"], env=environment, capture_output=True, check=True)
    assert read.stdout == os.fsencode(path)


def test_tables_keep_blanks_and_have_one_line_per_row():
    rows = [["name", "size"], ["a  b", "1"], ["x\ny\x1b[2J", "12"]]
    assert aligned(rows).splitlines() == ["name         size", "a  b         1", r"x\ny\x1b[2J  12"]


def test_one_line_joins_lines_and_keeps_the_blanks_of_each():
    assert one_line("cannot read '/a  b/c':\n\n    no space  \n") == "cannot read '/a  b/c': no space"
    assert visible("two  blanks\rand\u2028more") == r"two  blanks\rand\u2028more"


def test_one_line_names_the_type_of_an_exception_without_a_message_and_shortens_a_long_one():
    assert one_line(TimeoutError()) == "TimeoutError"
    assert one_line("") == ""
    assert one_line("x" * 300) == "x" * 300
    assert one_line(ValueError("x" * 301)) == "x" * 297 + "..."


def test_a_count_has_the_right_plural():
    assert [counted(n, "image") for n in (0, 1, 2, 1000)] == ["0 images", "1 image", "2 images", "1,000 images"]
    assert counted(2, "query", "queries") == "2 queries"


def test_times_are_in_the_units_that_people_use():
    assert [duration(seconds) for seconds in (0.2, 40.4, 170, 7200)] == ["1 s", "40 s", "3 min", "2 h"]
    assert [elapsed(seconds) for seconds in (0.04, 9.94, 9.96, 59.4)] == ["0.0 s", "9.9 s", "10 s", "59 s"]
    assert [elapsed(seconds) for seconds in (59.6, 134, 3599.6, 3900)] == [
        "1 min 0 s",
        "2 min 14 s",
        "1 h 0 min",
        "1 h 5 min",
    ]
