"""One file never ends a run: odd times, names, EXIF and sizes, and memory that is short for one image."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from image_finder.components import moments
from image_finder.components.app.cli import main
from image_finder.components.captions.inspection import inspect_images
from image_finder.components.configs import GalleryConfig
from image_finder.components.errors import ImageError
from image_finder.components.images import decoding, files, preprocess
from image_finder.components.images.exif import image_facts
from image_finder.components.images.image_folder import ImageFolder
from tests.support.galleries import publish_gallery

# What a disk may report: ext4 keeps the years 1901 to 2446, other file systems every number of 64 bits.
YEAR_2300, YEAR_1901, BEFORE_1970 = 10_413_792_000, -2_147_483_648, -1


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A private home and an empty folder for images."""
    monkeypatch.setenv("IMAGE_FINDER_HOME", str(tmp_path / "home"))
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return json.loads(result.stdout)


def hits(**options):
    arguments = [f"--{name}={value}" for name, value in options.items()]
    return {
        hit["name"]: hit for hit in run("search", "red", "-k", 50, "--duplicates", "show", "--json", *arguments)["hits"]
    }


def painted(paint, path, seconds, colour="red"):
    paint(path, colour)
    os.utime(path, ns=(0, seconds * 1_000_000_000))
    return path


def test_index_accepts_files_of_any_modification_time(place, paint, colour_bundle):
    for name, seconds in {"2300": YEAR_2300, "1901": YEAR_1901, "1969": BEFORE_1970}.items():
        painted(paint, place / f"{name}.png", seconds)
    assert run("index", place, "--bundle", colour_bundle.path, "--json")["images"] == 3
    assert {name: hit["modified_at"][:4] for name, hit in hits().items()} == {
        "1901.png": "1901",
        "1969.png": "1969",
        "2300.png": "2262",
    }
    assert set(hits(since="2200-01-01")) == {"2300.png"}
    assert set(hits(until="1950-01-01")) == {"1901.png"}
    again = run("index", "--json")
    assert (again["unchanged"], again["embedded"], again["published"]) == (3, 0, False)
    painted(paint, place / "2300.png", YEAR_2300 + 1, "lime")
    assert run("index", "--json")["changed"] == 1, "beyond the range equal times prove nothing"
    assert CliRunner().invoke(main, ["info"]).exit_code == 0


def test_a_gallery_accepts_files_of_any_modification_time(tmp_path, paint, colour_bundle):
    painted(paint, tmp_path / "gallery" / "a.png", YEAR_2300)
    painted(paint, tmp_path / "gallery" / "b.png", YEAR_1901)
    index = publish_gallery(GalleryConfig(root=tmp_path / "gallery"), colour_bundle, tmp_path / "library")
    assert [time.year for time in index.items["modified_at"].to_pylist()] == [2262, 1901]
    assert ImageFolder(str(tmp_path / "gallery")).state(Path("a.png")).modified_ns == (1 << 63) - 1


def test_inspection_accepts_any_modification_time_and_rereads_files_with_a_clamped_one(tmp_path, paint):
    painted(paint, tmp_path / "a.png", YEAR_2300)
    captions = pd.DataFrame({"image_id": [1], "file_name": ["a.png"], "part": ["train"]})
    before = inspect_images(captions, tmp_path, cache_path=tmp_path / "cache")["sha256"].tolist()
    painted(paint, tmp_path / "a.png", YEAR_2300 + 1, "lime")
    assert inspect_images(captions, tmp_path, cache_path=tmp_path / "cache")["sha256"].tolist() != before


@pytest.mark.parametrize("seconds", [YEAR_2300, -62_135_596_801, 253_402_300_800, 1 << 62, -(1 << 62)])
def test_modification_times_are_clamped_to_the_range_of_every_format(seconds):
    status: Any = SimpleNamespace(st_mtime_ns=seconds * 1_000_000_000)
    held = moments.modified_ns(status)
    assert -(1 << 63) <= held < 1 << 63
    assert not moments.is_exact(held)
    assert (moments.local(moments.utc(moments.modified_s(status))) < moments.local(moments.utc(0))) is (seconds < 0)


NAMES = ["line\nbreak.png", "bell\a\x1b[31m.png", "\u202egnp.txt.png", " two  blanks .png", "\udcff\udc80.png", "é" * 125 + ".png", "x" * 251 + ".png"]  # fmt: skip


def test_index_and_search_accept_odd_names(place, paint, colour_bundle):
    for name in NAMES:
        paint(place / name, "red")
    (place / "broken\n\udcff.jpg").write_bytes(b"x")
    summary = run("index", place, "--bundle", colour_bundle.path, "--json")
    assert (summary["added"] + summary["copied"], len(summary["failed"])) == (len(NAMES), 1)
    found = run("search", "red", "--duplicates", "show", "--json")["hits"]
    assert {hit["uri"] for hit in found} == {
        os.fsencode(place / name).decode("utf-8", "backslashreplace") for name in NAMES
    }
    assert CliRunner().invoke(main, ["info"]).exit_code == 0


def with_exif(path, tags):
    """A JPEG with raw EXIF: little-endian TIFF whose first directory holds tags (number, type, count, value)."""
    entries = b"".join(
        number.to_bytes(2, "little") + kind.to_bytes(2, "little") + count.to_bytes(4, "little") + value
        for number, kind, count, value in tags
    )
    ifd = len(tags).to_bytes(2, "little") + entries + (8).to_bytes(4, "little")  # the next directory is itself
    exif = b"Exif\0\0II*\0\x08\0\0\0" + ifd + bytes(64) + b"0000:00:00 00:00:00\0" * 3
    Image.new("RGB", (16, 12), "red").save(path, exif=exif)
    return path


def test_odd_exif_is_unknown_and_the_image_is_indexed(place, colour_bundle):
    at_8 = (8).to_bytes(4, "little")
    far = (0xFFFFFFF0).to_bytes(4, "little")
    odd = {
        "cycle": [(0x8769, 4, 1, at_8), (0x8825, 4, 1, at_8)],
        "far": [(0x8769, 4, 1, far), (0x9003, 2, 20, far), (0x010F, 2, 0xFFFFFFFF, far)],
        "types": [(0x0112, 2, 4, b"six\0"), (0x8825, 2, 4, b"gps\0"), (0x0132, 5, 1, at_8), (0x010F, 13, 9, at_8)],
        "zero": [(0x0132, 2, 20, (130).to_bytes(4, "little")), (0x0112, 3, 1, b"\xff\xff\0\0")],
    }
    for name, tags in odd.items():
        facts = image_facts(with_exif(place / f"{name}.jpg", tags))
        assert (facts.width_px, facts.taken_at, facts.latitude) == (16, None, None)
    summary = run("index", place, "--bundle", colour_bundle.path, "--json")
    assert (summary["images"], summary["failed"]) == (len(odd), {})


def test_a_file_of_gigabytes_is_refused_by_its_size_and_never_opened(place, paint, colour_bundle, monkeypatch):
    paint(place / "red.png", "red")
    with (place / "film.jpg").open("wb") as stream:
        stream.truncate(3 << 30)
    os.utime(place / "film.jpg", (1_600_000_000, 1_600_000_000))
    opened = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *rest, **how: opened.append(path.name) or real(path, *rest, **how))
    summary = run("index", place, "--bundle", colour_bundle.path, "--json")
    limit = "3,221,225,472 bytes, the limit is 536,870,912 bytes"
    assert (summary["images"], summary["failed"]) == (1, {f"{place}/film.jpg": limit})
    assert "red.png" in opened
    assert "film.jpg" not in opened
    assert run("index", "--json")["still_failing"] == 1
    with pytest.raises(ImageError, match="the limit is 536,870,912 bytes"):
        ImageFolder(str(place)).read(Path("film.jpg"))
    captions = pd.DataFrame({"image_id": [1], "file_name": ["film.jpg"], "part": ["train"]})
    assert inspect_images(captions, place)["error"].tolist() == [limit]
    assert "film.jpg" not in opened


@pytest.mark.parametrize("where", ["read", "decode"])
def test_an_image_that_exceeds_memory_fails_alone_and_is_retried(place, paint, colour_bundle, monkeypatch, where):
    for side, colour in enumerate(("red", "lime", "blue"), start=40):
        paint(place / f"{colour}.png", colour, (side * side, side))
    content = (place / "lime.png").read_bytes()
    with monkeypatch.context() as short:

        def load(source, **options):
            if source == content:
                raise MemoryError
            return decoding.load_rgb(source, **options)

        def check(n_bytes):
            if n_bytes == len(content):
                raise MemoryError

        if where == "read":
            short.setattr(files, "require_readable_size", check)
        else:
            short.setattr(preprocess, "load_rgb", load)
        summary = run("index", place, "--bundle", colour_bundle.path, "--json")
    assert "not enough memory" in summary["failed"].pop(f"{place}/lime.png")
    assert summary["failed"] == {}
    again = run("index", "--json")
    assert (again["failed"], again["images"]) == ({}, 3)
