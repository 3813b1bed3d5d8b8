"""The demo as a newcomer runs it: recall far above chance, in a separate home, without a call to another host."""

import re

import pytest

from tests.e2e.terminal import CACHES, Terminal, terminal_environment

pytestmark = pytest.mark.slow


def test_the_demo_finds_held_out_scenes_far_above_chance(observed_network, tmp_path):
    environment = terminal_environment(observed_network, IMAGE_FINDER_HOME=tmp_path / "home")
    printed = Terminal(environment, observed_network).run("image-finder demo", tmp_path)
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
    paths = Terminal(environment, observed_network).run("image-finder info --paths", tmp_path)
    assert [line.split()[0] for line in paths.splitlines()] == [str(tmp_path / "home"), str(tmp_path / "home" / "demo")]
    if observed_network is not None:
        assert [name for name in observed_network.files() if not CACHES.match(name)] == []
