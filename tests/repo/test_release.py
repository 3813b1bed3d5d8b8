"""The workflow of a release: its file, its version, and its build, which is run here."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile

import pytest
import yaml

from tests.support.checkout import CHECKOUT

PATH = CHECKOUT / ".github" / "workflows" / "release.yml"
WORKFLOW = yaml.safe_load(PATH.read_text(encoding="utf-8"))
JOBS = WORKFLOW["jobs"]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TAG = f"v{PROJECT['version']}"
TRACKED = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.split(
    "\n"
)


def commands(job):
    return [step["run"] for step in JOBS[job]["steps"] if "run" in step]


def run(command, folder, **variables):
    """Run a step as GitHub's runners do."""
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_workflow_follows_the_schema_of_github_actions():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(PATH)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_only_a_tag_publishes_after_the_tests_without_a_stored_secret():
    assert WORKFLOW[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads "on" as a boolean
    assert (JOBS["test"]["needs"], JOBS["publish"]["needs"]) == ("build", "test")
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert JOBS["publish"]["permissions"] == {"id-token": "write"}
    assert "secrets." not in PATH.read_text(encoding="utf-8")
    assert commands("publish") == []


def test_every_action_is_pinned_to_a_commit():
    used = re.findall(r"uses: (.*)", PATH.read_text(encoding="utf-8"))
    assert used
    assert [each for each in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", each)] == []


def test_the_wheel_is_tested_as_the_checks_test_the_checkout():
    install, *others = commands("test")
    assert others == ["image-finder starter fetch", "tests/light"]
    assert '"$(ls dist/*.whl)[search,faiss]"' in install
    matrix = JOBS["test"]["strategy"]["matrix"]
    named = [each.rpartition(" ")[2] for each in PROJECT["classifiers"] if "Python :: 3." in each]
    assert matrix["python"] == [named[0], named[-1]]
    assert {each.partition("-")[0] for each in matrix["os"]} == {"ubuntu", "macos", "windows"}


def test_images_have_the_version_of_the_package():
    tag = re.compile(r"image-finder[\w-]*:(\d+\.\d+\.\d+)|newTag: ([\d.]+)")
    files = [name for name in TRACKED if name.endswith(".yaml")]
    found = {
        version
        for name in files
        for match in tag.findall((CHECKOUT / name).read_text(encoding="utf-8"))
        for version in filter(None, match)
    }
    assert found == {PROJECT["version"]}


@pytest.mark.parametrize("tag", [f"{TAG}.1", TAG[1:], "v"])
def test_another_tag_than_the_version_is_refused(tag):
    refused = run(commands("build")[0], CHECKOUT, GITHUB_REF_NAME=tag)
    assert refused.returncode == 1
    assert refused.stderr == f"tag {tag}, but pyproject.toml has version {TAG[1:]}: expected the tag {TAG}\n"


@pytest.mark.slow
def test_its_build_makes_a_source_distribution_and_a_wheel_with_all_files(tmp_path):
    source = tmp_path / "source"
    for name in filter(None, TRACKED):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, source / name, follow_symlinks=False) if (CHECKOUT / name).exists() else None
    venv.create(tmp_path / "env", with_pip=True)
    path = f"{tmp_path}/env/bin:{os.environ['PATH']}"
    for command in commands("build"):
        done = run(command, source, GITHUB_REF_NAME=TAG, PATH=path)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    (wheel,) = (source / "dist").glob("*.whl")
    (archive,) = (source / "dist").glob("*.tar.gz")
    assert wheel.name == f"text_guided_image_finder-{TAG[1:]}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as opened:
        inside = {name.removeprefix("image_finder/") for name in opened.namelist()}
    packages = ("components", "model_registry", "pipelines", "steps")
    tracked = {name for name in TRACKED if name.startswith(packages) and not name.endswith("README.md")}
    assert tracked <= inside, tracked - inside
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names
