"""The environment file is read back unchanged, also by a shell, and only by its owner."""

import os
import stat
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_finder.components.errors import ConfigError, StorageError
from image_finder.pipelines.scheduling import environment_file

AWKWARD = "x \"y\" $HOME `id` \\ 100% #c 's' é ; & | ( ) ! ~ "


def test_this_program_and_a_shell_read_back_the_same_values(tmp_path):
    values = {"IMAGE_FINDER_ALERTS": AWKWARD, "EMPTY": "", "PLAIN": "a/b:c@d"}
    environment_file.write(tmp_path / "environment", values)
    assert environment_file.read(tmp_path / "environment") == values
    printed = subprocess.run(
        ["sh", "-c", '. "$0"; printf %s "$IMAGE_FINDER_ALERTS"', str(tmp_path / "environment")],
        capture_output=True,
        check=True,
    )
    assert printed.stdout.decode() == AWKWARD


@settings(max_examples=50, deadline=None)
@given(value=st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"])))
def test_any_line_of_text_survives(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("e") / "environment"
    environment_file.write(path, {"A": value})
    assert environment_file.read(path) == {"A": value}


def test_the_file_is_created_for_its_owner_only_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        environment_file.write(tmp_path / "environment", {"A": "secret"})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "environment").stat().st_mode) == 0o600


def test_an_existing_file_is_never_overwritten(tmp_path):
    environment_file.write(tmp_path / "environment", {"A": "first"})
    with pytest.raises(StorageError, match="File exists"):
        environment_file.write(tmp_path / "environment", {"A": "second"})
    assert environment_file.read(tmp_path / "environment") == {"A": "first"}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_that_others_may_read_is_refused_with_the_remedy(tmp_path, mode):
    environment_file.write(tmp_path / "environment", {"A": "secret"})
    (tmp_path / "environment").chmod(mode)
    with pytest.raises(ConfigError, match=f"mode {mode:04o}.*chmod 600"):
        environment_file.read(tmp_path / "environment")


@pytest.mark.parametrize(
    "line", ["A=secret words", "A='secret'", 'A="secret"x', "export A=secret", "A=secret\\", "A=$secret", 'A="secr$et"']
)
def test_a_line_that_systemd_and_a_shell_read_differently_is_refused_without_its_value(tmp_path, line):
    path = tmp_path / "environment"
    path.write_text(f"# comment\n\n{line}\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="line 3") as refused:
        environment_file.read(path)
    assert "secr" not in str(refused.value)


def test_a_value_with_a_line_break_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="A contains a line break"):
        environment_file.write(tmp_path / "environment", {"A": "x\ny"})
    assert not (tmp_path / "environment").exists()
    with pytest.raises(StorageError, match="cannot be read: No such file"):
        environment_file.read(tmp_path / "environment")
