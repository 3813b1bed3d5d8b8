import os
from pathlib import Path

import pytest

from image_finder.components.app.commands.serve_command import read_token
from image_finder.components.errors import ConfigError

pytestmark = pytest.mark.posix

TOKEN = "correct-horse-battery-staple"


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "the token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


def test_a_token_is_read_from_a_private_file(token_file):
    for mode in (0o600, 0o400):
        token_file.chmod(mode)
        assert read_token(token_file) == TOKEN


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o666])
def test_a_token_file_accessible_to_others_is_refused_with_the_command_to_fix_it(token_file, mode):
    token_file.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        read_token(token_file)
    assert f"is readable by others (mode {mode:04o}). Run: chmod 600 '{token_file}'" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_link_is_checked_by_its_target(token_file, tmp_path):
    (tmp_path / "link").symlink_to(token_file)  # whose own mode is 0777
    assert read_token(tmp_path / "link") == TOKEN
    token_file.chmod(0o644)
    with pytest.raises(ConfigError, match="is readable by others"):
        read_token(tmp_path / "link")


def test_a_mounted_secret_may_be_group_readable_but_not_world_readable(token_file, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: token_file.stat().st_uid + 1)
    token_file.chmod(0o440)
    assert read_token(token_file) == TOKEN
    token_file.chmod(0o444)
    with pytest.raises(ConfigError, match="for a mounted secret, set mode 0440"):
        read_token(token_file)


def test_a_token_can_come_through_a_pipe():
    reading, writing = os.pipe()
    os.write(writing, TOKEN.encode())
    os.close(writing)
    try:
        assert read_token(Path(f"/dev/fd/{reading}")) == TOKEN
    finally:
        os.close(reading)


def test_an_empty_or_binary_token_file_is_refused(token_file):
    for content, message in ((b" \n", "is empty"), (b"\xff\xfe", "could not read")):
        token_file.write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            read_token(token_file)
