"""tests/check, the pre-commit hooks and the workflow for GitHub Actions run what their comments say."""

import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from pre_commit.clientlib import load_config

from tests.support.checkout import CHECKOUT

PATH = CHECKOUT / ".github" / "workflows" / "check.yml"
JOBS = yaml.safe_load(PATH.read_text(encoding="utf-8"))["jobs"]


CHECK = (CHECKOUT / "tests" / "check").read_text(encoding="utf-8")


LIGHT = re.findall(r"(?<=[ =])tests/[\w/.]+", (CHECKOUT / "tests" / "light").read_text(encoding="utf-8"))


def test_pre_commit_runs_each_fast_tool_of_the_checks():
    (repository,) = load_config(str(CHECKOUT / ".pre-commit-config.yaml"))["repos"]
    tools = {tool for hook in repository["hooks"] for tool in re.findall(r"ruff|mypy|lint-imports", hook["entry"])}
    assert tools == set(re.findall(r'"\$bin/([\w-]+)"', CHECK)) - {"pytest"}


def test_the_checks_hand_their_arguments_to_pytest_and_fail_if_mypy_does():
    assert re.search(r'"\$bin/pytest" .*"\$@"$', CHECK, re.MULTILINE)
    assert re.search(r'wait "\$types" \|\| \{ .*exit 1; \}', CHECK)
    assert (CHECKOUT / "tests" / "check").stat().st_mode & 0o111


def commands(job):
    return [step["run"] for step in JOBS[job]["steps"] if "run" in step]


def test_the_workflow_follows_the_schema_of_github_actions():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(PATH)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_linux_runs_the_gate_with_the_python_of_the_project():
    assert commands("gate")[-1] == ".ci/run"
    assert (CHECKOUT / ".ci" / "run").is_file()
    assert JOBS["gate"]["container"].startswith("python:3.11-")


def test_the_light_tests_run_on_each_system_and_each_python_that_the_package_names():
    matrix = JOBS["light"]["strategy"]["matrix"]
    assert matrix["os"] == ["macos-latest", "windows-latest"]
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [each.rpartition(" ")[2] for each in project["classifiers"] if "Python :: 3." in each]
    assert (named[0], named[-1]) == tuple(matrix["python"])
    assert [(each["os"], each["python"]) for each in matrix["include"]] == [("ubuntu-latest", each) for each in named]
    newest = int(named[-1].partition(".")[2])
    assert project["requires-python"] == f">={named[0]},<3.{newest + 1}"
    assert JOBS["light"]["steps"][1]["with"]["python-version"] == "${{ matrix.python }}"


def test_the_light_tests_need_no_heavy_package():
    install, fetch, tests = commands("light")
    assert "'.[search,faiss]'" in install
    assert "-c infra/constraints.txt" in install
    assert not [heavy for heavy in ("torch", "zenml", "mlflow", "pandas", "pipeline") if heavy in install]
    assert (fetch, tests) == ("image-finder starter fetch", "tests/light")
    assert (CHECKOUT / tests).stat().st_mode & 0o111
    assert [path for path in LIGHT if not (CHECKOUT / path).exists()] == []


def test_types_are_checked_for_each_system():
    assert "types_of && types_on darwin && types_on win32" in CHECK


@pytest.mark.parametrize("package", ["app", "bundle", "images", "index", "library", "search", "starter"])
def test_the_light_tests_cover_each_package_that_serves_a_search(package):
    assert f"tests/unit/{package}" in LIGHT
