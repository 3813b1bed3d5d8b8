"""JPEG files without their end, and PNG files with large metadata: indexed as far as readable; training refuses cuts."""

import contextlib
import io
import json
import zlib
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image, ImageCms, PngImagePlugin

from image_finder.components.app.cli import main
from image_finder.components.captions.inspection import inspect_images
from image_finder.components.configs import EmbeddingConfig
from image_finder.components.errors import ImageError
from image_finder.components.images.augmentation import View
from image_finder.components.images.cut_jpeg import completed
from image_finder.components.images.decoding import load_for_display, load_rgb, read_exif
from image_finder.components.images.pillow import with_image
from image_finder.components.images.preprocess import Preprocess
from image_finder.components.index.vector_cache import cache_vectors, throughput_encoder, vector_cache

KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts by row": {"restart_marker_rows": 1},
    "restarts in rows": {"restart_marker_blocks": 7},
    "full chroma": {"subsampling": 0},
    "grey": {"mode": "L"},
    "cmyk": {"mode": "CMYK"},
}


def ignored(note: str) -> None:
    """Takes a note that no test reads."""


def photograph(mode="RGB", quality=90, **options):
    """JPEG of 320 x 640 with detail in every row."""
    noise = np.random.default_rng(1).integers(0, 256, (40, 20, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((320, 640), Image.Resampling.BICUBIC).convert(mode)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_without_its_end_marker_is_complete_but_refused_without_on_cut(kind):
    whole = photograph(**KINDS[kind])
    notes = []
    image = load_rgb(whole[:-2], on_cut=notes.append)
    assert notes in ([], ["its end marker is missing"]), "a decoder may have all pixels already"
    assert np.array_equal(np.asarray(image), np.asarray(load_rgb(whole)))
    if notes:
        with pytest.raises(ImageError, match="truncated"):
            load_rgb(whole[:-2])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("filling", [b"", b"\0", b"\xff"])
def test_a_jpeg_cut_near_its_end_is_decoded_and_one_cut_in_half_is_not(kind, filling):
    whole = photograph(**KINDS[kind])
    for share, is_readable in [(0.99, True), (0.85, False), (0.5, False), (0.2, False)]:
        kept = int(share * len(whole))
        cut = whole[:kept] + filling * (len(whole) - kept)
        notes = []
        if is_readable:
            top = np.asarray(load_rgb(cut, on_cut=notes.append))[:600]
            assert notes[0].startswith(("its end is missing, ", "its end marker"))
            assert np.array_equal(top, np.asarray(load_rgb(whole))[:600]) or kind == "progressive"
            assert load_for_display(cut, at_most_px=64).size == (32, 64)
        else:
            with pytest.raises(ImageError, match="truncated"):
                load_rgb(cut, on_cut=notes.append)
            assert notes == []


def test_zeros_instead_of_pixels_are_detected_and_zeros_after_the_end_are_ignored(tmp_path):
    whole = photograph(subsampling=0, quality=60)
    half = whole[: len(whole) // 2] + bytes(1 << 20)
    with Image.open(io.BytesIO(half)) as image:
        image.load()  # libjpeg takes the zeros for pixels
    (tmp_path / "half.jpg").write_bytes(half)
    for source in (half, tmp_path / "half.jpg"):
        for on_cut in (None, ignored):
            with pytest.raises(ImageError, match="truncated"):
                load_rgb(source, on_cut=on_cut)
    assert np.array_equal(np.asarray(load_rgb(whole + bytes(5000))), np.asarray(load_rgb(whole)))
    notes = []
    load_rgb(whole[:-20] + bytes(1 << 20), on_cut=notes.append)
    assert notes[0].startswith("its end is missing, 1.")


def test_the_note_says_how_much_is_missing():
    whole = photograph()
    notes = []
    load_rgb(whole[: int(0.97 * len(whole))], on_cut=notes.append, at_least_px=64)
    assert notes == ["its end is missing, 5.0% of the image"]


def test_every_cut_in_the_last_bytes_gives_an_image_or_an_image_error():
    for options in (KINDS["baseline"], KINDS["progressive"], KINDS["restarts in rows"]):
        whole = photograph(**options)
        for kept in [*range(len(whole) - 40, len(whole)), *range(2, len(whole), len(whole) // 25)]:
            with contextlib.suppress(ImageError):
                assert load_rgb(whole[:kept], on_cut=ignored).size == (320, 640)


def test_only_jpeg_files_are_completed():
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(stream, "PNG")
    for content in (stream.getvalue()[:60], b"", b"\xff\xd8", b"\xff\xd8\xff", b"no image"):
        assert completed(content) is None
        with pytest.raises(ImageError):
            load_rgb(content, on_cut=ignored)


def test_training_and_its_check_refuse_truncated_images_that_the_index_accepts(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(photograph()[:-40])
    preprocess = Preprocess(input_px=64, mean=(0, 0, 0), std=(1, 1, 1))
    assert preprocess.load(tmp_path / "cut.jpg").shape == (64, 64, 3)
    for number in (0, 1):
        with pytest.raises(ImageError, match="truncated"):
            View(preprocess, number).load(tmp_path / "cut.jpg")
    captions = pd.DataFrame({"image_id": [1], "file_name": ["cut.jpg"], "part": ["train"]})
    assert "truncated" in inspect_images(captions, tmp_path)["error"][0]


def test_index_notes_damaged_ends_and_a_gallery_logs_them(tmp_path, monkeypatch, paint, colour_bundle, caplog):
    monkeypatch.setenv("IMAGE_FINDER_HOME", str(tmp_path / "home"))
    images = tmp_path / "images"
    paint(images / "whole.png", "lime")
    whole = photograph()
    (images / "cut.jpg").write_bytes(whole[:-40])
    (images / "copy.jpg").write_bytes(whole[:-40])
    (images / "half.jpg").write_bytes(whole[: len(whole) // 2])
    done = CliRunner().invoke(main, ["index", str(images), "--bundle", str(colour_bundle.path)])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    at = lines.index("2 images truncated, indexed as far as readable:")
    assert [line.split(": ")[0].strip() for line in lines[at + 1 : at + 3]] == [
        f"{images}/copy.jpg",
        f"{images}/cut.jpg",
    ]
    assert any(line.startswith(f"  {images}/half.jpg: cannot be decoded: image file is truncated") for line in lines)
    found = CliRunner().invoke(main, ["search", "lime", "--duplicates", "show", "--json"])
    assert {hit["name"] for hit in json.loads(found.stdout)["hits"]} == {"whole.png", "cut.jpg", "copy.jpg"}
    config = EmbeddingConfig(device="cpu", threads=1)
    cache = vector_cache(colour_bundle, tmp_path / "cache")
    cache_vectors(throughput_encoder(colour_bundle, config), [images / "cut.jpg"], cache, config)
    assert f"1 image is damaged at the end and embedded as far as readable, first {images}/cut.jpg" in caplog.text


def png(*chunks, **options):
    """A PNG with chunks, given as (name, body), before its pixels and again behind them if `behind`."""
    stream = io.BytesIO()
    image = Image.new("RGB", (40, 30), "red")
    image.putpixel((0, 0), (0, 0, 255))
    behind = options.pop("behind", False)
    image.save(stream, "PNG", **options)
    content = stream.getvalue()
    made = b"".join(len(body).to_bytes(4) + name + body + zlib.crc32(name + body).to_bytes(4) for name, body in chunks)
    at = content.index(b"IEND") - 4 if behind else content.index(b"IDAT") - 4
    return content[:at] + made + content[at:]


LARGE = zlib.compress(b"n" * 1_500_000)
METADATA = {
    "packed text": (b"zTXt", b"workflow\0\0" + LARGE),
    "XMP": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE),
    "profile": (b"iCCP", b"ICC profile\0\0" + LARGE),
    "bomb": (b"zTXt", b"k\0\0" + zlib.compress(bytes(300_000_000), 9)),
}


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("kind", METADATA)
def test_png_with_large_metadata_is_decoded_without_it(kind, behind):
    content = png(METADATA[kind], behind=behind)
    with pytest.raises(ValueError, match="too large"), Image.open(io.BytesIO(content)) as image:
        image.load()
    assert load_rgb(content).getpixel((0, 0)) == (0, 0, 255)
    assert load_for_display(content, at_most_px=40).getpixel((5, 5)) == (255, 0, 0)


def test_png_with_much_text_in_many_chunks_is_decoded():
    content = png(*[(b"tEXt", b"key%d\0" % number + b"n" * 9_000_000) for number in range(8)])
    assert load_rgb(content).size == (40, 30)


def test_png_keeps_orientation_and_small_metadata_when_large_metadata_are_removed():
    exif = Image.Exif()
    exif[0x0112] = 6
    text = PngImagePlugin.PngInfo()
    text.add_text("title", "kept", zip=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = png(METADATA["XMP"], exif=exif, pnginfo=text, icc_profile=profile)
    assert load_rgb(content).size == (30, 40)
    kept = with_image(content, lambda image: (image.info["title"], image.info["icc_profile"], dict(read_exif(image))))
    assert kept == ("kept", profile, {0x0112: 6})


def test_png_with_truncated_pixels_is_refused():
    content = png(METADATA["XMP"])
    with pytest.raises(ImageError):
        load_rgb(content[: content.index(b"IDAT") + 20], on_cut=ignored)
