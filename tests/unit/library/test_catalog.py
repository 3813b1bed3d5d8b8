"""Catalogue: rows come back as they were put, and damage is found."""

import contextlib
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_finder.components.errors import StorageError
from image_finder.components.library.catalog import Catalog, FileRow


def row(path=b"a.jpg", folder=1, **changes):
    values = {"size": 10, "mtime_ns": 5, "settled": 1, "sha256": "ab" * 32, "width_px": 4, "height_px": 3, "taken_s": None, "camera": "", "latitude": None, "longitude": None, "error": ""}  # fmt: skip
    return FileRow(folder=folder, path=path, **{**values, **changes})


def refuse(message):
    raise AssertionError(message)


def opened(path, warn=refuse):
    return Catalog.open(path, warn=warn)


def filled(path, n=50):
    rows = [row(f"{i:04d}.jpg".encode(), mtime_ns=i) for i in range(n)]
    with opened(path) as catalog:
        catalog.add_folder(b"/images")
        catalog.put(rows)
        catalog.set(bundle="b" * 64)
        catalog.commit()
    return rows


_i64 = st.integers(-(2**63), 2**63 - 1)
_text = st.text(st.characters(exclude_categories=["Cs"]))
_degrees = st.floats(-180, 180)


@given(
    st.builds(
        FileRow, folder=st.integers(1, 9), path=st.binary(min_size=1), size=_i64, mtime_ns=_i64, settled=st.integers(0, 1),
        sha256=_text, width_px=_i64, height_px=_i64, taken_s=st.none() | _i64, camera=_text, latitude=_degrees,
        longitude=_degrees, error=_text,
    )
    | st.just(row())
)  # fmt: skip
def test_any_stored_row_is_read_back_unchanged(tmp_path_factory, kept):
    path = tmp_path_factory.mktemp("catalog") / "c.sqlite"
    with opened(path) as catalog:
        catalog.put([kept])
        catalog.commit()
    with opened(path) as catalog:
        assert catalog.files() == ([kept], 0)


def test_putting_a_row_again_replaces_it(tmp_path):
    with opened(tmp_path / "c") as catalog:
        catalog.put([row(size=1), row(size=2), row(folder=2, size=3)])
        assert [each.size for each in catalog.files()[0]] == [2, 3]
        catalog.remove([(1, b"a.jpg")])
        assert [each.size for each in catalog.files()[0]] == [3]


def test_uncommitted_changes_are_lost(tmp_path):
    filled(tmp_path / "c", 3)
    with opened(tmp_path / "c") as catalog:
        catalog.put([row(b"new.jpg")])
    with opened(tmp_path / "c") as catalog:
        assert len(catalog.files()[0]) == 3


def test_folders_keep_their_ids_and_ids_are_not_used_twice(tmp_path):
    with opened(tmp_path / "c") as catalog:
        first, second = catalog.add_folder(b"/a"), catalog.add_folder(b"/b\xff")
        assert catalog.add_folder(b"/a") == first
        catalog.put([row(folder=second)])
        catalog.remove_folder(first)
        assert catalog.folders() == {second: b"/b\xff"}
        assert catalog.add_folder(b"/a") > second
        catalog.remove_folder(second)
        assert catalog.files() == ([], 0)


@pytest.mark.parametrize("change", ["mtime_ns = 7", "sha256 = 'cd'", "path = x'62'", "width_px = 'wide'", "camera = CAST(x'ff' AS TEXT)", "latitude = 1.5", "crc = 0"])  # fmt: skip
def test_damaged_rows_are_dropped_and_counted(tmp_path, change):
    rows = filled(tmp_path / "c", 5)
    with contextlib.closing(sqlite3.connect(tmp_path / "c")) as raw, raw:
        raw.execute(f"UPDATE files SET {change} WHERE path = ?", (rows[2].path,))
    raw.close()
    with opened(tmp_path / "c") as catalog:
        assert catalog.files() == ([*rows[:2], *rows[3:]], 1)
        catalog.remove_damaged()
        assert catalog.files() == ([*rows[:2], *rows[3:]], 0)


def test_damaged_settings_and_folders_are_ignored(tmp_path):
    filled(tmp_path / "c", 5)
    with contextlib.closing(sqlite3.connect(tmp_path / "c")) as raw, raw:
        raw.execute("UPDATE settings SET value = 'x'")
        raw.execute("UPDATE folders SET path = x'2f78'")
    raw.close()
    with opened(tmp_path / "c") as catalog:
        assert catalog.setting("bundle") == ""
        assert catalog.folders() == {}
        assert catalog.add_folder(b"/x") == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"no database" * 100),
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(path.read_bytes()[:4096] + b"\xaa" * (path.stat().st_size - 4096)),
        lambda path: path.write_bytes(path.read_bytes().replace(b"CREATE TABLE files", b"CREATE TABLE fools")),
    ],
)
def test_a_damaged_catalogue_is_moved_aside_with_a_warning_and_rebuilt(tmp_path, damage):
    filled(tmp_path / "c.sqlite", 200)
    damage(tmp_path / "c.sqlite")
    (tmp_path / "c.sqlite-journal").write_bytes(b"")
    warned = []
    with opened(tmp_path / "c.sqlite", warn=warned.append) as catalog:
        assert catalog.files() == ([], 0)
    (message,) = warned
    assert "c.sqlite is damaged" in message
    assert "\n" not in message
    (aside,) = (path.name for path in tmp_path.glob("c.sqlite.damaged-*") if "journal" not in path.name)
    assert aside in message


def test_a_catalogue_of_a_newer_version_is_refused_unchanged(tmp_path):
    filled(tmp_path / "c")
    with contextlib.closing(sqlite3.connect(tmp_path / "c")) as raw, raw:
        raw.execute("PRAGMA user_version = 3")
    raw.close()
    with pytest.raises(StorageError, match="has version 3, this program knows 2; install a newer image-finder"):
        opened(tmp_path / "c")
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_flipped_bit_never_gives_a_wrong_row(tmp_path):
    import random

    rows = set(filled(tmp_path / "c", 60))
    whole = (tmp_path / "c").read_bytes()
    chance = random.Random(3)
    for trial in range(150):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path = tmp_path / f"{trial}.sqlite"
        path.write_bytes(damaged)
        try:
            with opened(path, warn=lambda _: None) as catalog:
                found, n_damaged = catalog.files()
        except StorageError:  # the flip hit the version, which now is a newer one
            continue
        assert set(found) <= rows
        assert len(found) + n_damaged in (60, 0, 59)


def test_reading_needs_no_write_permission_and_creates_no_file(tmp_path):
    rows = filled(tmp_path / "c")
    with Catalog.read(tmp_path / "c") as catalog:
        assert catalog.files() == (rows, 0)
        with pytest.raises(StorageError, match="readonly"):
            catalog.put(rows)
    with pytest.raises(StorageError, match="no library at .*; make one: image-finder index DIR"):
        Catalog.read(tmp_path / "d" / "c")
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
