"""The README's commands are run in their order, as they stand there, with less data where they would take minutes."""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import click
import pytest
import yaml

from tests.unit.receivers import http_receiver

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```bash\n(.*?)```", (CHECKOUT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", (CHECKOUT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("image-finder ")]
SMALLER = (
    "--set dataset.max_images=60 --set training.epochs=1 --set training.views=2 --set export.parity_pictures=8 "
    "--set evaluation.min_recall_at_10=0 --set evaluation.min_times_random=0"
)
SERVES = re.compile(r"^image-finder (ui|serve) ")  # run until they are stopped
NEEDS_HUB = re.compile(
    r"data fetch|--config (coco|gpu) "
)  # run against loopback servers and local files in the unit tests


@pytest.fixture(scope="module")
def environment(shared_data, tmp_path_factory):
    from pipelines import run_config

    root = tmp_path_factory.mktemp("readme")
    smaller = run_config.override(run_config.load("training", "flickr8k"), shlex.split(SMALLER)[1::2])
    (root / "flickr8k.yaml").write_text(yaml.safe_dump(smaller))
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ZENML", "MLFLOW", "IMAGE_FINDER"))}
    with http_receiver() as (host, posts):
        yield {
            **kept,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "IMAGE_FINDER_HOME": str(root / "home"),
            "IMAGE_FINDER_ALERTS": f"json://{host}/",
            "PICTURES": str(shared_data / "coco" / "val2017"),
            "COCO": str(shared_data / "coco"),
            "FLICKR8K": str(shared_data / "flickr8k"),
            "PHOTOGRAPHS": str(shared_data),
            "SMALLER": str(root / "flickr8k.yaml"),
        }
    assert [body["title"].split(" from ")[0] for _, body in posts] == ["image-finder: test"]


def run(command, environment, cwd):
    done = subprocess.run(
        ["bash", "-euc", command], env=environment, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-1000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def test_the_install_commands_end_in_the_demo_and_in_all_checks():
    first, second = BLOCKS[:2]
    assert first.strip().endswith(".venv/bin/image-finder demo")
    assert second.strip().endswith("&& tests/check")
    assert "-c infra/constraints.txt" in first
    assert "-c infra/constraints.txt" in second


def test_the_demo_finds_held_out_scenes_far_above_chance(environment, tmp_path):
    printed = run("image-finder demo", environment, tmp_path)
    row = next(line for line in printed.splitlines() if line.startswith("text to picture"))
    numbers = [float(number) for number in re.findall(r"(?<![\[\w.])(\d+\.\d+)(?= \[)", row)]
    recall_at_10, random_at_10 = numbers[2], float(row.split()[-1])
    assert recall_at_10 > 90
    assert random_at_10 < 5
    best = printed.split('"a fox in the forest"')[1].splitlines()[2]
    assert "fox" in best


@pytest.mark.parametrize("command", [c for c in COMMANDS if not (NEEDS_HUB.search(c) or SERVES.search(c))])
def test_command_runs_as_it_stands(command, environment, tmp_path):
    if "run training" in command:
        command += f" {SMALLER}"
    command = command.replace("--training flickr8k", '--training "$SMALLER"')
    # A model of sixty photographs is promoted by no rule.
    command = command.replace("pack champion", "pack 1").replace('--measure-on "$FLICKR8K" ', "")
    printed = run(command, environment, tmp_path)
    if " search " in command:
        assert len(printed.splitlines()) > 3
    if "run training" in command:
        assert "text to picture" in printed
    if "run indexing" in command:
        assert "0 failed" in printed
    if "models pack" in command:
        assert (tmp_path / "starter" / "MODEL_CARD.md").is_file()
        assert "coco val, 200 pictures: text to picture R@1/5/10" in printed
    if "retrain" in command:  # the training above was the same
        assert printed.startswith("nothing changed since version 2")


@pytest.mark.parametrize("command", [c for c in COMMANDS if NEEDS_HUB.search(c)])
def test_command_that_needs_a_hub_is_understood(command):
    from components.app.cli import main

    words = shlex.split(command)[1:]
    words = [str(CHECKOUT) if word == "coco" and words[i - 1] == "--data" else word for i, word in enumerate(words)]
    parent, name = click.Context(main), words.pop(0)
    found = main.get_command(parent, name)
    while isinstance(found, click.Group):
        parent, name = click.Context(found, parent=parent), words.pop(0)
        found = found.get_command(parent, name)
    with found.make_context(name, words, parent=parent) as context:
        assert context.params


@pytest.mark.parametrize("program", PYTHON)
def test_program_runs_as_it_stands(program, environment, tmp_path):
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    printed = run(f"{sys.executable} {tmp_path}/program.py", environment, environment["IMAGE_FINDER_HOME"])
    assert printed.count(".jpg") == 5


@pytest.mark.parametrize(
    ("command", "path", "answer"),
    [(c, "/health", "OK") if " ui " in c else (c, "/health/ready", '"ready"') for c in COMMANDS if SERVES.search(c)],
)
def test_command_that_serves_answers_on_the_home_in_use(command, path, answer, environment, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = f"exec {re.sub('--port [0-9]+', f'--port {port}', command)}"
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(["bash", "-euc", command], env=environment, cwd=tmp_path, stderr=log) as server,
    ):
        try:
            assert answer in first_answer(f"http://127.0.0.1:{port}{path}", server)
        finally:
            server.terminate()


def first_answer(url, server):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answered:
                return answered.read().decode()
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"{url} did not answer")


def test_every_folder_of_the_tree_exists_and_none_is_left_out():
    tree = (CHECKOUT / "README.md").read_text().split("## Where things are")[1].split("```")[1]
    named, parent = set(), ""
    for line in tree.strip().splitlines():
        name = line.split()[0]
        parent = name if not line.startswith(" ") else parent
        named.add(name if not line.startswith(" ") else parent + name)
    assert all((CHECKOUT / name).exists() for name in named)
    packages = {f"{p.parent.relative_to(CHECKOUT).as_posix()}/" for p in CHECKOUT.glob("*/__init__.py")}
    inner = {f"{p.parent.relative_to(CHECKOUT).as_posix()}/" for p in (CHECKOUT / "components").glob("*/__init__.py")}
    assert packages | inner <= named
