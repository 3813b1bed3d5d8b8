"""What the serving image promises, read from its Dockerfile: no container engine is needed."""

import re
import tomllib

import pytest
from click.testing import CliRunner

from image_finder.components.app.commands.serve_command import serve
from tests.support.checkout import CHECKOUT

HEAVY = ("torch", "zenml", "mlflow", "transformers", "timm", "pandas", "great-expectations", "datasets")


@pytest.fixture(scope="module")
def instructions():
    """(instruction, arguments) in order, continuation lines joined, comments left out."""
    text = (CHECKOUT / "infra" / "docker" / "serve.Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    joined = lines.replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in joined if line.strip()]


def of(instructions, wanted):
    return [arguments for instruction, arguments in instructions if instruction == wanted]


def last_stage(instructions):
    start = max(place for place, (instruction, _) in enumerate(instructions) if instruction == "FROM")
    return instructions[start:]


def test_every_stage_starts_from_the_slim_image_of_the_oldest_python(instructions):
    bases = [base.split()[0] for base in of(instructions, "FROM")]
    assert set(bases) == {"python:3.11-slim"}
    required = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert required.startswith(">=3.11,")


def test_only_the_light_extras_are_installed_and_its_versions_are_pinned(instructions):
    installs = [command for command in of(instructions, "RUN") if "pip install" in command]
    assert len(installs) == 1
    assert re.search(
        r"pip install --no-compile -c infra/constraints.txt '\.\[search,faiss\]' && \S*pip check", installs[0]
    )


def test_the_light_extras_bring_nothing_heavy():
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    light = " ".join([*extras["search"], *extras["app"], *extras["faiss"]])
    assert [name for name in HEAVY if re.search(rf"\b{name}\b", light)] == []


def test_it_does_not_run_as_root(instructions):
    (user,) = of(last_stage(instructions), "USER")
    assert int(user) > 0
    stage = [instruction for instruction, _ in last_stage(instructions)]
    assert stage.index("USER") > max(place for place, name in enumerate(stage) if name in {"RUN", "COPY"})


def test_health_is_asked_where_the_server_answers(instructions):
    (check,) = of(last_stage(instructions), "HEALTHCHECK")
    (command,) = of(last_stage(instructions), "CMD")
    port = re.search(r'"--port", "(\d+)"', command)[1]
    assert f"http://127.0.0.1:{port}/health/live" in check
    assert of(last_stage(instructions), "EXPOSE") == [port]
    assert "curl" not in check


def test_it_starts_with_options_that_serve_has(instructions):
    (entry,), (command,) = (of(last_stage(instructions), name) for name in ("ENTRYPOINT", "CMD"))
    assert entry == '["image-finder"]'
    words = re.findall(r'"([^"]*)"', command)
    assert words[0] == "serve"
    known = {name for option in serve.params for name in option.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_without_a_token_it_does_not_start(instructions, tmp_path):
    (command,) = of(last_stage(instructions), "CMD")
    words = re.findall(r'"([^"]*)"', command)[1:]
    refused = CliRunner(env={"IMAGE_FINDER_TOKEN": ""}).invoke(serve, words)
    assert refused.exit_code == 1
    assert "a token is required" in refused.output


def test_every_file_it_copies_is_in_the_repository(instructions):
    for arguments in of(instructions, "COPY"):
        *sources, _ = [word for word in arguments.split() if not word.startswith("--")]
        if "--from=" not in arguments:
            assert all((CHECKOUT / source).exists() for source in sources)
