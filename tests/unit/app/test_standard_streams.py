"""Full, closed and unread standard streams of the command line."""

import os
import subprocess
import sys

import pytest

from tests.support.checkout import CHECKOUT

pytestmark = pytest.mark.linux

FULL = "Error: could not write to standard output: No space left on device\n"
MISSING = "Error: no images indexed yet in /nowhere. Run: image-finder index FOLDER\n"


def shell(line, **environment):
    """Exit code, stdout and stderr of a line of bash; $IF is the command."""
    command = f"{sys.executable} -m image_finder"
    done = subprocess.run(
        ["bash", "-c", line.replace("$IF", command)],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("$IF --help > /dev/full", (1, "", FULL)),
        ("$IF search --help > /dev/full", (1, "", FULL)),
        ("PYTHONUNBUFFERED=1 $IF --version > /dev/full", (1, "", FULL)),
        ("$IF --version > /dev/full 2>&1", (1, "", "")),
        ("$IF --version 1< /dev/null", (1, "", FULL.replace("No space left on device", "Bad file descriptor"))),
        ("$IF --help | head -c 0; exit ${PIPESTATUS[0]}", (141, "", "")),
        ("$IF --help >&- 2>&- <&-", (0, "", "")),
        ("$IF search x --index /nowhere", (1, "", MISSING)),
        ("$IF search x --index /nowhere > /dev/full", (1, "", MISSING)),
        ("$IF search x --index /nowhere 2> /dev/full", (1, "", "")),
        ("$IF search x --index /nowhere 2>&-", (1, "", "")),
        ("$IF nonsense 2>&1 > /dev/null | head -c 0; exit ${PIPESTATUS[0]}", (2, "", "")),
    ],
)
def test_an_unwritable_stream_ends_the_command_with_an_exit_code(line, expected):
    assert shell(line) == expected


def test_opened_files_never_take_the_descriptor_of_a_closed_stream():
    program = (
        "import os, click\nfrom image_finder.components.app.cli import main\n@main.command('probe')\ndef probe():\n"
        "    opened = os.open('/dev/zero', os.O_RDONLY)\n    os._exit(opened)\n"
        "main.get_command = lambda ctx, name: probe\nmain(['probe'])"
    )
    code, _, _ = shell(f'{sys.executable} -c "$PROGRAM" <&- >&- 2>&-', PROGRAM=program)
    assert code == 3


def test_characters_missing_in_the_encoding_become_escapes():
    code, out, err = shell("$IF search x --index /日", PYTHONIOENCODING="latin-1")
    assert (code, out, err) == (1, "", MISSING.replace("/nowhere", r"/\u65e5"))
