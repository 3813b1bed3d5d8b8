import os
from pathlib import Path

import pytest

from image_finder.components.errors import StorageError
from image_finder.components.index.generations import (
    POINTER,
    current_generation,
    is_published_root,
    new_generation,
    point_to,
)


def write(root, text):
    with new_generation(root) as folder:
        (folder / "content").write_text(text)


def test_the_last_generation_is_current_and_the_previous_one_is_kept(tmp_path):
    names = []
    for text in ("one", "two", "three"):
        write(tmp_path, text)
        assert (current_generation(tmp_path) / "content").read_text() == text
        names.append(current_generation(tmp_path).name)
    assert sorted(path.name for path in (tmp_path / "generations").iterdir()) == names[1:]
    assert [name.split("-")[0] for name in names] == ["00000001", "00000002", "00000003"]


def test_a_generation_that_windows_keeps_open_is_removed_by_a_later_writer(tmp_path, monkeypatch):
    write(tmp_path, "one")
    opened = current_generation(tmp_path) / "content"
    unlink = os.unlink

    def refuse(name, **options):
        if Path(name).name == "content":
            raise PermissionError(13, "Access is denied")
        unlink(name, **options)

    with monkeypatch.context() as windows:
        windows.setattr(os, "unlink", refuse)
        for text in ("two", "three"):
            write(tmp_path, text)
            assert opened.read_text() == "one"
            assert (current_generation(tmp_path) / "content").read_text() == text
    write(tmp_path, "four")
    assert not opened.parent.exists()


def test_a_generation_that_fails_changes_nothing(tmp_path):
    write(tmp_path, "one")
    before = current_generation(tmp_path)

    def failing():
        with new_generation(tmp_path) as folder:
            (folder / "content").write_text("half")
            raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        failing()
    assert current_generation(tmp_path) == before
    assert [path.name for path in (tmp_path / "generations").iterdir()] == [before.name]


def test_leftovers_of_a_killed_writer_are_removed_by_the_next(tmp_path):
    write(tmp_path, "one")
    (tmp_path / "generations" / ".00000002-aaaaaaaa.x1").mkdir()
    write(tmp_path, "two")
    assert all(not path.name.startswith(".") for path in (tmp_path / "generations").iterdir())


def test_an_earlier_generation_can_be_made_current_and_survives_the_next(tmp_path):
    write(tmp_path, "one")
    first = current_generation(tmp_path)
    write(tmp_path, "two")
    point_to(tmp_path, first.name)
    assert current_generation(tmp_path) == first
    write(tmp_path, "three")
    assert (current_generation(tmp_path) / "content").read_text() == "three"
    with pytest.raises(StorageError, match="has no generation 'nine'; it has 0"):
        point_to(tmp_path, "nine")


@pytest.mark.parametrize("content", [b"", b"../../etc", b"00000001-zzzzzzzz", b"\xff\xfe"])
def test_a_damaged_pointer_is_a_one_line_error(tmp_path, content):
    write(tmp_path, "one")
    (tmp_path / POINTER).write_bytes(content)
    with pytest.raises(StorageError, match="publish it"):
        current_generation(tmp_path)


def test_a_folder_without_a_pointer_is_not_published(tmp_path):
    assert not is_published_root(tmp_path)
    with pytest.raises(StorageError, match="nothing is published at"):
        current_generation(tmp_path)
