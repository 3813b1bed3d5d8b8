"""Temporaries: what a killed writer leaves is removed by the next one, and nothing else is."""

import os
import signal
import subprocess
import sys
import time

import pytest

from image_finder.components.library.library import Library
from image_finder.components.storage import new_directory, new_file, write_text_atomically
from image_finder.components.temporaries import process_directory, remove_leftovers, scratch_directory
from tests.support.checkout import CHECKOUT

WRITER = """
import os, random, signal, sys, time
from pathlib import Path
import pyarrow as pa
from image_finder.components.app.api.thumbnails import _store
from image_finder.components.storage import new_directory, write_bytes_atomically, write_table_atomically
from image_finder.components.temporaries import temporary_directory

home, kills, chance = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
table = pa.table({"x": list(range(1000))})

def write_all():
    write_bytes_atomically(home / "CURRENT", bytes(100_000))
    write_table_atomically(home / "rows.parquet", table)
    _store(home / "thumbnails" / "ab" / "abcd.jpg", bytes(10_000))
    for name in ("bundle", "index"):
        with new_directory(home / name) as folder:
            for i in range(3):
                (folder / str(i)).write_bytes(bytes(10_000))
    with temporary_directory(home / "scratch") as folder:
        (folder / "x").touch()

def left():
    return sum(path.name.startswith(".") for path in home.rglob("*"))

done = 0
while done < kills or (not left() and done < 20 * kills):  # the last kill may hit a child between two writes
    done += 1
    child = os.fork()
    if child == 0:
        while True:
            write_all()
    time.sleep(0.02 + chance.random() / 10)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
print(left())
write_all()
"""


def python(program, *arguments):
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.posix
def test_after_kills_at_random_instants_one_writer_leaves_its_files_alone(tmp_path):
    done = python(WRITER, tmp_path, 30, 5)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0, "the last one left something before the next wrote"
    inside = [f"{name}{end}" for name in ("bundle", "index") for end in ("", "/0", "/1", "/2")]
    assert names(tmp_path) == sorted(
        ["CURRENT", "rows.parquet", "thumbnails", "thumbnails/ab", "thumbnails/ab/abcd.jpg", *inside]
    )


def test_a_living_writer_keeps_its_temporaries(tmp_path):
    program = (
        "import sys; from pathlib import Path\nfrom image_finder.components.storage import new_directory, new_file\n"
    )
    program += "for path in map(Path, sys.argv[1:]):\n    with new_file(path): pass\n"
    with (
        new_file(tmp_path / "a") as stream,
        new_directory(tmp_path / "b") as folder,
        scratch_directory() as scratch,
    ):
        stream.write(b"mine")
        yesterday = time.time() - 48 * 3600
        for path in (folder, scratch):
            os.utime(path, (yesterday, yesterday))
        assert python(program, tmp_path / "c", scratch.parent / tmp_path.name).returncode == 0
        (scratch.parent / tmp_path.name).unlink()
        remove_leftovers(tmp_path)
        assert scratch.is_dir()
    assert names(tmp_path) == ["a", "b", "c"]
    assert (tmp_path / "a").read_bytes() == b"mine"
    assert not scratch.exists()


@pytest.mark.posix
def test_a_directory_whose_writer_was_killed_between_two_renames_is_restored(tmp_path):
    with new_directory(tmp_path / "d") as folder:
        (folder / "old").touch()
    program = """
import os, signal, sys
from pathlib import Path
from image_finder.components.storage import new_directory, write_bytes_atomically, write_table_atomically
renames = []

def kill(event, arguments):
    if event == "os.rename":
        renames.append(event)
        if len(renames) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
with new_directory(Path(sys.argv[1])) as folder:
    (folder / "new").touch()
"""
    assert python(program, tmp_path / "d").returncode == -signal.SIGKILL
    assert not (tmp_path / "d").exists()
    write_text_atomically(tmp_path / "other", "x")
    assert names(tmp_path) == ["d", "d/old", "other"]


@pytest.mark.posix
def test_process_directories_are_removed_with_their_process_or_by_the_next_one(tmp_path):
    program = (
        "import os, signal, sys; from pathlib import Path\nfrom image_finder.components.temporaries import process_directory\n"
        "(process_directory(Path(sys.argv[1])) / 'x').touch()\nprint(len(os.listdir(sys.argv[1])), flush=True)\n"
    )
    assert python(program, tmp_path).stdout == "1\n"
    assert names(tmp_path) == []
    python(program + "os.kill(os.getpid(), signal.SIGKILL)", tmp_path)
    assert len(names(tmp_path)) == 2
    own = process_directory(tmp_path)
    assert list(tmp_path.iterdir()) == [own]


@pytest.mark.parametrize("age_s", [0, 48 * 3600])
def test_temporaries_that_were_never_locked_are_removed_only_when_old(tmp_path, age_s):
    """Earlier versions named them so; other programs use similar names."""
    library = Library(tmp_path)
    ours = [
        tmp_path / ".writer.json.ab12cd_x",
        tmp_path / "index" / ".CURRENT.zzzzzzzz",
        tmp_path / "bundles" / f".{'0af1' * 4}.12345678" / "x",
    ]
    others = [tmp_path / ".config.settings", tmp_path / ".writer.json", tmp_path / ".notes.ab12cd_x.tmp"]
    for path in ours + others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        for each in (path, path.parent):
            os.utime(each, (time.time() - age_s,) * 2)
    with library.writing():
        assert [path.exists() for path in ours] == [age_s == 0] * 3
        assert all(path.exists() for path in others)


def test_a_missing_parent_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        process_directory(tmp_path / "absent")
    remove_leftovers(tmp_path / "absent")
