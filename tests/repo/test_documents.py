"""Documents: their size, links, file names, project map and configuration reference."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.checkout import CHECKOUT
from tests.support.configuration_reference import DOCUMENT, with_reference

TRACKED = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.split()
DOCUMENTS = [name for name in TRACKED if name.endswith(".md")]
# Files that the product writes, named in documents.
WRITTEN = {"index.json", "bundle.json", "scores.json", "mlflow.db", "client.py", "report.html", "drift.html"}
FILE_NAME = re.compile(r"`((?!/)[\w./-]+\.(?:py|md|yaml|yml|toml|txt|json|sh|Dockerfile))`")


def text_of(document):
    return (CHECKOUT / document).read_text(encoding="utf-8")


def anchors_of(text):
    """Names that GitHub gives to the headings of a text."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short():
    assert len(text_of("README.md").encode()) <= 9000


@pytest.mark.parametrize(
    "package", ["components", "infra", "model_registry", "pipelines", "steps", "tests", "tests/benchmarks"]
)
def test_every_package_has_its_readme(package):
    assert f"{package}/README.md" in DOCUMENTS


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_relative_link_leads_to_a_tracked_file_and_heading(document):
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text_of(document)):
        name, _, anchor = target.partition("#")
        path = ((CHECKOUT / document).parent / name).resolve() if name else CHECKOUT / document
        relative = path.relative_to(CHECKOUT).as_posix()
        assert any(tracked == relative or tracked.startswith(f"{relative}/") for tracked in TRACKED), target
        if anchor:
            assert anchor in anchors_of(path.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_is_named_exists(document):
    names = {Path(tracked).name for tracked in TRACKED}
    for name in FILE_NAME.findall(text_of(document)):
        beside = (CHECKOUT / document).parent / name
        found = (CHECKOUT / name).exists() or beside.exists() if "/" in name else name in names | WRITTEN
        assert found, name


def test_every_directory_is_in_the_project_map_and_the_map_names_no_other():
    tree = text_of("README.md").split("## Project map")[1].split("```")[1]
    named, parent = set(), ""
    for line in tree.strip().splitlines():
        name = line.split()[0].rstrip("/")
        parent = name if not line.startswith(" ") else parent
        named.add(name if not line.startswith(" ") else f"{parent}/{name}")
    directories = {str(Path(tracked).parent) for tracked in TRACKED if tracked.endswith(".py")}
    inner = {f"components/{path.split('/')[1]}" for path in directories if path.startswith("components/")}
    top = {path.split("/")[0] for path in directories if not path.startswith(".")}
    assert named == inner | (top - {"."})


def test_the_configuration_reference_is_that_of_the_models():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_reference(text) == text, "run: python -m tests.support.configuration_reference"
