"""What the images of pipeline and servers promise, read from their Dockerfiles: no container engine is needed."""

import re
import tomllib

import pytest

from image_finder.components import telemetry
from image_finder.model_registry import lineage
from tests.support.checkout import CHECKOUT

EXTRAS = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
SETUPTOOLS = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def instructions_of(name):
    """(instruction, arguments) in order, continuation lines joined, comments left out."""
    text = (CHECKOUT / "infra" / "docker" / f"{name}.Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    joined = lines.replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in joined if line.strip()]


def stages_of(name):
    """Instructions of each stage, the last one is the image."""
    stages = []
    for instruction, arguments in instructions_of(name):
        if instruction == "FROM":
            stages.append([])
        stages[-1].append((instruction, arguments))
    return stages


def of(instructions, wanted):
    return [arguments for instruction, arguments in instructions if instruction == wanted]


BOTH = pytest.mark.parametrize("name", ["pipeline", "servers"])


@BOTH
def test_every_stage_starts_from_the_slim_image_of_the_python_that_is_required(name):
    assert {base.split()[0] for base in of(instructions_of(name), "FROM")} == {"python:3.11-slim"}


@BOTH
def test_packages_are_pinned_and_installed_before_any_of_our_code_is_there(name):
    first = stages_of(name)[0]
    (install,) = [command for command in of(first, "RUN") if "pip install" in command]
    assert re.search(r"pip install -c infra/constraints.txt '?\"?\.\[", install)
    copied = " ".join(of(first, "COPY")).split()
    assert not {"components", "steps", "pipelines", "model_registry"} & set(copied)
    stub = re.search(r"mkdir -p ([a-z_/ ]+?) +&&", install)[1].split()
    assert sorted(stub) == sorted(SETUPTOOLS["package-dir"].values())
    assert "pip uninstall -y text-guided-image-finder" in install


@BOTH
def test_it_does_not_run_as_root_and_its_folders_are_made_before(name):
    last = stages_of(name)[-1]
    (user,) = of(last, "USER")
    assert user == "10001"
    order = [instruction for instruction, _ in last]
    assert order.index("USER") > max(place for place, each in enumerate(order) if each in {"RUN", "COPY"})
    assert any(f"--uid {user}" in command and "install -d -o" in command for command in of(last, "RUN"))


@BOTH
def test_every_file_it_copies_is_in_the_repository_or_of_an_earlier_stage(name):
    names = re.findall(r" AS (\w+)", " ".join(of(instructions_of(name), "FROM")))
    for arguments in of(instructions_of(name), "COPY"):
        *sources, _ = [word for word in arguments.split() if not word.startswith("--")]
        if (stage := re.match(r"--from=(\w+)", arguments)) is not None:
            assert stage[1] in names
        else:
            assert all((CHECKOUT / source).exists() for source in sources)


@pytest.mark.parametrize("name", ["pipeline", "servers", "serve"])
def test_its_programs_report_to_nobody(name):
    lines = " ".join(of(stages_of(name)[-1], "ENV")).split()
    environment = dict(pair.split("=", 1) for pair in lines)
    assert telemetry.OFF.items() <= environment.items()


def test_the_pipeline_image_holds_the_packages_of_pipeline_cluster_tiers_and_engines():
    (default,) = [each for each in of(stages_of("pipeline")[0], "ARG") if each.startswith("EXTRAS=")]
    assert default == "EXTRAS=pipeline,kubernetes,faiss,ray"
    assert set(default.partition("=")[2].split(",")) <= set(EXTRAS)
    assert '".[$EXTRAS]"' in " ".join(of(stages_of("pipeline")[0], "RUN"))


def test_the_pipeline_image_has_its_code_in_a_layer_above_its_packages():
    last = stages_of("pipeline")[-1]
    order = [arguments for instruction, arguments in last if instruction in {"COPY", "RUN"}]
    packages = next(place for place, each in enumerate(order) if "--from=packages" in each)
    code = next(place for place, each in enumerate(order) if "--from=code" in each)
    install = next(place for place, each in enumerate(order) if "pip install" in each)
    assert packages < code < install
    assert "--no-deps --no-index" in order[install]
    assert "pip check" in order[install]


def test_the_pipeline_image_records_the_commit_where_lineage_reads_it():
    _, code, last = stages_of("pipeline")
    (build,) = [command for command in of(code, "RUN") if "pip wheel" in command]
    assert build.startswith(f'echo "$CODE_VERSION" > {lineage.RECORDED} && ')
    assert lineage.RECORDED.name in SETUPTOOLS["package-data"][f"image_finder.{lineage.RECORDED.parent.name}"]
    for stage in (code, last):
        assert of(stage, "ARG") == ["CODE_VERSION="]  # of the late layers: another commit installs no package anew
    assert of(last, "LABEL") == ["org.opencontainers.image.revision=$CODE_VERSION"]
    header = (CHECKOUT / "infra" / "docker" / "pipeline.Dockerfile").read_text(encoding="utf-8").partition("FROM")[0]
    assert """--build-arg CODE_VERSION="$(git describe --always --dirty --abbrev=12 --exclude='*')\"""" in header


def test_steps_find_home_and_working_folder_and_share_no_settings():
    last = stages_of("pipeline")[-1]
    environment = dict(pair.split("=", 1) for pair in " ".join(of(last, "ENV")).split())
    (home,) = of(last, "VOLUME")
    assert environment["IMAGE_FINDER_HOME"] == environment["HOME"] == home
    assert not environment["ZENML_CONFIG_PATH"].startswith(home)
    assert of(last, "WORKDIR") == ["/app"]  # ZenML's entry point changes there
    assert any("install -d -o finder /finder /app" in command for command in of(last, "RUN"))
    assert of(last, "ENTRYPOINT") == ['["image-finder"]']


def test_the_servers_image_holds_postgresql_driver_mlflow_and_zenml_as_the_clients_have_them():
    (install,) = [command for command in of(stages_of("servers")[0], "RUN") if "pip install" in command]
    assert "'.[team]'" in install
    for package in ("mlflow", "zenml"):
        asked = {extra: [each for each in EXTRAS[extra] if each.startswith(package)] for extra in ("team", "pipeline")}
        assert asked["team"] == asked["pipeline"]
    assert any(each.startswith("psycopg2-binary") for each in EXTRAS["team"])
    assert not any(each.startswith(("torch", "text-guided-image-finder")) for each in EXTRAS["team"])
