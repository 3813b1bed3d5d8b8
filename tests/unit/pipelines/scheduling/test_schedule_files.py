"""systemd units and crontab lines, as read by a shell, cron and systemd."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from image_finder.components.errors import ConfigError
from image_finder.pipelines.scheduling.machine_schedule import Job, crontab_entry, systemd_units

AWKWARD = ("a b", "100%", 'q"q', "it's", "$HOME", "${HOME}", "%h %%", ";", "é", "-x", "@y", "*", "", "#1", "a\\b")
SYSTEMD = Path("/lib/systemd/systemd")
needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze") and not os.environ.get("CI"), reason="systemd is not installed"
)


@pytest.fixture
def program(tmp_path):
    """A program that writes its arguments to a file, in an awkwardly named folder; and the file."""
    folder = tmp_path / "bin 100% $HOME é"
    folder.mkdir()
    path, written = folder / "image finder", tmp_path / "words"
    path.write_text(f"#!/bin/sh\nfor word do printf '%s\\0' \"$word\"; done > {shlex.quote(str(written))}\nexit 3\n")
    path.chmod(0o755)
    return str(path), written


def job(program="/usr/bin/image-finder", arguments=("--data", "/d"), environment="/e/environment", **changes):
    made = Job(
        name="image-finder-retrain",
        description="Retrain 100% of it",
        command=(program, "pipeline", "retrain", *arguments),
        alert=(program, "pipeline", "alert"),
        environment_file=Path(environment),
        user="root",
        max_hours=5,
    )
    return made._replace(**changes)


def settings_of(text):
    return [line for line in text.splitlines() if "=" in line]


def test_a_timer_starts_at_each_time_and_makes_up_for_a_missed_run():
    units = systemd_units(job(), ["*-*-13 04:00:00 UTC", "Fri *-*-* 04:00:00 UTC"])
    assert set(units) == {
        "image-finder-retrain.service",
        "image-finder-retrain.timer",
        "image-finder-retrain-died.service",
    }
    timer = settings_of(units["image-finder-retrain.timer"])
    assert [line for line in timer if line.startswith("OnCalendar")] == [
        "OnCalendar=*-*-13 04:00:00 UTC",
        "OnCalendar=Fri *-*-* 04:00:00 UTC",
    ]
    assert "Persistent=true" in timer


def test_a_service_has_a_time_limit_an_environment_file_and_an_alert_if_it_is_killed():
    units = systemd_units(job(environment="/srv/a 5% b/environment"), ["*-*-* 04:00:00 UTC"])
    service = settings_of(units["image-finder-retrain.service"])
    assert "Type=oneshot" in service
    assert "TimeoutStartSec=5h" in service
    assert "EnvironmentFile=/srv/a 5%% b/environment" in service
    assert "OnFailure=image-finder-retrain-died.service" in service
    assert 'ExecStart=:"/usr/bin/image-finder" "pipeline" "alert" "--of-service"' in settings_of(
        units["image-finder-retrain-died.service"]
    )


@needs_systemd
def test_systemd_finds_no_fault_in_the_units(tmp_path, program):
    path, _ = program
    for name, text in systemd_units(job(path, AWKWARD), ["Mon *-*-* 03:30:00 Europe/Zurich"]).items():
        (tmp_path / name).write_text(text)
    verified = subprocess.run(
        ["systemd-analyze", "verify", *sorted(map(str, tmp_path.glob("image-finder*")))],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in verified.stderr.splitlines() if "image-finder" in line] == []
    assert verified.returncode == 0


@needs_systemd
def test_systemd_passes_every_argument_unchanged(tmp_path, program):
    path, _ = program
    folder = tmp_path / "units"
    folder.mkdir()
    for name, text in systemd_units(job(path, AWKWARD, "/srv/a 5% b/e"), ["*-*-* 03:30:00 UTC"]).items():
        (folder / name).write_text(text)
    for each in (tmp_path, *tmp_path.parents, folder, *folder.iterdir()):
        if tmp_path.parents[2] in (each, *each.parents):
            each.chmod(each.stat().st_mode | 0o055)
    command = [str(SYSTEMD), "--system", "--test", "--unit=image-finder-retrain.service", "--log-target=console"]
    printed = subprocess.run(  # systemd loads the units and prints them; not as root
        command,
        env={"SYSTEMD_UNIT_PATH": f"{folder}:", "XDG_RUNTIME_DIR": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        user="nobody" if os.getuid() == 0 else None,
    ).stdout
    _, _, rest = printed.partition("Unit image-finder-retrain.service:")
    line = next(line for line in rest.splitlines() if "Command Line: " in line).partition("Command Line: ")[2]
    line = line.replace(" #", " \\#")  # printed without quotes
    words = subprocess.run(["sh", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True).stdout
    assert words.split("\0")[:-1] == [path, "pipeline", "retrain", *AWKWARD]
    assert "EnvironmentFile: /srv/a 5% b/e" in rest


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"program": "/opt/it's/image-finder"}, "path contains quotes or backslashes"),
        ({"arguments": ("--data", "/d\n/e")}, "contains a line break"),
        ({"environment": "/srv/[a]/e"}, "choose another path"),
        ({"environment": "/srv/a /e "}, "choose another path"),
        ({"user": "a b"}, "does not accept the user name"),
    ],
)
def test_what_systemd_cannot_represent_is_refused(changes, fault):
    with pytest.raises(ConfigError, match=fault):
        systemd_units(job(**changes), ["*-*-* 04:00:00 UTC"])


def as_cron_reads(line):
    """Command of a crontab line as cron reads it: a % needs a backslash, which cron removes."""
    command = line.split(" ", 5)[5]
    assert "%" not in command.replace("\\%", "")
    return command.replace("\\%", "%")


def test_a_crontab_line_passes_every_argument_and_alerts_with_the_exit_status(tmp_path, program):
    path, written = program
    plain = [word for word in AWKWARD if "\\" not in word]
    text = crontab_entry(job(path, plain, "/srv/a 5% b/e"), "30 3 * * 1", zone="UTC", log=tmp_path / "log 5%")
    begin, line, end, rest = text.split("\n")
    assert begin.startswith("# image-finder-retrain: begin. Times are UTC")
    assert (end, rest) == ("# image-finder-retrain: end", "")
    assert line.startswith("30 3 * * 1 (nice -n 10 ")
    first = as_cron_reads(line).partition(" || ")[0] + ")"
    subprocess.run(["/bin/sh", "-c", first], check=False)
    assert written.read_text().split("\0")[:-1] == ["pipeline", "retrain", *plain, "--environment", "/srv/a 5% b/e"]
    subprocess.run(["/bin/sh", "-c", as_cron_reads(line)], check=False)
    words = ["pipeline", "alert", "--environment", "/srv/a 5% b/e", "--exit-status", "3"]
    assert written.read_text().split("\0")[:-1] == words
    assert (tmp_path / "log 5%").is_file()


@pytest.mark.parametrize("word", ["a\\b", "a\nb", "x" * 1000])
def test_what_a_crontab_cannot_represent_is_refused(word):
    with pytest.raises(ConfigError, match="use systemd"):
        crontab_entry(job(arguments=(word,)), "30 3 * * 1", zone="UTC", log=Path("/log"))
