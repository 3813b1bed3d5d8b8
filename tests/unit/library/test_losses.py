"""Missing images: which stay in the index until --prune, and the warnings about them."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter

import pytest
from click.testing import CliRunner

from image_finder.components.app.cli import main
from image_finder.components.library.catalog import FileRow
from image_finder.components.library.losses import Arrivals, Memory, kept_losses, remembered
from image_finder.components.library.mounts import mount_point, mounted_at, remote_mount
from image_finder.components.library.scan import Scan
from tests.support.checkout import CHECKOUT


@pytest.fixture
def index(tmp_path, monkeypatch, colour_bundle):
    """Runs `image-finder index`; returns its summary and its lines on stderr."""
    monkeypatch.setenv("IMAGE_FINDER_HOME", str(tmp_path / "home"))

    def run(*arguments):
        words = ["index", *map(str, arguments), "--bundle", str(colour_bundle.path), "--json"]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout), result.stderr.splitlines()

    return run


def fill(folder, paint, n, start=0):
    for i in range(start, start + n):
        path = paint(folder / f"{i % 3}" / f"{i}.png", (i * 7 % 256, i * 31 % 256, i))
        os.utime(path, (1_600_000_000 + i, 1_600_000_000 + i))


def remove(folder, n):
    for path in sorted(folder.rglob("*.png"))[:n]:
        path.unlink()


def test_a_source_that_loses_half_of_twenty_images_keeps_them_until_prune(index, paint, tmp_path):
    photos = tmp_path / "photos"
    fill(photos, paint, 20)
    index(photos)
    remove(photos, 10)
    line = f"{photos}: 10 of 20 images are missing, which are kept; run image-finder index --prune if they are gone for good"
    for arguments in (["--dry-run"], [], []):
        summary, reported = index(*arguments)
        assert (summary["images"], summary["removed"], summary["absent"]) == (20, 0, 10)
        assert summary["kept"] == {str(photos): 10}
        assert line in reported
    assert index("--prune", "--dry-run")[0]["removed"] == 10
    summary, reported = index("--prune")
    assert (summary["images"], summary["removed"], summary["kept"]) == (10, 10, {})
    assert reported == []
    assert index()[0]["images"] == 10


def test_kept_images_stay_when_others_are_added_and_are_unchanged_when_they_return(index, paint, tmp_path):
    photos, away = tmp_path / "photos", tmp_path / "away"
    fill(photos, paint, 21)
    index(photos)
    (photos / "0").rename(away)
    remove(photos / "1", 4)
    assert index()[0]["kept"] == {str(photos): 11}
    fill(photos, paint, 40, start=100)  # the missing ones are fewer than half now
    summary, _ = index()
    assert (summary["added"], summary["kept"], summary["images"]) == (40, {str(photos): 11}, 61)
    away.rename(photos / "back")
    summary, _ = index()
    assert (summary["moved"], summary["kept"]) == (7, {str(photos): 4}), "under another name they have moved"
    (photos / "back").rename(photos / "again")
    assert index()[0]["moved"] == 7


def test_fewer_images_than_half_or_than_twenty_are_removed_at_once(index, paint, tmp_path):
    for n, gone in ((20, 9), (19, 18)):
        photos = tmp_path / str(n)
        fill(photos, paint, n, start=n)
        index(photos)
        remove(photos, gone)
        summary, reported = index()
        assert (summary["removed"], summary["kept"], reported) == (gone, {}, [])


def test_images_moved_within_the_library_are_not_missing(index, paint, tmp_path):
    photos, other = tmp_path / "photos", tmp_path / "other"
    other.mkdir()
    fill(photos, paint, 24)
    index(photos, other)
    (photos / "0").rename(other / "0")
    for path in (photos / "1").iterdir():  # as a copy does that keeps no time
        path.rename(other / path.name)
        os.utime(other / path.name)
    assert index("--dry-run")[0]["kept"] == {}, "8 of 24 have moved by size and time, 8 more are missing"
    summary, reported = index()
    assert (summary["moved"], summary["removed"], summary["kept"], reported) == (16, 0, {}, [])


@pytest.mark.parametrize("rest", [".hidden", "lost+found", "@eaDir"])
def test_a_source_with_only_hidden_entries_counts_as_empty(index, paint, tmp_path, rest):
    photos = tmp_path / "photos"
    fill(photos, paint, 3)
    index(photos)
    photos.rename(tmp_path / "unmounted")
    (photos / rest).mkdir(parents=True)
    summary, reported = index()
    assert (summary["images"], summary["absent"], summary["kept"]) == (3, 3, {str(photos): 3})
    kept = "its 3 known images are kept, --prune removes them, --forget the source too"
    assert reported == [f"{photos}: empty, as a disk that is not mounted; {kept}"]
    summary, _ = index("--prune")
    assert (summary["images"], summary["removed"], summary["folders"]) == (0, 3, [str(photos)])


DISKS = """
import contextlib, io, json, os, subprocess, sys
from pathlib import Path
from image_finder.components.app.cli import main

photos, bundle, source = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
nas, kept = photos / "nas", photos.parent / "kept"

def mount(folder):
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], check=True)
    for file in kept.iterdir():
        subprocess.run(["cp", "-p", str(file), str(folder)], check=True)

def index(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.suppress(SystemExit):
        main(["index", *words, "--bundle", bundle, "--json"])
    summary = json.loads(out.getvalue())
    print(json.dumps([summary["images"], summary["removed"], summary["kept"], err.getvalue().splitlines()]))

mount(nas)
index(source)
subprocess.run(["umount", str(nas)], check=True)
(nas / ".hidden").touch()
index("--dry-run")
index()
if sys.argv[4] == "gone":  # as a desktop removes the directory at which a disk was mounted
    (nas / ".hidden").unlink()
    nas.rmdir()
index()
mount(nas)
index()
(nas / "0.png").unlink()  # a deletion on a disk that is there
index()
subprocess.run(["umount", str(nas)], check=True)
index("--prune")
index()
"""


@pytest.mark.linux
@pytest.mark.parametrize("source", ["photos", "photos/nas"])
@pytest.mark.parametrize("after", ["there", "gone"])
def test_images_of_an_unmounted_disk_are_kept_until_prune(paint, tmp_path, colour_bundle, source, after):
    """In a mount namespace: a tmpfs in a source, or as one."""
    photos = tmp_path / "photos"
    own = 0 if source == "photos/nas" else 1
    paint(photos / "own.png", "red")
    for i in range(3):
        os.utime(paint(tmp_path / "kept" / f"{i}.png", (i, 40, 200)), (1_600_000_000, 1_600_000_000))
    arguments = [str(photos), str(colour_bundle.path), str(tmp_path / source), after]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", sys.executable, "-c", DISKS, *arguments],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "IMAGE_FINDER_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, rehearsed, unmounted, again, back, deleted, pruned, last = map(json.loads, done.stdout.splitlines())
    nas = str(photos / "nas")
    assert first == [own + 3, 0, {}, []]
    for images, removed, kept, reported in (rehearsed, unmounted, again):
        assert (images, removed) == (own + 3, 0)
        if own:
            assert kept == {nas: 3}
            assert reported == [
                f"{nas} is not mounted: 3 images kept; run image-finder index --prune if they are gone for good"
            ]
        else:
            assert "its 3 known images are kept" in reported[0]
    assert back == [own + 3, 0, {}, []]
    assert deleted == [own + 2, 1, {}, []]
    if own or after == "there":
        assert pruned[:3] == [own, 2, {}]
        assert last[:3] == [own, 0, {}]


def row(path, size=1):
    return FileRow(1, path, size, 0, 1, f"{size}", 1, 1, None, "", None, None, "")


def judged(known, scan, memory, arrived=()):
    rows = {path: row(path, i) for i, path in enumerate(known)}
    missing = [path for path in known if path not in scan.files]
    arrivals = Arrivals(lambda found: found.size, Counter(arrived))
    kept = kept_losses(missing, rows, arrivals, scan, memory)
    return {each.unit: (len(each.files), each.text.partition(";")[0]) for each in kept}, remembered(memory, scan, kept)


def scanned(*files, roots=(b"/p",), mounts=(b"/",), unreadable=()):
    return Scan(
        roots, dict.fromkeys(files, (0, 1, 1)), dict.fromkeys(unreadable, "Permission denied"), mounts=set(mounts)
    )


def test_a_former_mount_point_that_holds_the_images_is_an_ordinary_folder():
    """Its content was copied to the disk above, or the update runs on another machine or in a container."""
    known = [b"/p/nas/%d" % i for i in range(6)]
    memory = Memory(frozenset({b"/p/nas"}))
    assert judged(known, scanned(*known[:4]), memory) == ({}, Memory())
    kept, memory = judged(known, scanned(*known[:3]), memory)
    assert kept == {b"/p/nas": (3, "/p/nas is not mounted: 3 images kept")}
    assert memory == Memory(frozenset({b"/p/nas"}), frozenset({b"/p/nas"}))
    kept, memory = judged(known, scanned(*known[:5]), memory)
    assert kept == {b"/p/nas": (1, "/p/nas is not mounted: 1 image kept")}, "until all are back"
    assert judged(known, scanned(*known), memory) == ({}, Memory())


def test_the_disk_that_holds_a_source_is_remembered():
    known = [b"/mnt/nas/p/%d" % i for i in range(4)]
    roots = (b"/mnt/nas/p",)
    _, memory = judged(known, scanned(*known, roots=roots, mounts=[b"/mnt/nas"]), Memory())
    assert memory == Memory(frozenset({b"/mnt/nas"}))
    left = b"/mnt/nas/p/written while it was away"
    kept, memory = judged(known, scanned(left, roots=roots), memory)
    assert kept == {b"/mnt/nas/p": (4, "/mnt/nas is not mounted: 4 images of /mnt/nas/p kept")}
    _, memory = judged(known, scanned(roots=roots, unreadable=roots), memory)
    assert memory == Memory(frozenset({b"/mnt/nas"}), frozenset({b"/mnt/nas/p"})), "what cannot be seen is remembered"


def test_a_mounted_disk_without_its_images_is_counted_apart_from_its_source():
    """Another disk is mounted there, or an encrypted one is locked."""
    own, disk = [b"/p/%d" % i for i in range(90)], [b"/p/nas/%d" % i for i in range(30)]
    memory = Memory(frozenset({b"/p/nas"}))
    kept, _ = judged(own + disk, scanned(*own, mounts=[b"/", b"/p/nas"]), memory)
    assert kept == {b"/p/nas": (30, "/p/nas: 30 of 30 images are missing, which are kept")}
    kept, _ = judged(own + disk, scanned(*own[:50], *disk, mounts=[b"/", b"/p/nas"]), memory)
    assert kept == {}, "40 of the source's own 90"


def test_only_disks_that_hold_images_are_remembered():
    mounts = [b"/", b"/p/proc", b"/p/nas", b"/p/nas/inner"]
    _, memory = judged([b"/p/nas/a"], scanned(b"/p/nas/a", mounts=mounts), Memory(frozenset({b"/elsewhere"})))
    assert memory == Memory(frozenset({b"/p/nas"}))
    assert Memory.parse(memory.text) == memory
    odd = Memory(frozenset({b"/p/\xff \n"}), frozenset({b"/p"}))
    assert Memory.parse(odd.text) == odd


TABLE = rb"""22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw - proc proc rw
30 22 8:17 / /media/a\040disk rw shared:5 master:2 - vfat /dev/sdb1 rw
31 22 0:50 / /media/a\040disk/nas rw - nfs4 host:/x rw
32 22 0:51 / /home rw - btrfs /dev/sdc rw
"""


@pytest.mark.linux
def test_mounts_above_and_below_a_folder_are_read_from_the_mount_table(tmp_path):
    table = tmp_path / "mountinfo"
    table.write_bytes(TABLE)
    assert mounted_at([b"/home/u/p"], table) == {b"/home": (b"320:51", "btrfs")}
    assert list(mounted_at([b"/media"], table)) == [b"/", b"/media/a disk", b"/media/a disk/nas"]
    assert remote_mount([b"/media/a disk/photos"], table) is None
    assert remote_mount([b"/home/u", b"/media/a disk"], table) == (b"/media/a disk/nas", "nfs4")
    assert mounted_at([b"/home"], tmp_path / "absent") == {}
    assert mount_point(b"/proc/self/task") == b"/proc"


@pytest.mark.parametrize("damage", ["gone", "rows"])
def test_images_missing_when_the_catalogue_is_lost_are_kept(index, paint, tmp_path, damage):
    photos = tmp_path / "photos"
    fill(photos, paint, 30)
    index(photos)
    remove(photos, 18)
    catalog = tmp_path / "home" / "library" / "catalog.sqlite"
    if damage == "gone":
        catalog.unlink()
    else:
        with contextlib.closing(sqlite3.connect(catalog)) as raw, raw:
            raw.execute("UPDATE files SET crc = 0")
    summary, _ = index()
    assert (summary["images"], summary["kept"], summary["embedded"]) == (30, {str(photos): 18}, 0)
    assert index("--prune")[0]["images"] == 12
