"""The demo as a newcomer runs it: recall far above chance, in a separate home, without a call to another host."""

import re
import shlex
import time

import pytest

from image_finder.pipelines.step_phases import TITLES
from tests.e2e.terminal import CACHES, Terminal, Tmux, require_programs, terminal_environment

pytestmark = pytest.mark.slow


def watched(command, terminal, folder):
    """Run a command on a terminal of 80 columns; all that its last line showed, and the screen at the end."""
    require_programs("tmux")
    variables = [f"{name}={value}" for name, value in {**terminal.environment, "TERM": "xterm-256color"}.items()]
    (folder / "script").write_text(shlex.join(["env", "-i", *variables, *terminal.words(command, folder)]))
    tmux = Tmux("bash --norc --noprofile", folder, columns=80)
    tmux.type("clear; bash script; echo done=$?", "Enter")
    seen = set()
    try:
        while not (done := re.search(r"done=(\d+)", screen := tmux.screen())):
            seen.add(screen.strip().rpartition("\n")[2])
            time.sleep(0.2)
    finally:
        tmux.tmux("kill-server")
    assert done[1] == "0", screen
    return "\n".join(seen), screen


def test_the_demo_finds_held_out_scenes_far_above_chance(observed_network, tmp_path):
    environment = terminal_environment(observed_network, IMAGE_FINDER_HOME=tmp_path / "home")
    terminal = Terminal(environment, observed_network)
    seen, screen = watched("image-finder demo > printed", terminal, tmp_path)
    terminal.require_no_call("image-finder demo")
    printed = (tmp_path / "printed").read_text()
    row = next(line for line in printed.splitlines() if line.startswith("text to image"))
    numbers = [float(number) for number in re.findall(r"(?<![\[\w.])(\d+\.\d+)(?= \[)", row)]
    recall_at_10, random_at_10 = numbers[2], float(row.split()[-1])
    assert recall_at_10 > 90
    assert random_at_10 < 5
    found = printed.split('"a fox in the forest"')[1].splitlines()
    best = next(line for line in found if line.startswith("1 "))
    assert "fox" in best
    apart = [path.name for path in (tmp_path / "home").iterdir()]
    assert apart == ["demo"], "own images would be searched with the demo's model"
    paths = terminal.run("image-finder info --paths", tmp_path)
    assert [line.split()[0] for line in paths.splitlines()] == [str(tmp_path / "home"), str(tmp_path / "home" / "demo")]
    assert "train: epoch" in seen
    assert ", val recall" in seen
    assert " left" in seen
    phases = [line.partition(" ..")[0] for line in screen.splitlines()]
    expected = [*TITLES["training"].values(), *TITLES["indexing"].values()]
    assert [title for title in phases if title in expected] == expected
    assert "Step `" not in screen
    assert "Warning" not in screen
    assert "Runs and models: image-finder ui --home" in screen
    if observed_network is not None:
        assert [name for name in observed_network.files() if not CACHES.match(name)] == []
