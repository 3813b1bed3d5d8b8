"""`image-finder pipeline schedule`: what it writes, prints and refuses."""

import json
import os
import stat
from pathlib import Path
from zoneinfo import TZPATH

import pytest
from click.testing import CliRunner

from image_finder.components.errors import ConfigError, DataError
from image_finder.pipelines.commands.scheduling_commands import BUSY, schedule
from image_finder.pipelines.scheduling import machine_schedule
from image_finder.pipelines.scheduling.environment_file import CARRIED

WEEKLY = ("--cron", "30 3 * * MON", "--zone", "Europe/Zurich", "--training", "demo")


@pytest.fixture(autouse=True)
def no_carried_variables(monkeypatch):
    for name in ("IMAGE_FINDER_DATA", *CARRIED):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(tmp_path):
    def one(*words):
        return CliRunner().invoke(schedule, [*map(str, words), "--home", str(tmp_path / "home")])

    return one


def refused(result, kind=ConfigError):
    assert isinstance(result.exception, kind), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_systemd_units_are_written_and_the_next_five_runs_are_shown(run, tmp_path):
    result = run(*WEEKLY)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "home" / "schedule"
    assert {path.name for path in folder.iterdir()} == {
        "environment",
        "image-finder-retrain.service",
        "image-finder-retrain.timer",
        "image-finder-retrain-died.service",
    }
    lines = result.stdout.splitlines()
    assert lines[0] == "'30 3 * * 1' in Europe/Zurich runs next"
    assert len([line for line in lines[1:6] if line.startswith("  Mon ") and " 03:30 CE" in line]) == 5
    assert "OnCalendar=Mon *-*-* 03:30:00 Europe/Zurich" in lines
    assert "sudo systemctl enable --now image-finder-retrain.timer" in result.stderr
    assert "nobody is alerted" in result.stderr


def test_the_command_of_a_unit_uses_absolute_paths(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("images 5%").mkdir()
    Path("own.yaml").write_text("parameters:\n  dataset: {name: d, layout: demo}\n")
    Path("look.yaml").write_text("parameters:\n  gallery: {}\n")
    words = ("--training", "own.yaml", "--indexing", "look.yaml", "--gallery", "images 5%")
    result = run("--cron", "@daily", "--zone", "UTC", *words)
    assert result.exit_code == 0, result.output
    unit = (tmp_path / "home" / "schedule" / "image-finder-retrain.service").read_text()
    (command,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    assert command.endswith(
        f'"pipeline" "retrain" "--training" "{tmp_path}/own.yaml" "--indexing" "{tmp_path}/look.yaml" '
        f'"--gallery" "{tmp_path}/images 5%%" "--if-changed" "--home" "{tmp_path}/home"'
    )
    assert command.startswith('ExecStart=:"/')


def test_secrets_are_written_to_a_private_file_and_to_no_unit(run, tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGE_FINDER_ALERTS", "jsons://me:sesame@hooks.example.org/x")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter22")
    result = run(*WEEKLY, "--mlflow-uri", "postgresql://me:p4ssword@db/mlflow")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "home" / "schedule"
    kept = (folder / "environment").read_text()
    assert stat.S_IMODE((folder / "environment").stat().st_mode) == 0o600
    for secret in ("sesame", "hunter22", "p4ssword"):
        assert secret in kept
        assert secret not in result.output
        assert not [path for path in folder.glob("image-finder*") if secret in path.read_text()]
    assert "IMAGE_FINDER_ALERTS, MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_URI" in result.stderr


def test_a_second_call_keeps_the_environment_file_and_a_different_server_is_refused(run, tmp_path, monkeypatch):
    run(*WEEKLY, "--mlflow-uri", "http://one:5000")
    path = tmp_path / "home" / "schedule" / "environment"
    before = path.read_bytes()
    monkeypatch.setenv("IMAGE_FINDER_ALERTS", "jsons://hooks.example.org/new")
    assert run(*WEEKLY).exit_code == 0
    assert path.read_bytes() == before
    assert "contains another MLFLOW_TRACKING_URI" in refused(run(*WEEKLY, "--mlflow-uri", "http://two:5000"))


def test_an_unsupported_alert_address_is_refused_before_anything_is_written(run, tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGE_FINDER_ALERTS", "carrier-pigeon://loft")
    assert "address 1" in refused(run(*WEEKLY))
    assert not (tmp_path / "home" / "schedule").exists()


def test_a_dry_run_prints_everything_and_writes_nothing(run, tmp_path):
    result = run(*WEEKLY, "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert len(shown["next_runs"]) == 5
    assert len(shown["files"]) == 3
    assert "nothing was written" in result.stderr
    assert not (tmp_path / "home").exists()


def test_a_crontab_is_only_written_in_the_zone_of_the_machine(run, tmp_path, monkeypatch):
    zone = next(Path(folder, "Europe/Zurich") for folder in TZPATH if Path(folder, "Europe/Zurich").is_file())
    (tmp_path / "zoneinfo" / "Europe").mkdir(parents=True)
    (tmp_path / "zoneinfo" / "Europe" / "Zurich").write_bytes(zone.read_bytes())
    (tmp_path / "localtime").symlink_to(tmp_path / "zoneinfo" / "Europe" / "Zurich")
    monkeypatch.setattr(machine_schedule, "_LOCALTIME", tmp_path / "localtime")
    result = run(*WEEKLY, "--on", "crontab")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "home" / "schedule" / "crontab").read_text()
    assert text.splitlines()[1].startswith("30 3 * * 1 (nice -n 10 ")
    assert "| crontab -" in result.stderr
    other = ("--cron", "30 3 * * 1", "--zone", "Asia/Tokyo", "--training", "demo", "--on", "crontab")
    assert "this machine's time zone, which is Europe/Zurich, not Asia/Tokyo" in refused(run(*other))


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--cron", "30 25 * * *", "--zone", "UTC", "--training", "demo"), "hour is out of range"),
        (("--cron", "30 3 * * *", "--zone", "Europe/Zuerich", "--training", "demo"), "did you mean Europe/Zurich"),
        (("--cron", "30 3 * * *", "--zone", "UTC", "--training", "nothing"), "no configuration 'nothing'"),
        (("--cron", "30 3 * * *", "--zone", "UTC", "--training", "gone.yaml"), "no configuration 'gone.yaml'"),
        (("--cron", "30 3 * * *", "--zone", "UTC", "--training", "flickr8k"), "has no folder: give --data"),
        (
            ("--cron", "30 3 * * *", "--zone", "UTC", "--training", "flickr8k", "--data", "/gone"),
            "the folder /gone for training does not exist",
        ),
        (
            ("--cron", "30 3 * * *", "--zone", "UTC", "--training", "demo", "--gallery", "/gone"),
            "the folder /gone for indexing does not exist",
        ),
    ],
)
def test_a_schedule_that_could_never_run_is_refused(run, tmp_path, words, fault):
    assert fault in refused(run(*words), (ConfigError, DataError))
    assert not (tmp_path / "home").exists()


def test_a_nonexistent_local_time_causes_a_warning(run):
    result = run("--cron", "30 2 * * *", "--zone", "Europe/Zurich", "--training", "demo", "--dry-run")
    assert "does not exist in Europe/Zurich: clocks go forward; that run is skipped" in result.stderr


@pytest.mark.parametrize("missing", ["--cron", "--zone", "--training"])
def test_expression_zone_and_training_must_be_named(run, missing):
    words = list(WEEKLY)
    position = words.index(missing)
    result = run(*words[:position], *words[position + 2 :])
    assert result.exit_code == 2
    assert f"Missing option '{missing}'" in result.stderr


def test_a_stack_schedules_one_pipeline_at_a_time(run):
    result = run(*WEEKLY, "--on", "stack", "--indexing", "local")
    assert result.exit_code == 2
    assert "either --training or --indexing" in result.stderr


def test_the_exit_code_beside_another_run_is_that_of_sysexits():
    assert os.EX_TEMPFAIL == BUSY
