"""Every command and program of the documents runs in reading order, on less data and smaller trunks where it would
take minutes.

The demo, in a separate home, is in test_demo.py.
"""

import contextlib
import re
import shlex
import socket
import subprocess
import sys
import time

import click
import pytest
import yaml

from tests.e2e.terminal import CACHES, Terminal, terminal_environment
from tests.support import original_models
from tests.support.checkout import CHECKOUT
from tests.support.receivers import http_receiver
from tests.support.small_trunk import SMALL_IMAGE_TRUNK, write_text_trunk

pytestmark = pytest.mark.slow

DOCUMENTS = ("README.md", "components/README.md", "pipelines/README.md", "model_registry/README.md", "infra/README.md")


def blocks_of(language):
    """(what the block's comment says, its text) of every block of the documents, in reading order."""
    pattern = rf"(?:<!-- program: (.*?) -->\n)?```{language}\n(.*?)```"
    texts = [(CHECKOUT / name).read_text(encoding="utf-8") for name in DOCUMENTS]
    return [found for text in texts for found in re.findall(pattern, text, re.DOTALL)]


LINES = [line for _, block in blocks_of("bash") for line in block.splitlines()]
COMMANDS = list(dict.fromkeys(line for line in LINES if line.startswith("image-finder ")))
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
NEEDS_SERVER = "needs a server on port 8080"
PROGRAMS = dict(blocks_of("python"))
SMALLER = (
    "--set dataset.max_images=60 --set training.epochs=1 --set training.augmented_views=2 --set export.parity_images=8 "
    "--set evaluation.min_recall_at_10=0 --set evaluation.min_times_random=0 "
    # The first version of a model is promoted, later ones are not.
    "--set registry.promotion.min_mean_recall=0 --set registry.promotion.min_recall_at_10=0 "
    "--set registry.promotion.min_gain=1"
)
SMALL_TRUNKS = " ".join(
    f"--set model.{key}={value}"
    for key, value in (
        *((f"image.{key}", value) for key, value in SMALL_IMAGE_TRUNK.items()),
        ("text.trunk", "$WORDS"),
        ("text.weights", "hub"),
    )
)
SERVES = re.compile(r"^image-finder (ui|serve) ")  # run until they are stopped
NEEDS_HUB = re.compile(
    r"data fetch|--config (coco|gpu) |models import openai"
)  # run against loopback servers and local files in the unit tests


@pytest.fixture(scope="module")
def terminal(shared_data, tmp_path_factory, observed_network):
    from image_finder.pipelines import run_config

    root = tmp_path_factory.mktemp("readme")
    words = str(write_text_trunk(root / "words"))
    settings = shlex.split(f"{SMALLER} {SMALL_TRUNKS}".replace("$WORDS", words))[1::2]
    smaller = run_config.override(run_config.load("training", "flickr8k"), settings)
    (root / "flickr8k.yaml").write_text(yaml.safe_dump(smaller))
    with http_receiver() as (host, posts):
        environment = terminal_environment(
            observed_network,
            IMAGE_FINDER_HOME=root / "home",
            IMAGE_FINDER_ALERTS=f"json://{host}/",
            IMAGES=shared_data / "coco" / "val2017",
            COCO=shared_data / "coco",
            FLICKR8K=shared_data / "flickr8k",
            PHOTOGRAPHS=shared_data,
            SMALLER=root / "flickr8k.yaml",
            WORDS=words,
            MODEL=original_models.siglip(root / "siglip"),
        )
        yield Terminal(environment, observed_network)
    assert [body["title"].split(" from ")[0] for _, body in posts] == ["image-finder: test"]


def test_the_install_commands_end_in_the_demo_and_in_all_checks():
    first, second = (block for _, block in blocks_of("bash")[:2])
    assert first.strip().endswith(".venv/bin/image-finder demo")
    assert second.strip().endswith("&& tests/check")
    assert "-c infra/constraints.txt" in first
    assert "-c infra/constraints.txt" in second


def test_every_line_is_a_command_that_is_run_here():
    others = [line for line in LINES if not line.startswith(("image-finder ", "python3.11 -m venv", "export "))]
    assert others == []


@pytest.mark.parametrize("command", [c for c in COMMANDS if not (NEEDS_HUB.search(c) or SERVES.search(c))])
def test_command_runs_as_it_stands(command, terminal, tmp_path):
    if "run training" in command:
        # The starter's training shows that the packaged trunks work, and it is packed.
        no_floor = "--set evaluation.extra_sets.coco.min_recall_at_10=0"
        command += f" {SMALLER} {no_floor if '--config starter' in command else SMALL_TRUNKS}"
    command = command.replace("--training flickr8k", '--training "$SMALLER"')
    # A model of sixty photographs is promoted by no rule.
    command = command.replace("pack champion", "pack 1").replace('--measure-on "$FLICKR8K" ', "")
    # The receiver of alerts listens outside of the namespace.
    printed = terminal.run(command, tmp_path, outside="pipeline alert" in command)
    if " search " in command:
        assert len(printed.splitlines()) > 3
    if command in README and " search " in command and "--json" not in command:
        columns = printed.splitlines()[0].split()
        assert any(line.split() == columns for line in README.splitlines()), "the sample output has other columns"
    if "run training" in command:
        assert "text to image" in printed
    if "run indexing" in command:
        assert "0 failed" in printed
    if "models pack" in command:
        assert (tmp_path / "starter" / "MODEL_CARD.md").is_file()
        assert "coco val, 200 images: text to image R@1/5/10" in printed
    if "retrain" in command:  # the training above was the same
        assert printed.startswith("nothing changed since version ")


@pytest.mark.parametrize("command", [c for c in COMMANDS if NEEDS_HUB.search(c)])
def test_command_that_needs_a_hub_is_understood(command):
    from image_finder.components.app.cli import main

    words = shlex.split(command)[1:]
    words = [str(CHECKOUT) if word == "coco" and words[i - 1] == "--data" else word for i, word in enumerate(words)]
    parent, name = click.Context(main), words.pop(0)
    found = main.get_command(parent, name)
    while isinstance(found, click.Group):
        parent, name = click.Context(found, parent=parent), words.pop(0)
        found = found.get_command(parent, name)
    with found.make_context(name, words, parent=parent) as context:
        assert context.params


def test_the_program_with_finder_prints_five_images(terminal, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAMS[""], encoding="utf-8")
    printed = terminal.run(f"{sys.executable} {tmp_path}/program.py", terminal.environment["IMAGE_FINDER_HOME"])
    assert printed.count(".jpg") == 5


def test_the_client_of_the_http_api_prints_five_images(terminal, tmp_path):
    port = free_port()
    (tmp_path / "client.py").write_text(PROGRAMS[NEEDS_SERVER].replace("8080", str(port)), encoding="utf-8")
    with serving(f"image-finder serve --port {port}", f"http://127.0.0.1:{port}/health/ready", terminal, tmp_path):
        printed = terminal.run(f"{sys.executable} {tmp_path}/client.py", tmp_path)
    assert printed.count(".jpg") == 5


@pytest.mark.parametrize(
    ("command", "path", "answer"),
    [(c, "/health", "ok") if " ui " in c else (c, "/health/ready", '"ready"') for c in COMMANDS if SERVES.search(c)],
)
def test_command_that_serves_answers_on_the_home_in_use(command, path, answer, terminal, tmp_path):
    port = free_port()
    command = re.sub("--port [0-9]+", f"--port {port}", command)
    with serving(command, f"http://127.0.0.1:{port}{path}", terminal, tmp_path) as first:
        assert answer in first.lower()
    terminal.require_no_call(command)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(command, url, terminal, cwd):
    """A command that serves, while the context is entered; yields its first answer at url."""
    words = terminal.words(f"exec {command}", cwd)
    with (
        (cwd / "log").open("w") as log,
        subprocess.Popen(words, env=terminal.environment, cwd=cwd, stderr=log) as server,
    ):
        try:
            yield first_answer(url, terminal, cwd, server)
        finally:
            server.terminate()


def first_answer(url, terminal, cwd, server):
    read = f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=5).read().decode())"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        done = terminal.finished(terminal.words(f"{sys.executable} -c {shlex.quote(read)}", cwd), cwd)
        if done.returncode == 0:
            return done.stdout
        time.sleep(0.5)
    pytest.fail(f"{url} did not answer")


def test_no_command_left_a_file_that_identifies_the_user(observed_network):
    if observed_network is None:
        pytest.skip("no network namespace can be made: run as root with unshare and nsenter (util-linux)")
    assert [name for name in observed_network.files() if not CACHES.match(name)] == []
