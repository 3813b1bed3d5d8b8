"""Storage: complete or absent, also on a full disk, which a limit on the file size simulates."""

import errno
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from image_finder.components.errors import DataError, StorageError
from image_finder.components.storage import (
    disk_full,
    hash_directory,
    new_directory,
    sha256_of_bytes,
    write_errors,
    write_text_atomically,
)
from tests.support.checkout import CHECKOUT


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.posix
def test_a_new_directory_appears_complete(tmp_path):
    with new_directory(tmp_path / "a" / "b") as folder:
        (folder / "x").write_text("1")
        assert not (tmp_path / "a" / "b").exists()
    assert names(tmp_path) == ["a", "a/b", "a/b/x"]
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o755


def test_a_directory_is_replaced_as_a_whole(tmp_path):
    for content in ("old", "new"):
        with new_directory(tmp_path / "d") as folder:
            (folder / content).write_text(content)
    assert names(tmp_path) == ["d", "d/new"]


@pytest.mark.parametrize("interruption", [DataError("no"), KeyboardInterrupt(), OSError("odd")])
def test_an_interrupted_directory_leaves_nothing_and_the_old_one_stays(tmp_path, interruption):
    with new_directory(tmp_path / "d") as folder:
        (folder / "x").write_text("old")
    with pytest.raises(type(interruption)), new_directory(tmp_path / "d") as folder:
        (folder / "x").write_text("new")
        raise interruption
    assert names(tmp_path) == ["d", "d/x"]
    assert (tmp_path / "d" / "x").read_text() == "old"


def test_a_file_in_the_way_of_a_folder_is_a_one_line_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file" / "d", tmp_path / "file" / "d" / "e"):
        with pytest.raises(
            StorageError, match=r"^cannot write \S+: [^;\n]*; nothing was changed there, check the path"
        ):
            write_text_atomically(path, "x")
        with pytest.raises(StorageError, match=r"^cannot write \S+: [^;\n]*; nothing was changed"), new_directory(path):
            pass
    assert (tmp_path / "file").read_text() == "mine"


def test_a_directory_in_the_way_of_a_file_stays(tmp_path):
    (tmp_path / "d" / "x").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"^cannot write \S+: Is a directory"):
        write_text_atomically(tmp_path / "d", "x")
    assert names(tmp_path) == ["d", "d/x"]


def test_a_name_that_is_too_long_is_a_one_line_error(tmp_path):
    with pytest.raises(StorageError, match=r"^cannot write \S+: File name too long"):
        write_text_atomically(tmp_path / ("n" * 300), "x")


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(FileNotFoundError), write_errors(tmp_path):
        (tmp_path / "absent").read_text()
    with pytest.raises(ValueError, match="os error"), write_errors(tmp_path):
        raise ValueError("os error 28, but in another form")


def test_a_copy_of_a_folder_that_does_not_fit_is_a_one_line_error(tmp_path):
    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), source)

    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "a").write_bytes(b"x")
    with (
        pytest.raises(StorageError, match="No space left on device; nothing was changed there, free some space"),
        write_errors(tmp_path / "to"),
    ):
        shutil.copytree(tmp_path / "from", tmp_path / "to", copy_function=full)


def test_a_text_is_replaced_as_a_whole(tmp_path):
    write_text_atomically(tmp_path / "t", "old")
    write_text_atomically(tmp_path / "t", "naïve 鳥")
    assert (tmp_path / "t").read_text(encoding="utf-8") == "naïve 鳥"
    assert names(tmp_path) == ["t"]


def test_hash_directory_hashes_every_file(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_bytes(b"1")
    (tmp_path / "a").write_bytes(b"")
    assert hash_directory(tmp_path) == {"a": sha256_of_bytes(b""), "b/x": sha256_of_bytes(b"1")}


WRITERS = {
    "bytes": "(folder / 'f').write_bytes(bytes(400_000))",
    "numpy": "import numpy; numpy.save(folder / 'f.npy', numpy.zeros(400_000))",
    "numpy_zip": "import numpy; numpy.savez(folder / 'f.npz', x=numpy.zeros(400_000))",
    "safetensors": "import numpy; from safetensors.numpy import save_file; "
    "save_file({'x': numpy.zeros(400_000)}, folder / 'f.safetensors')",
    "pyarrow": "import numpy, pyarrow, pyarrow.parquet; "
    "pyarrow.parquet.write_table(pyarrow.table({'x': numpy.random.rand(400_000)}), folder / 'f.parquet')",
    "onnx": "import numpy, onnx; onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], 'g', [], [], "
    "[onnx.numpy_helper.from_array(numpy.zeros(400_000), 'x')])), folder / 'f.onnx')",
}


@pytest.mark.posix
@pytest.mark.parametrize("writer", WRITERS)
def test_when_nothing_more_can_be_written_the_old_artefact_stays_and_one_line_says_so(tmp_path, writer):
    with new_directory(tmp_path / "d") as folder:
        np.save(folder / "x.npy", np.arange(3))
    before = hash_directory(tmp_path)
    program = f"""
import resource, sys
from pathlib import Path
from image_finder.components.errors import StorageError
from image_finder.components.storage import new_directory
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with new_directory(Path(sys.argv[1])) as folder:
        {WRITERS[writer]}
except StorageError as error:
    print(error)
"""
    root = CHECKOUT
    command = [sys.executable, "-c", program, str(tmp_path / "d")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=60)
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"cannot write {tmp_path / 'd'}: ")
    assert line.endswith("; nothing was changed there, free some space and run again")
    assert hash_directory(tmp_path) == before


def full_database(folder):
    """The error SQLite raises when its file cannot grow."""
    with closing(sqlite3.connect(folder / "full.db")) as store:
        store.execute("CREATE TABLE t (x)")
        store.execute("PRAGMA max_page_count = 2")
        try:
            store.execute("INSERT INTO t VALUES (zeroblob(100000))")
        except sqlite3.Error as error:
            return error


def test_a_full_disk_is_found_behind_the_errors_of_libraries(tmp_path):
    def wrapped(cause):
        try:
            raise RuntimeError("step failed") from cause
        except RuntimeError as error:
            return error

    for cause in (full_database(tmp_path), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))):
        line = str(disk_full(wrapped(cause), tmp_path))
        assert re.fullmatch(
            r"disk full: \S+ has [\d,]+\.\d MB free, No space left on device; free space and run the same command again",
            line,
        )
    named = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "new" / "file"))
    assert str(disk_full(wrapped(named), Path("/"))).startswith(f"disk full: {tmp_path}/new/file has ")
    assert disk_full(wrapped(ValueError("no space")), tmp_path) is None
    assert disk_full(wrapped(PermissionError(errno.EACCES, "denied")), tmp_path) is None


@pytest.mark.linux
def test_a_full_device_is_a_one_line_error(tmp_path):
    with (
        pytest.raises(StorageError, match="No space left on device; nothing was changed there, free some space"),
        new_directory(tmp_path / "d") as folder,
    ):
        (folder / "full").symlink_to("/dev/full")
        (folder / "full").write_text("x")
    assert names(tmp_path) == []


@pytest.mark.posix
def test_a_folder_that_may_not_be_written_to_is_a_one_line_error(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    program = """
import os, sys
from pathlib import Path
from image_finder.components.storage import new_directory
if os.getuid() == 0:
    os.setuid(65534)
try:
    with new_directory(Path(sys.argv[1])):
        pass
except Exception as error:
    print(type(error).__name__, error)
"""
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:3]:
        if os.access(parent, os.W_OK) and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    root = CHECKOUT
    command = [sys.executable, "-c", program, str(tmp_path / "locked" / "d")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith(f"StorageError cannot write {tmp_path / 'locked' / 'd'}: Permission denied; ")
