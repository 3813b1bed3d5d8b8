"""System: each branch, by substituting the name of the system and what only that system has."""

import errno
import io
import os
import socket
import stat
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from image_finder.components import system
from image_finder.components.storage import new_directory, new_file, write_text_atomically
from image_finder.components.temporaries import process_directory, remove_leftovers, temporary_directory, temporary_file

Fake: Any = SimpleNamespace  # an object of any type, with the few attributes that a test needs


@pytest.fixture(params=["linux", "darwin", "win32"])
def on_each(request, monkeypatch):
    if os.name == "nt" and request.param != "win32":
        pytest.skip("Windows lacks what the other branches call")
    monkeypatch.setattr(sys, "platform", request.param)
    return request.param


@pytest.fixture
def on_windows(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")


def pointing(path):
    path.parent.mkdir(parents=True)
    path.touch()
    return path


# Processor and processes


def test_cores_are_those_of_the_process_where_the_system_knows_them(on_each, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 4}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert system.available_cores() == (3 if on_each == "linux" else 8)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert system.available_cores() == (3 if on_each == "linux" else 1)


def test_an_nvidia_driver_of_windows_is_a_library(on_windows, tmp_path, monkeypatch):
    monkeypatch.setenv("SYSTEMROOT", str(tmp_path))
    assert not system.has_nvidia_driver()
    pointing(tmp_path / "System32" / "nvcuda.dll")
    assert system.has_nvidia_driver()


def test_a_child_yields_by_its_flags_on_windows_and_by_its_priority_elsewhere(on_each, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "setpriority", lambda *values: calls.append(values), raising=False)
    monkeypatch.setattr(os, "PRIO_PROCESS", 0, raising=False)
    system.lower_priority(77)
    on_windows = on_each == "win32"
    assert (bool(system.background_flags()), calls) == (on_windows, [] if on_windows else [(0, 77, 10)])


def test_a_child_that_has_ended_keeps_its_priority(monkeypatch):
    def gone(*_):
        raise ProcessLookupError

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "setpriority", gone, raising=False)
    monkeypatch.setattr(os, "PRIO_PROCESS", 0, raising=False)
    system.lower_priority(77)


@pytest.mark.parametrize("fault", [KeyError("uid"), OSError("no user"), ImportError("pwd")])
def test_an_account_without_a_name_is_a_number_or_unknown(on_each, monkeypatch, fault):
    def nameless():
        raise fault

    monkeypatch.setattr("getpass.getuser", nameless)
    monkeypatch.setattr(os, "getuid", lambda: 1234, raising=False)
    assert system.account() == ("unknown" if on_each == "win32" else "1234")


def test_what_windows_lacks_is_one_line_with_the_command_that_helps():
    assert str(system.posix_only("supervised runs")) == (
        "supervised runs need signals and processes that Windows lacks; run them in WSL: wsl --install"
    )


def test_no_second_server_listens_on_a_port_of_windows(on_each, monkeypatch):
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", -5, raising=False)
    options = []
    system.reserve_address(Fake(setsockopt=lambda *values: options.append(values)))
    expected = -5 if on_each == "win32" else socket.SO_REUSEADDR
    assert options == [(socket.SOL_SOCKET, expected, 1)]


# Standard streams


@pytest.mark.parametrize(("number", "elsewhere", "windows"), [("EPIPE", 1, 1), ("EINVAL", 0, 1), ("ENOSPC", 0, 0)])
def test_a_pipe_without_reader_is_an_invalid_argument_on_windows(on_each, number, elsewhere, windows):
    error = OSError(getattr(errno, number), "refused")
    assert system.is_broken_pipe(error) == bool(windows if on_each == "win32" else elsewhere)


def test_only_consoles_of_windows_keep_their_stream(on_each):
    console = Fake(isatty=lambda: True)
    assert [system.is_console(stream) for stream in (console, io.StringIO(), None)] == [
        on_each == "win32",
        False,
        False,
    ]


# Files


def test_a_link_is_refused_on_each_system(on_each, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "O_BINARY", 0, raising=False)
    monkeypatch.setattr(os, "O_NOINHERIT", 0, raising=False)
    (tmp_path / "a").write_bytes(b"content")
    descriptor = system.open_without_links(tmp_path / "a")
    assert os.read(descriptor, 100) == b"content"
    os.close(descriptor)
    try:
        (tmp_path / "link").symlink_to(tmp_path / "a")
    except OSError:
        pytest.skip("this account may not make symbolic links")
    with pytest.raises(OSError, match="symbolic link"):
        system.open_without_links(tmp_path / "link")


@pytest.mark.parametrize("has_descriptors", [True, False])
def test_the_path_of_an_open_file_is_read_from_the_system_or_compared(tmp_path, monkeypatch, has_descriptors):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    with (tmp_path / "a").open("rb") as stream:
        if has_descriptors:
            if not system._DESCRIPTORS.is_dir():
                pytest.skip("this system has no /proc")
            assert system.opened_path(stream.fileno(), tmp_path / "b") == tmp_path / "a"
            return
        monkeypatch.setattr(system, "_DESCRIPTORS", tmp_path / "absent")
        assert system.opened_path(stream.fileno(), tmp_path / "a") == tmp_path / "a"
        assert system.opened_path(stream.fileno(), tmp_path / "b") is None


def test_directories_are_synced_except_on_windows(on_each, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    opened, synced = [], []
    open_, fsync = os.open, os.fsync
    monkeypatch.setattr(os, "open", lambda path, flags, **more: opened.append(flags) or open_(path, flags, **more))
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(descriptor) or fsync(descriptor))
    for path in (tmp_path, tmp_path / "file"):
        system.sync(path)
    expected = [os.O_RDWR] if on_each == "win32" else [os.O_RDONLY, os.O_RDONLY]
    assert (opened, len(synced)) == (expected, len(expected))


class Busy:
    """A path that another process has open for the first calls."""

    def __init__(self, refusals):
        self.refusals = refusals
        self.calls = 0

    def replace(self, target):
        self.calls += 1
        if self.calls <= self.refusals:
            raise PermissionError(errno.EACCES, "Access is denied")
        return target

    rename = replace

    def read_text(self, encoding):
        return f"{self.replace('text')} in {encoding}"


def busy(refusals) -> Any:
    """Busy instead of a Path."""
    return Busy(refusals)


def test_windows_waits_until_an_open_file_can_be_replaced(on_windows):
    for action in (lambda: system.replace(busy(2), Path("x")), lambda: system.rename(busy(2), Path("x"))):
        action()
    assert system.read_replaced(busy(2)) == "text in utf-8"


def test_windows_gives_up_after_a_while_and_others_at_once(on_each, monkeypatch):
    monkeypatch.setattr(system, "_RETRY_S", 0.1)
    path = busy(10**9)
    with pytest.raises(PermissionError) as raised:
        system.replace(path, Path("x"))
    assert (path.calls > 1, system.is_in_use(raised.value)) == (on_each == "win32",) * 2


@pytest.mark.parametrize(
    ("mode", "owner", "readable"), [(0o600, 5, 0), (0o640, 5, 1), (0o604, 5, 1), (0o640, 0, 0), (0o644, 0, 1)]
)
def test_modes_tell_who_can_read_a_file_except_on_windows(on_each, monkeypatch, mode, owner, readable):
    monkeypatch.setattr(os, "geteuid", lambda: 5, raising=False)
    status = Fake(st_uid=owner, st_mode=stat.S_IFREG | mode)
    assert system.readable_by_others(status) == bool(readable and on_each != "win32")


@pytest.mark.parametrize(("symbolic", "tag", "elsewhere", "windows"), [(1, 0, 1, 1), (0, 9, 0, 1), (0, 8, 0, 0)])
def test_a_junction_of_windows_is_a_link(on_each, monkeypatch, symbolic, tag, elsewhere, windows):
    monkeypatch.setattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", 9, raising=False)
    entry = Fake(is_symlink=lambda: bool(symbolic), stat=lambda follow_symlinks: SimpleNamespace(st_reparse_tag=tag))
    assert system.is_link(entry) == bool(windows if on_each == "win32" else elsewhere)


def test_an_open_file_is_locked_once(tmp_path):
    (tmp_path / "file").touch()
    descriptors = [os.open(tmp_path / "file", os.O_RDWR) for _ in range(2)]
    assert [system.lock(each) for each in descriptors] == [True, False]
    for each in descriptors:
        os.close(each)


def test_windows_locks_the_first_byte(on_windows, monkeypatch):
    locked = []

    def locking(descriptor, mode, n_bytes):
        if locked:
            raise PermissionError(errno.EACCES, "Permission denied")
        locked.append((descriptor, mode, n_bytes))

    monkeypatch.setattr(system, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2), raising=False)
    assert [system.lock(7), system.lock(8)] == [True, False]
    assert locked == [(7, 2, 1)]


# Temporaries where directories cannot be locked


@pytest.fixture
def locks_beside(monkeypatch):
    monkeypatch.setattr(system, "keeps_locks_on_directories", lambda: False)


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_only_windows_locks_a_file_beside(on_each):
    assert system.keeps_locks_on_directories() == (on_each != "win32")


@pytest.mark.usefixtures("locks_beside")
def test_files_and_directories_are_written_with_a_lock_beside(tmp_path):
    write_text_atomically(tmp_path / "a", "first")
    write_text_atomically(tmp_path / "a", "second")
    for name in ("old", "new"):
        with new_directory(tmp_path / "d") as folder:
            assert sorted(path.suffix for path in tmp_path.iterdir() if path.name[:3] == ".d.") == [
                ".if-lock",
                ".if-tmp",
            ]
            (folder / name).touch()
    assert (tmp_path / "a").read_text(encoding="utf-8") == "second"
    assert names(tmp_path) == ["a", "d", "d/new"]
    with pytest.raises(ZeroDivisionError), new_file(tmp_path / "b"):
        raise ZeroDivisionError
    assert names(tmp_path) == ["a", "d", "d/new"]


@pytest.mark.usefixtures("locks_beside")
def test_a_living_writer_with_a_lock_beside_keeps_its_temporaries(tmp_path):
    yesterday = (time.time() - 48 * 3600,) * 2
    with temporary_file(tmp_path / "a") as (stream, temporary), temporary_directory(tmp_path / "d") as folder:
        for path in (temporary, folder):
            os.utime(path, yesterday)
        remove_leftovers(tmp_path)
        assert temporary.exists()
        assert folder.is_dir()
        stream.write(b"x")
    assert names(tmp_path) == []
    own = process_directory(tmp_path)
    assert own.is_dir()


@pytest.mark.usefixtures("locks_beside")
def test_the_next_writer_removes_leftovers_of_ended_writers_with_a_lock_beside(tmp_path):
    (tmp_path / ".a.12345678.if-lock").touch()
    (tmp_path / ".a.12345678.if-tmp").touch()
    (tmp_path / ".b.12345678.if-tmp").mkdir()  # its lock was removed last
    (tmp_path / ".c.12345678.if-lock").touch()
    (tmp_path / ".d.12345678.if-lock").touch()
    (tmp_path / ".d.12345678.if-old" / "d").mkdir(parents=True)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["d"]


# Paths


@pytest.mark.parametrize(
    ("path", "elsewhere", "windows"),
    [("C:\\a\\b.jpg", b"C:\\a\\b.jpg", b"C:/a/b.jpg"), ("a/b", b"a/b", b"a/b"), ("s3://b/c", b"s3://b/c", b"s3://b/c")],
)
def test_stored_paths_have_forward_slashes(on_each, path, elsewhere, windows):
    assert system.path_bytes(path) == (windows if on_each == "win32" else elsewhere)


@pytest.mark.parametrize(
    ("folder", "elsewhere", "windows"),
    [(b"/", b"/", b"/"), (b"C:/", b"C:", b"C:/"), (b"C:/a/", b"C:/a", b"C:/a"), (b"//s/t/", b"//s/t", b"//s/t")],
)
def test_the_root_of_a_drive_keeps_its_slash(on_each, folder, elsewhere, windows):
    assert system.without_slash(folder) == (windows if on_each == "win32" else elsewhere)


def test_all_files_begin_with_nothing_on_windows(on_each):
    folder, base = system.all_files()
    path = b"C:/a/b.jpg" if on_each == "win32" else b"/a/b.jpg"
    assert path.startswith(base)
    assert os.fsencode(Path(folder, os.fsdecode(path[len(base) :]))) == path


@pytest.mark.parametrize(
    ("path", "folder", "relative"),
    [
        ("C:\\a\\c\\x.json", "C:\\a\\b", "../c/x.json"),
        ("c:\\A\\b\\x", "C:\\a", "b/x"),
        ("D:\\c\\x.json", "C:\\a\\b", "D:/c/x.json"),
    ],
)
def test_relative_paths_of_windows_stay_absolute_on_another_drive(on_windows, path, folder, relative):
    assert system.relative_path(path, folder) == relative


def test_relative_paths_elsewhere(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    assert system.relative_path(os.path.join("a", "c", "x"), os.path.join("a", "b")) == os.path.join("..", "c", "x")  # noqa: PTH118


@pytest.mark.posix
def test_macos_resolves_a_path_to_the_spelling_of_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    calls = []
    fake = SimpleNamespace(F_GETPATH=50, fcntl=lambda *values: calls.append(values[1:]) or b"/Users/Ada/Images\0\0")
    monkeypatch.setattr(system, "fcntl", fake, raising=False)
    assert system.resolved(tmp_path) == Path("/Users/Ada/Images")
    assert calls == [(50, bytes(1024))]
    assert system.resolved(tmp_path / "absent") == tmp_path.resolve() / "absent"


def test_a_long_path_of_windows_gets_a_prefix(on_each):
    short, long = b"C:/a.jpg", b"C:/" + b"d" * 200 + b"/" + b"e" * 100 + b".jpg"
    share = b"//server/share/" + b"d" * 250 + b"/"
    prefixed = b"\\\\?\\" + long.replace(b"/", b"\\")
    unc = b"\\\\?\\UNC\\server\\share\\" + b"d" * 250 + b"\\"
    expected = [short, prefixed, unc, prefixed] if on_each == "win32" else [short, long, share, prefixed]
    assert [system.openable(path) for path in (short, long, share, prefixed)] == expected
    paths = [Path(os.fsdecode(path)) for path in (short, long)]
    assert [str(system.openable_path(path)) for path in paths] == [
        os.fsdecode(path) if path.startswith(b"\\") else str(Path(os.fsdecode(path))) for path in expected[:2]
    ]


@pytest.mark.parametrize("name", ["con", "NUL.jpg", "com1.tar.gz", "Aux .png", "a?.jpg", "a:b", "end.", "end "])
def test_names_that_windows_reserves_are_refused_only_there(on_each, name):
    assert system.refused_name(name) == (on_each == "win32")
    assert not any(map(system.refused_name, ["console.jpg", "com10.png", "a b.jpg", ".hidden"]))


def test_a_file_uri_of_windows_names_a_drive(on_each):
    expected = "C:/images" if on_each == "win32" else "/C:/images"
    assert system.path_of_file_uri("/C:/images") == Path(expected)
    assert system.path_of_file_uri("/srv/images") == Path("/srv/images")


@pytest.mark.parametrize(
    ("folder", "kind", "share"),
    [(b"//nas/photos/2020", 0, b"//nas/photos"), (b"Z:/photos", 4, b"Z:"), (b"C:/photos", 3, None)],
)
def test_shares_and_network_drives_of_windows_are_recognised(on_each, monkeypatch, folder, kind, share):
    monkeypatch.setattr(system, "_drive_type", lambda root: {f"{folder[:2].decode()}\\": kind}.get(root, 0))
    assert system.network_share(folder) == (share if on_each == "win32" else None)
