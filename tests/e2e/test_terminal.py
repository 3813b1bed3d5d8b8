"""Commands in a real terminal (tmux): colours, previews, completion."""

import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from image_finder.components.captions.vocabulary import Vocabulary
from tests.support.colour_bundle import good_from, write_colour_bundle

PROGRAMS = Path(sys.executable).parent
GREEN = "\x1b[32m"
HALF_BLOCK = "▀"
_PATIENCE_S = 60


class Tmux:
    """A terminal of 120 x 60 characters with a shell."""

    def __init__(self, shell, folder, columns=120, **environment):
        self.socket = f"image-finder-{uuid.uuid4().hex[:8]}"
        variables = {"PATH": f"{PROGRAMS}:{os.environ['PATH']}", "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "TMUX"}}
        self.environment = {**kept, **variables, "HOME": str(folder), "PS1": "$ ", **environment}
        size = ["-x", str(columns), "-y", "60"]
        self.tmux("-f", "/dev/null", "new-session", "-d", *size, "-c", str(folder), shell)

    def tmux(self, *words):
        command = ["tmux", "-L", self.socket, *words]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout

    def type(self, *keys):
        self.tmux("send-keys", *keys)

    def screen(self, *, colours=False):
        return self.tmux("capture-pane", "-p", *(["-e"] if colours else []))

    def wait_for(self, text):
        deadline = time.monotonic() + _PATIENCE_S
        while text not in (screen := self.screen()):
            assert time.monotonic() < deadline, f"no {text!r} in\n{screen}"
            time.sleep(0.1)
        return screen

    def run(self, command):
        """The screen, with colours, after a command."""
        self.type("clear; " + command + "; echo done=$?", "Enter")
        self.wait_for("done=0")
        return self.screen(colours=True)


@pytest.fixture(scope="module")
def library(painted_library, image_finder, tmp_path_factory):
    """The painted images, with a model that calls hits with a cosine of 0.9 or more good."""
    folder = tmp_path_factory.mktemp("terminal")
    vocabulary = Vocabulary.of(["a red one"] * 40)
    bundle = write_colour_bundle(folder / "bundle", vocabulary=vocabulary, matches=good_from(0.9))
    image_finder("index", painted_library.parent / "images", "--library", folder / "library", "--bundle", bundle.path)
    return folder / "library"


@pytest.fixture
def terminal(tmp_path):
    """terminal(shell, **variables): a terminal in an empty folder."""
    opened = []

    def start(shell="bash --norc --noprofile", **options):
        program = shell.split()[0]
        for each in ("tmux", program):
            if shutil.which(each) is None:
                message = f"no {each} on PATH: apt-get install {each}"
                if os.environ.get("CI"):
                    pytest.fail(message)
                pytest.skip(message)
        opened.append(Tmux(shell, tmp_path, **options))
        return opened[-1]

    yield start
    for each in opened:
        each.tmux("kill-server")


def search(library, *words):
    return shlex.join(["image-finder", "search", *words, "--library", str(library)])


def test_good_matches_are_green_unless_no_color_is_set(terminal, library):
    shown = terminal().run(search(library, "red"))
    good, rest = shown.split("Less certain")
    assert GREEN in good
    assert "red.jpg" in good.split(GREEN, 1)[1]
    assert GREEN not in rest
    assert "\x1b[3" not in terminal(NO_COLOR="1").run(search(library, "red"))


def test_lines_fit_the_terminal_and_paths_are_whole(terminal, library, painted_library):
    path = str(painted_library.parent / "images" / "garden" / "red.jpg")
    shown = terminal(columns=len(path) + 60).run(search(library, "red", "-k", "3"))
    assert path in shown


def test_a_preview_shows_images_as_coloured_half_blocks(terminal, library):
    shown = terminal().run(search(library, "red", "-k", "3", "--preview"))
    first = next(line for line in shown.splitlines() if HALF_BLOCK in line)
    assert "\x1b[38;2;2" in first  # a strong red
    assert "1  red.jpg" in shown
    assert "rank  score" in shown


def test_bash_completes_commands_options_and_folders(terminal, library):
    shell = terminal(columns=240)  # the whole command in one line
    shell.run("image-finder completion bash > completion; . ./completion")
    shell.type("image-finder sea", "Tab")
    shell.wait_for("image-finder search")
    shell.type("red --library ", str(library), " --fol", "Tab")
    shell.wait_for("--folder")
    shell.type("images/gar", "Tab")
    shell.wait_for("--folder images/garden")


@pytest.mark.parametrize(
    ("shell", "load"),
    [("zsh -f", "autoload -U compinit; compinit -u; . ./completion"), ("fish --no-config", ". ./completion")],
)
def test_other_shells_complete_commands(terminal, shell, load):
    shell_name = shell.split()[0]
    opened = terminal(shell)
    status = "$status" if shell_name == "fish" else "$?"
    opened.type(f"image-finder completion {shell_name} > completion; {load}; echo done={status}", "Enter")
    opened.wait_for("done=0")
    opened.type("image-finder sta", "Tab")
    opened.wait_for("starter")
    assert "stack" in opened.screen()
