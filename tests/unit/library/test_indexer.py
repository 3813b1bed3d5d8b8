"""Library of folders: what an update finds, keeps, publishes and reports, and what it tolerates."""

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from image_finder.components.configs import EmbeddingConfig
from image_finder.components.errors import BundleError, DataError, StorageError
from image_finder.components.index.format import is_sealed
from image_finder.components.index.index import VectorIndex
from image_finder.components.library.bundles import published_ns
from image_finder.components.library.index_options import IndexOptions
from image_finder.components.library.indexer import update
from image_finder.components.library.library import Library
from image_finder.components.library.scan import scan_folders
from image_finder.components.library.watch import FolderWatch, view_of
from image_finder.components.storage import unsealed
from image_finder.components.system import path_bytes
from tests.support.checkout import CHECKOUT
from tests.support.item_ids import item_id

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 50), "blue": (40, 60, 220), "yellow": (230, 220, 40)}


class Home:
    """A folder of images and a library of it."""

    def __init__(self, folder, bundle):
        self.folder = folder
        self.images = folder / "images"
        self.images.mkdir()
        self.library = Library(folder / "library")
        self.bundle = bundle.path
        self.warned = []

    def index(self, *folders, **options):
        return self.index_known(*(folders or [self.images]), **options)

    def index_known(self, *folders, bundle="own", defaults=None, dry_run=False, forget=()):
        """Without folders: those the library has."""
        self.warned = []
        options = IndexOptions(
            config=EmbeddingConfig(device="cpu", batch_images=4),
            bundle=self.bundle if bundle == "own" else bundle,
            default_bundles=defaults,
            dry_run=dry_run,
        )
        return update(self.library, folders, options, forget=forget, warn=self.warned.append)

    def published(self):
        return VectorIndex.open(self.library.index)

    def paths(self):
        index = self.published()
        return {path_bytes(index.file_of(row)) for row in range(index.manifest.count)}

    def names(self):
        return {os.fsdecode(path).removeprefix(f"{self.images}/") for path in self.paths()}


@pytest.fixture
def home(tmp_path, colour_bundle):
    return Home(tmp_path, colour_bundle)


def old(path, seconds=3600):
    """Make a file's time old enough to prove that it did not change."""
    moment = time.time() - seconds
    os.utime(path, (moment, moment))
    return path


def counts(summary):
    names = ("added", "changed", "moved", "copied", "removed", "unchanged", "embedded")
    return {name: getattr(summary, name) for name in names if getattr(summary, name)}


def fill(home, paint, n=6):
    for i in range(n):
        old(paint(home.images / f"{i % 2}" / f"{i}.png", (i * 7 % 256, i * 31 % 256, 200)))


def test_images_are_found_by_their_colour(home, paint):
    for name, colour in COLOURS.items():
        paint(home.images / f"{name}.png", colour)
    assert counts(home.index()) == {"added": 4, "embedded": 4}
    index = home.published()
    red = np.array([[1, 0, 0]], np.float32)
    assert index.item(int(index.search(red, 1).rows[0, 0]))["name"] == "red.png"


def test_items_hold_the_facts_of_a_file_without_the_folders_above_its_source(home, paint):
    path = paint(home.images / "trip" / "a.jpg", "red", (40, 30))
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "X100"
    exif.get_ifd(0x8769)[0x9003] = "2021:05:06 07:08:09"
    Image.open(path).save(path, exif=exif)
    os.utime(path, ns=(0, 1_600_000_000_987_654_321))
    home.index()
    index = home.published()
    item = index.item(0)
    assert item["id"] == item_id(home.images, b"trip/a.jpg")
    assert (item["folder"], item["name"], item["path"]) == ("images/trip", "a.jpg", b"trip/a.jpg")
    assert (item["width_px"], item["height_px"], item["bytes"]) == (30, 40, path.stat().st_size)
    assert (str(item["taken_at"]), item["camera"]) == ("2021-05-06 07:08:09", "X100")
    assert str(item["modified_at"]) == "2020-09-13 12:26:40"
    assert item["captions"] == []
    assert index.file_of(0) == path
    assert index.manifest.roots == (str(home.images),)


def test_folders_of_equal_name_have_numbered_labels(home, paint, tmp_path):
    paint(tmp_path / "x" / "photos" / "a.png", "red")
    paint(tmp_path / "y" / "photos" / "b.png", "blue")
    home.index(tmp_path / "x" / "photos", tmp_path / "y" / "photos")
    index = home.published()
    assert sorted(index.items["folder"].to_pylist()) == ["photos", "photos (2)"]


def test_a_second_run_does_nothing_and_publishes_nothing(home, paint):
    fill(home, paint)
    assert home.index().published
    before = home.published().path
    again = home.index()
    assert counts(again) == {"unchanged": 6}
    assert (again.published, again.images, home.published().path) == (False, 6, before)


def test_edited_deleted_moved_and_copied_files_are_distinguished(home, paint):
    fill(home, paint, 6)
    home.index()
    old(paint(home.images / "0" / "0.png", "white"), 1000)
    (home.images / "0" / "2.png").unlink()
    (home.images / "1" / "1.png").rename(home.images / "moved.png")
    shutil.copy2(home.images / "1" / "3.png", home.images / "copy.png")
    old(paint(home.images / "new.png", "red"))
    summary = home.index()
    assert counts(summary) == {"changed": 1, "removed": 1, "moved": 1, "copied": 1, "added": 1, "unchanged": 3, "embedded": 2}  # fmt: skip
    assert home.names() == {"0/0.png", "0/4.png", "1/3.png", "1/5.png", "moved.png", "copy.png", "new.png"}
    assert home.index().published is False


def test_a_touched_file_is_unchanged_and_its_time_is_published(home, paint):
    fill(home, paint, 2)
    home.index()
    os.utime(home.images / "0" / "0.png", (1_500_000_000, 1_500_000_000))
    summary = home.index()
    assert counts(summary) == {"unchanged": 2}
    assert "2017-07-14 02:40:00" in map(str, home.published().items["modified_at"].to_pylist())


def test_a_file_that_changes_without_another_size_or_time_right_after_it_was_read_is_noticed(home, paint):
    path = paint(home.images / "a.bmp", "red")
    now = time.time_ns()
    os.utime(path, ns=(now, now))
    home.index()
    paint(path, "blue")
    os.utime(path, ns=(now, now))
    assert counts(home.index()) == {"changed": 1, "embedded": 1}


def test_equal_content_is_embedded_once(home, paint):
    first = paint(home.images / "a.png", "red")
    for i in range(20):
        shutil.copy(first, home.images / f"copy {i}.png")
    assert counts(home.index()) == {"added": 1, "copied": 20, "embedded": 1}
    assert home.published().manifest.count == 21


def test_unreadable_files_are_listed_once_and_retried_only_after_a_change(home, paint):
    fill(home, paint, 3)
    old(home.images / "0" / "0.png").write_bytes(b"no image")
    old(home.images / "0" / "0.png")
    (home.images / "empty.jpg").touch()
    old(home.images / "empty.jpg")
    summary = home.index()
    broken, empty = f"{home.images}/0/0.png", f"{home.images}/empty.jpg"
    assert set(summary.failed) == {broken, empty}
    assert summary.failed[empty] == "the file is empty (0 bytes)"
    assert home.published().manifest.failed == summary.failed
    again = home.index()
    assert (again.failed, again.still_failing, again.published) == ({}, 2, False)
    old(paint(home.images / "0" / "0.png", "red"), 50)
    mended = home.index()
    assert (counts(mended)["changed"], mended.still_failing, mended.images) == (1, 1, 3)


def test_unreadable_files_are_retried_by_another_version_of_the_decoders(home):
    (home.images / "a.png").write_bytes(b"x")
    old(home.images / "a.png")
    home.index()
    with contextlib.closing(sqlite3.connect(home.library.catalog)) as raw, raw:
        raw.execute("DELETE FROM settings WHERE name = 'decoders'")
    assert list(home.index().failed) == [f"{home.images}/a.png"]
    assert home.index().failed == {}


def test_a_thousand_unreadable_files_do_not_affect_a_thousand_readable_ones(home, paint):
    for i in range(1000):
        good = paint(home.images / f"g{i}.png", (i % 256, i // 256, 0), (4, 3)).read_bytes()
        (home.images / f"b{i}.png").write_bytes(good[: 8 + i % 40])
    summary = home.index()
    assert (len(summary.failed), summary.images, summary.embedded) == (1000, 1000, 1000)
    assert home.names() == {f"g{i}.png" for i in range(1000)}


@pytest.mark.linux
def test_unusual_file_names_are_kept(home, paint):
    odd = [b"new\nline.png", b"caf\xe9.png", "日本 🐕.png".encode(), b'tab\t".png']
    for i, name in enumerate(odd):
        paint(home.images / "x.png", (i, 2, 3)).rename(os.fsdecode(os.fsencode(home.images) + b"/" + name))
    broken = os.fsencode(home.images) + b"/broken\xff\n.png"
    Path(os.fsdecode(broken)).write_bytes(b"x")
    summary = home.index()
    assert home.paths() == {os.fsencode(home.images) + b"/" + name for name in odd}
    assert list(summary.failed) == [f"{home.images}/broken\\xff\n.png"]
    json.loads(summary.model_dump_json())
    assert home.index().unchanged + home.index().still_failing >= 1


@pytest.mark.linux
def test_a_folder_whose_name_is_not_utf8_is_refused_but_its_parent_is_accepted(home, paint):
    folder = Path(os.fsdecode(os.fsencode(home.images) + b"/caf\xe9"))
    paint(folder / "a.png", "red")
    with pytest.raises(DataError, match="its name is not UTF-8; give the folder above it"):
        home.index(folder)
    assert home.index().images == 1


def test_a_root_that_is_absent_or_suddenly_empty_keeps_its_images_until_it_is_forgotten(home, paint, tmp_path):
    fill(home, paint, 4)
    home.index()
    home.images.rename(tmp_path / "unmounted")
    summary = home.index()
    assert (summary.absent, summary.removed, summary.images) == (4, 0, 4)
    assert "its 4 known images are kept, --forget removes them" in home.warned[0]
    home.images.mkdir()  # the mount point
    assert home.index().absent == 4
    home.images.rmdir()
    (tmp_path / "unmounted").rename(home.images)
    assert counts(home.index()) == {"unchanged": 4}
    other = paint(tmp_path / "other" / "a.png", "red").parent
    home.index(other)
    summary = update(home.library, [], IndexOptions(config=EmbeddingConfig()), forget=[home.images], warn=print)
    assert (summary.folders, summary.images) == ((str(other),), 1)
    with pytest.raises(DataError, match="is not a folder of this library; it has .*other"):
        home.index(other, forget=[home.images])


def test_the_last_folder_can_be_forgotten(home, paint):
    fill(home, paint, 2)
    home.index()
    summary = update(home.library, [], IndexOptions(config=EmbeddingConfig()), forget=[home.images], warn=print)
    assert (summary.images, home.published().manifest.count) == (0, 0)


def test_adding_an_outer_folder_reads_no_known_file_again(home, paint):
    fill(home, paint, 4)
    home.index(home.images / "0")
    summary = home.index(home.images)
    assert counts(summary) == {"added": 2, "unchanged": 2, "embedded": 2}
    index = home.published()
    assert sorted(index.items["path"].to_pylist()) == [b"0/0.png", b"0/2.png", b"1/1.png", b"1/3.png"]
    assert counts(home.index()) == {"unchanged": 4}


def test_a_library_inside_a_source_does_not_index_itself(tmp_path, colour_bundle, paint):
    home = Home(tmp_path, colour_bundle)
    fill(home, paint, 2)
    paint(home.library.root / "thumbnails" / "a.png", "red")
    assert home.index(tmp_path).added == 2


def test_refusals_are_one_line_errors(home, paint, tmp_path):
    with pytest.raises(DataError, match="no such folder; name folders that hold images"):
        home.index(tmp_path / "nowhere")
    with pytest.raises(DataError, match="the library has no folders yet"):
        update(home.library, [], IndexOptions(config=EmbeddingConfig()), warn=print)
    with pytest.raises(BundleError, match="no bundle to index with: .*--bundle"):
        home.index(bundle=None)


def test_a_folder_without_images_gives_an_empty_index(home):
    assert home.index().images == 0


def test_a_dry_run_reports_the_changes_and_writes_nothing(home, paint):
    fill(home, paint, 4)
    assert counts(home.index(dry_run=True)) == {"added": 4}
    assert not home.library.root.exists()
    home.index()
    (home.images / "0" / "0.png").rename(home.images / "m.png")
    (home.images / "1" / "1.png").unlink()
    paint(home.images / "new.png", "red")
    before = {path: path.stat().st_mtime_ns for path in home.library.root.rglob("*")}
    assert counts(home.index(dry_run=True)) == {"added": 1, "moved": 1, "removed": 1, "unchanged": 2}
    assert {path: path.stat().st_mtime_ns for path in home.library.root.rglob("*")} == before


# Bundles


def test_a_new_bundle_embeds_all_images_again_while_the_old_index_answers(home, paint, write_colour_bundle, tmp_path):
    fill(home, paint, 5)
    first = home.index()
    other = write_colour_bundle(tmp_path / "other", dataset="later", input_px=16)
    summary = home.index(bundle=other.path)
    assert (summary.embedded, summary.unchanged, summary.bundle) == (5, 5, other.sha256)
    assert f"changed from {first.bundle[:12]} to {other.sha256[:12]}: 5 images are embedded again" in home.warned[0]
    assert home.published().manifest.bundle_sha256 == other.sha256
    own = Path(home.published().manifest.bundle_uri)
    assert own == home.library.bundles / other.sha256[:16]
    shutil.rmtree(other.path)
    assert counts(home.index(bundle=None)) == {"unchanged": 5}
    assert len(list(home.library.root.glob("vectors-*"))) == 2  # the bundle before can come back with its generation
    assert home.index().embedded == 0
    for px in (10, 12):
        home.index(bundle=write_colour_bundle(tmp_path / f"px{px}", input_px=px).path)
    assert len(list(home.library.root.glob("vectors-*"))) == len(list(home.library.bundles.iterdir())) == 2


def test_recently_changed_files_are_counted_among_those_that_a_new_bundle_embeds_again(
    home, paint, write_colour_bundle, tmp_path
):
    fill(home, paint, 3)
    for colour in COLOURS:
        paint(home.images / f"{colour}.png", colour)  # too young to be trusted by their size and time
    shutil.copy(home.images / "red.png", home.images / "rot.png")
    home.index()
    summary = home.index(bundle=write_colour_bundle(tmp_path / "other", input_px=16).path)
    assert summary.embedded == 7
    assert ": 7 images are embedded again" in home.warned[0]


def test_a_bundle_published_later_is_used_and_an_earlier_one_is_not(home, paint, write_colour_bundle, tmp_path):
    fill(home, paint, 2)
    defaults = tmp_path / "bundles"
    early = write_colour_bundle(tmp_path / "e", input_px=16)
    shutil.copytree(early.path, defaults / early.sha256[:16])
    (defaults / "CURRENT").write_text(early.sha256[:16])
    assert home.index(bundle=None, defaults=defaults).bundle == early.sha256, "the first time there is no other"
    given = home.index()
    assert given.bundle != early.sha256
    assert home.index(bundle=None, defaults=defaults).bundle == given.bundle
    late = write_colour_bundle(tmp_path / "l", input_px=12)
    shutil.copytree(late.path, defaults / late.sha256[:16])
    (defaults / "CURRENT").write_text(late.sha256[:16])
    assert home.index(bundle=None, defaults=defaults).bundle == late.sha256
    assert counts(home.index(bundle=None, defaults=defaults)) == {"unchanged": 2}


def test_an_interrupted_first_run_resumes_with_its_bundle(home, paint):
    fill(home, paint, 2)
    home.index()
    shutil.rmtree(home.library.index)
    home.library.catalog.unlink()
    assert home.index(bundle=None).images == 2


def test_a_damaged_copy_of_the_bundle_is_replaced_by_the_given_one(home, paint):
    fill(home, paint, 2)
    sha256 = home.index().bundle
    (home.library.bundles / sha256[:16] / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match="corrupted"):
        home.index(bundle=None)
    assert counts(home.index()) == {"unchanged": 2}
    assert counts(home.index(bundle=None)) == {"unchanged": 2}


# Damage


def flip(path, at=0.5):
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 0x55
    path.write_bytes(content)


def test_a_damaged_published_index_is_rebuilt_without_embedding(home, paint):
    fill(home, paint, 5)
    home.index()
    expected = home.published().items
    flip(home.published().path / "vectors.npy", 0.99)
    summary = home.index()
    assert (summary.published, summary.embedded) == (True, 0)
    assert "corrupted" in home.warned[0]
    assert home.published().items.equals(expected)
    shutil.rmtree(home.published().path)
    assert home.index().published
    (home.library.index / "CURRENT").write_text("../../etc")
    assert home.index().published
    assert home.published().items.equals(expected)


@pytest.mark.parametrize("damage", ["flip", "truncate", "keys", "layout", "gone"])
def test_damaged_vectors_are_computed_again_and_never_published(home, paint, damage):
    fill(home, paint, 6)
    home.index()
    expected = home.published().vectors.copy()
    (cache,) = home.library.root.glob("vectors-*")
    if damage == "flip":
        flip(cache / "rows.bin")
    elif damage == "truncate":
        os.truncate(cache / "rows.bin", 40)
    elif damage == "keys":
        flip(cache / "keys.tsv", 0.4)
    elif damage == "layout":
        (cache / "layout.json").write_bytes(b"{")
    else:
        shutil.rmtree(cache)
    shutil.rmtree(home.library.index)
    summary = home.index()
    assert summary.embedded >= 1
    np.testing.assert_allclose(home.published().vectors, expected, atol=1e-6)  # batches of another size
    shutil.rmtree(home.library.index)
    assert home.index().embedded == 0


@pytest.mark.parametrize("damage", ["garbage", "gone", "row"])
def test_a_damaged_catalogue_is_rebuilt_by_reading_without_embedding(home, paint, damage):
    fill(home, paint, 6)
    home.index()
    expected = home.published().items
    if damage == "garbage":
        home.library.catalog.write_bytes(b"garbage" * 1000)
    elif damage == "gone":
        home.library.catalog.unlink()
    else:
        with contextlib.closing(sqlite3.connect(home.library.catalog)) as raw, raw:
            raw.execute("UPDATE files SET width_px = 9")
    summary = home.index_known(bundle=None)
    assert (summary.added + summary.copied, summary.embedded, summary.images) == (6, 0, 6)
    assert home.published().items.equals(expected)
    assert len(home.warned) == (2 if damage == "garbage" else 1)


@pytest.fixture
def of_two(home, paint, tmp_path):
    """A library of two folders of equal name, and the folders."""
    folders = [paint(tmp_path / parent / "photos" / "a.png", colour).parent for parent, colour in (("y", 9), ("x", 99))]
    home.index(*folders)
    return home, *folders


def lose(home, damage):
    if damage == "garbage":
        home.library.catalog.write_bytes(b"garbage")
    elif damage == "gone":
        home.library.catalog.unlink()
    else:
        with contextlib.closing(sqlite3.connect(home.library.catalog)) as raw, raw:
            raw.execute("UPDATE folders SET crc = 0 WHERE id = 2")


@pytest.mark.parametrize("damage", ["garbage", "gone", "row"])
def test_folders_missing_from_a_damaged_catalogue_are_taken_from_the_index_with_a_warning(of_two, damage):
    home, first, second = of_two
    expected = home.published().items
    for given in ((), (first,)):
        lose(home, damage)
        summary = home.index_known(*given)
        assert summary.images == 2
        assert home.published().items.equals(expected), "labels too: photos and photos (2)"
        warned = [words for words in home.warned if words.endswith("; they are kept")]
        silent = [second] if damage == "row" or given else [first, second]
        lost = f"{home.library.catalog} does not name these folders any more, the published index does: "
        assert warned == [f"{lost}{', '.join(map(str, silent))}; they are kept"]
        assert home.index_known().published is False
        assert home.warned == []


def test_a_library_of_a_version_without_checksums_is_updated_without_embedding(home, paint):
    fill(home, paint, 3)
    home.index()
    manifest = home.published().path / "index.json"
    manifest.write_text(json.dumps(unsealed(manifest.read_bytes())[0]))
    before = home.published()
    summary = home.index()
    assert (summary.published, summary.embedded, summary.unchanged) == (True, 0, 3)
    assert is_sealed(home.published().path)
    assert home.published().items == before.items
    assert home.index().published is False


def test_a_lost_folder_that_is_given_or_forgotten_gives_no_warning(of_two):
    home, first, second = of_two
    lose(home, "gone")
    assert home.index_known(first, second).images == 2
    lose(home, "gone")
    assert home.index_known(first, forget=[second]).folders == (str(first),)
    assert home.warned == []


def test_a_library_without_catalogue_and_index_requires_a_folder(of_two):
    home, first, _ = of_two
    lose(home, "gone")
    (home.published().path / "index.json").write_bytes(b"{")
    with pytest.raises(DataError, match="the library has no folders yet; name some"):
        home.index_known()
    assert home.index_known(first).images == 1


@pytest.mark.parametrize("damage", ["garbage", "gone", "rows"])
@pytest.mark.parametrize("emptied", [False, True])
def test_a_catalogue_lost_while_a_disk_is_unmounted_keeps_the_images_of_the_disk(of_two, tmp_path, damage, emptied):
    home, _, second = of_two
    expected = home.published().items
    second.rename(tmp_path / "unmounted")
    if emptied:
        second.mkdir()  # the mount point
    if damage == "rows":
        with contextlib.closing(sqlite3.connect(home.library.catalog)) as raw, raw:
            raw.execute("UPDATE files SET crc = 0")
    else:
        lose(home, damage)
    if damage != "garbage":  # a dry run refuses that one
        assert home.index_known(dry_run=True).absent == 1
    summary = home.index_known()
    assert (summary.images, summary.absent, summary.removed, summary.embedded) == (2, 1, 0, 0)
    assert home.published().items.equals(expected)
    assert any(words.startswith(f"{second}: ") and "its 1 known image is kept" in words for words in home.warned)
    assert home.index_known().published is False
    if emptied:
        second.rmdir()
    (tmp_path / "unmounted").rename(second)
    assert counts(home.index_known()) == {"unchanged": 2}
    assert home.published().items.equals(expected)
    assert home.index_known(forget=[second]).images == 1


# Interruptions, and others at work


def test_a_concurrent_run_is_refused_with_the_process_that_holds_the_lock(home, paint):
    fill(home, paint, 1)
    with home.library.writing():
        started = time.monotonic()
        with pytest.raises(StorageError, match=rf"is being written by process {os.getpid()} since \d{{4}}-"):
            home.index()
        assert time.monotonic() - started < 5
    assert home.index().added == 1


def test_a_file_deleted_during_indexing_is_not_a_failure(home, paint, monkeypatch):
    fill(home, paint, 4)
    from image_finder.components.library import sources

    def and_then_one_goes(*arguments, **options):
        scan = scan_folders(*arguments, **options)
        (home.images / "0" / "0.png").unlink()
        paint(home.images / "1" / "1.png", "white")
        return scan

    with monkeypatch.context() as patch:
        patch.setattr(sources, "scan_folders", and_then_one_goes)
        summary = home.index()
    assert (summary.vanished, summary.failed, summary.images) == (1, {}, 3)
    again = home.index()
    assert again.unchanged == 3, "its time was taken before it was read, so it was read once more"
    assert home.names() == {"0/2.png", "1/1.png", "1/3.png"}


RUNNER = """
import os, signal, sys
from pathlib import Path
from image_finder.components.configs import EmbeddingConfig
from image_finder.components.library import partial
from image_finder.components.library.index_options import IndexOptions
from image_finder.components.library.indexer import update
from image_finder.components.library.library import Library

images, bundle, *runs = sys.argv[1:]
partial._SHARE = 1e9  # publish after each image, also while others are read
for run in runs:  # LIBRARY:N, to be killed at the N-th touch of a file of the library; 0: never
    library, _, n = run.rpartition(":")
    child = os.fork()
    if child == 0:
        touched = []

        def watch(event, arguments):
            if event in ("open", "os.rename", "os.truncate", "os.remove", "os.mkdir", "os.rmdir"):
                if library in str(arguments[0]):
                    touched.append(event)
                    if len(touched) == int(n):
                        os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        options = IndexOptions(config=EmbeddingConfig(device="cpu", batch_images=2), bundle=Path(bundle))
        try:
            update(Library(Path(library)), [Path(images)], options, warn=lambda _: None)
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        print(len(touched), flush=True)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, -signal.SIGKILL):
        sys.exit(1)
    print(code, flush=True)
"""


def run(home, *runs, **options):
    command = [
        sys.executable,
        "-W",
        "ignore:This process:DeprecationWarning",
        "-c",
        RUNNER,
        str(home.images),
        str(home.bundle),
        *runs,
    ]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False, **options)


@pytest.mark.posix
@pytest.mark.slow
def test_after_a_kill_at_any_time_the_next_run_gives_the_index_of_an_uninterrupted_one(home, paint, tmp_path):
    chance = random.Random(4)
    for i in range(40):
        paint(home.images / f"{i % 5}" / f"{i}.png", tuple(chance.randrange(256) for _ in range(3)), (60, 40))
    (home.images / "broken.png").write_bytes(b"x")
    done = run(home, f"{home.library.root}:0")
    assert done.returncode == 0, done.stderr
    whole = int(done.stdout.split()[0])
    items, vectors = home.published().items, home.published().vectors.copy()
    moments = [max(1, whole * i // 12) for i in range(12)]
    runs = [f"{tmp_path}/killed {i}:{n}" for i, n in enumerate(moments) for n in (n, max(1, n // 2))]
    done = run(home, *runs)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split().count(str(-signal.SIGKILL)) >= 12
    for i in range(len(moments)):
        home.library = Library(tmp_path / f"killed {i}")
        home.index()
        left = [path for path in home.library.root.rglob("*") if path.name[0] == "." or path.suffix == ".smaller"]
        assert left == []
        assert home.published().items.equals(items)
        np.testing.assert_allclose(home.published().vectors, vectors, atol=1e-6)
        assert counts(home.index()) == {"unchanged": 40}


@pytest.mark.posix
def test_a_full_disk_gives_a_one_line_error_and_the_next_run_resumes(home, paint):
    for i in range(40):
        paint(home.images / f"{i}.png", (i, 0, 0), (60, 40))
    limit = 20_000

    import resource

    def no_space():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = run(home, f"{home.library.root}:0", preexec_fn=no_space)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("StorageError: ")
    assert home.index().images == 40


def test_a_read_only_library_gives_a_one_line_error(home, paint, tmp_path):
    fill(home, paint, 1)
    (tmp_path / "file").touch()
    home.library = Library(tmp_path / "file" / "library")
    with pytest.raises(StorageError, match="cannot write .*library"):
        home.index()


def test_unused_vectors_are_removed_once_they_are_the_majority(home, paint, monkeypatch):
    from image_finder.components.library import vectors

    monkeypatch.setattr(vectors, "_WORTH_IT", 3)
    fill(home, paint, 12)
    home.index()
    for i in range(8):
        (home.images / f"{i % 2}" / f"{i}.png").unlink()
    assert home.index().images == 4
    (cache,) = home.library.root.glob("vectors-*")
    assert len((cache / "keys.tsv").read_text().splitlines()) == 4
    shutil.rmtree(home.library.index)
    assert home.index().embedded == 0


def test_vectors_that_windows_keeps_mapped_are_compacted_by_a_later_update(home, paint, monkeypatch):
    from image_finder.components import system
    from image_finder.components.bundle.bundle import Bundle
    from image_finder.components.library import vectors

    def refuse(source, target):
        raise PermissionError(13, "Access is denied")

    monkeypatch.setattr(vectors, "_WORTH_IT", 3)
    fill(home, paint, 12)
    home.index()
    for i in range(8):
        (home.images / f"{i % 2}" / f"{i}.png").unlink()
    with monkeypatch.context() as windows:
        windows.setattr(system, "rename", refuse)
        windows.setattr(system, "is_in_use", lambda error: isinstance(error, PermissionError))
        vectors.compact(vectors.open_vectors(home.library, Bundle.open(home.bundle), warn=print), set())
        (cache,) = home.library.root.glob("vectors-*")
        assert len((cache / "keys.tsv").read_text().splitlines()) == 12
    assert home.index().images == 4
    assert len((cache / "keys.tsv").read_text().splitlines()) == 4


def test_a_compaction_that_was_killed_between_its_renames_loses_nothing(home, paint):
    fill(home, paint, 4)
    home.index()
    (cache,) = home.library.root.glob("vectors-*")
    cache.rename(cache.with_name(cache.name + ".retired"))
    shutil.rmtree(home.library.index)
    assert home.index().embedded == 0


# Watching


def causes_of(folders, tmp_path, act, n=1):
    """The first n causes after a call of act()."""
    stop, found, bundle = threading.Event(), [], [0]
    started = threading.Event()

    def watch():
        watched = FolderWatch(
            folders,
            leave_out=tmp_path / "library",
            seen=lambda: view_of(scan_folders(list(map(path_bytes, folders)))),
            bundle_ns=lambda: bundle[0],
            stop=stop,
            warn=print,
            rescan_s=600,
            look_s=0.2,
        )
        for due in watched.causes():
            started.set()
            if due.cause != "start":
                found.append(due.cause)
            if len(found) >= n:
                stop.set()

    thread = threading.Thread(target=watch)
    thread.start()
    started.wait(20)
    deadline = time.monotonic() + 30
    while thread.is_alive() and time.monotonic() < deadline:
        act(bundle)
        thread.join(0.5)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    return found


def test_a_new_image_is_noticed_and_other_files_are_not(tmp_path, paint):
    (tmp_path / "p").mkdir()
    (tmp_path / "library").mkdir()
    quiet = iter([(tmp_path / "p" / "notes.txt").touch, lambda: paint(tmp_path / "library" / "a.png", "red")])

    def act(_):
        next(quiet, lambda: paint(tmp_path / "p" / "a.png", "red"))()

    assert causes_of([tmp_path], tmp_path, act) == ["images"]


def test_a_new_default_bundle_is_noticed(tmp_path):
    assert causes_of([tmp_path], tmp_path, lambda bundle: bundle.__setitem__(0, 7)) == ["bundle"]


def test_a_folder_that_reappears_is_noticed(tmp_path):
    assert causes_of([tmp_path / "p"], tmp_path, lambda _: (tmp_path / "p").mkdir(exist_ok=True)) == ["folders"]


def test_the_publication_time_is_zero_if_nothing_was_published(tmp_path):
    assert published_ns(tmp_path) == 0
