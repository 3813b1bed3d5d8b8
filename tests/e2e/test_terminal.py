"""Commands in a real terminal (tmux): colours, previews, completion."""

import shlex
import shutil

import pytest

from image_finder.components.captions.vocabulary import Vocabulary
from tests.e2e.terminal import Tmux, require_programs
from tests.support.colour_bundle import good_from, write_colour_bundle

GREEN = "\x1b[32m"
HALF_BLOCK = "▀"


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
        require_programs("tmux", shell.split()[0])
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


def test_indexing_shows_its_phases_in_place_and_only_the_summary_remains(terminal, painted_library, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(painted_library.parent / "images", images)
    bundle = painted_library.parent / "bundle"
    shown = terminal(columns=80).run(f"image-finder index {images} --library {tmp_path / 'library'} --bundle {bundle}")
    lines = [line for line in shown.splitlines() if line.strip()]
    assert any("images searchable" in line for line in lines)
    assert not any("\r" in line or "%|" in line for line in lines)
