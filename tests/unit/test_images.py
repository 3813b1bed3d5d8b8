"""Decoding: every kind of picture becomes upright RGB, and every broken one a single line."""

import io
import os
import random
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.data import images
from components.data.images import find_pictures, load_rgb, picture_size
from components.errors import DataError, PictureError

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
ORIENTATION = 0x0112
# Where the stored top left corner (red, the rest is blue) is displayed, from the EXIF standard's table of tag 274.
CORNER_OF_ORIENTATION = {
    1: ("left", "top"),
    2: ("right", "top"),
    3: ("right", "bottom"),
    4: ("left", "bottom"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def encoded(picture, file_format="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, file_format, **options)
    return stream.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def marked(width=48, height=32):
    picture = Image.new("RGB", (width, height), BLUE)
    picture.paste(RED, (0, 0, width // 2, height // 2))
    return picture


def near(pixel, wanted, tolerance=6):
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, wanted, strict=True))


def noise(width, height, block=8):
    values = np.random.default_rng(0).integers(0, 256, (height // block, width // block, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("orientation", CORNER_OF_ORIENTATION)
@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_every_exif_orientation_is_displayed_upright(file_format, options, orientation):
    data = encoded(marked(), file_format, exif=exif(orientation), **options)
    picture = load_rgb(data)
    assert picture.size == picture_size(data) == ((48, 32) if orientation <= 4 else (32, 48))
    side, end = CORNER_OF_ORIENTATION[orientation]
    x = 4 if side == "left" else picture.width - 5
    y = 4 if end == "top" else picture.height - 5
    assert near(picture.getpixel((x, y)), RED)
    assert near(picture.getpixel((picture.width - 1 - x, picture.height - 1 - y)), BLUE)


def test_decoded_picture_cannot_be_turned_a_second_time():
    picture = load_rgb(encoded(marked(), "JPEG", exif=exif(6)))
    assert picture.getexif().get(ORIENTATION) is None
    assert picture.info == {}


def test_impossible_orientation_and_damaged_exif_leave_the_picture_as_stored():
    assert load_rgb(encoded(marked(), "JPEG", exif=exif(9))).size == (48, 32)
    assert load_rgb(encoded(marked(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")).size == (48, 32)


def test_16_bit_grey_is_scaled_not_clipped():
    ramp = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    for data in (encoded(Image.fromarray(ramp)), encoded(Image.fromarray(ramp), "TIFF")):
        assert np.asarray(load_rgb(data))[0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]


def test_float_and_32_bit_greys_are_scaled():
    unit = np.array([[0.0, 0.2, 1.0]], dtype=np.float32)
    assert np.asarray(load_rgb(encoded(Image.fromarray(unit), "TIFF")))[0, :, 0].tolist() == [0, 51, 255]
    beyond = np.array([[-100, 0, 155]], dtype=np.int32)
    assert np.asarray(load_rgb(encoded(Image.fromarray(beyond), "TIFF")))[0, :, 0].tolist() == [0, 100, 255]
    holed = np.array([[np.nan, 1.0]], dtype=np.float32)
    assert np.asarray(load_rgb(encoded(Image.fromarray(holed), "TIFF")))[0, :, 0].tolist() == [0, 255]
    flat = np.full((1, 2), 1_000_000, dtype=np.int32)
    assert np.asarray(load_rgb(encoded(Image.fromarray(flat), "TIFF")))[0, :, 0].tolist() == [0, 0]


def test_transparency_is_laid_over_white():
    half = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    half.putpixel((1, 0), (0, 0, 255, 128))
    decoded = load_rgb(encoded(half))
    assert decoded.getpixel((0, 0)) == WHITE
    assert near(decoded.getpixel((1, 0)), (127, 127, 255), tolerance=1)
    assert load_rgb(encoded(Image.new("LA", (1, 1), (0, 0)))).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"], ids=["index", "bytes"])
def test_palette_picture_with_transparency_is_laid_over_white(transparency):
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, *BLUE])
    palette.putpixel((1, 0), 1)
    decoded = load_rgb(encoded(palette, transparency=transparency))
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [WHITE, BLUE]


def test_grey_bilevel_palette_and_cmyk_pictures_become_rgb():
    assert load_rgb(encoded(Image.new("L", (3, 2), 77))).getpixel((0, 0)) == (77, 77, 77)
    assert load_rgb(encoded(Image.new("1", (3, 2), 1))).getpixel((0, 0)) == WHITE
    assert load_rgb(encoded(Image.new("RGB", (3, 2), RED).convert("P"))).getpixel((0, 0)) == RED
    cyan = load_rgb(encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=95))
    assert cyan.mode == "RGB"
    assert near(cyan.getpixel((8, 8)), (0, 255, 255))


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_stands_for_an_animation(file_format):
    options = {"lossless": True} if file_format == "WEBP" else {}
    later = Image.new("RGB", (20, 10), BLUE)
    data = encoded(Image.new("RGB", (20, 10), RED), file_format, save_all=True, append_images=[later], **options)
    assert load_rgb(data).getpixel((5, 5)) == RED


def test_picture_of_one_pixel_is_decoded():
    assert load_rgb(encoded(Image.new("RGB", (1, 1), RED))).getpixel((0, 0)) == RED
    assert load_rgb(encoded(Image.new("RGB", (1, 1), RED), "JPEG"), at_least_px=224).size == (1, 1)


@pytest.mark.parametrize(
    ("size", "at_least_px", "stored"),
    [
        ((640, 480), 224, (320, 240)),
        ((640, 480), 240, (320, 240)),
        ((640, 480), 241, (640, 480)),
        ((480, 640), 60, (60, 80)),
        ((1001, 333), 64, (251, 84)),
        ((100, 80), 224, (100, 80)),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_jpeg_is_decoded_smaller_only_while_the_shorter_side_stays_long_enough(size, at_least_px, stored, orientation):
    data = encoded(noise(*size), "JPEG", exif=exif(orientation))
    upright = stored if orientation == 1 else stored[::-1]
    assert load_rgb(data, at_least_px=at_least_px).size == upright
    assert picture_size(data) == (size if orientation == 1 else size[::-1])


def test_jpeg_decoded_smaller_shows_the_same_picture():
    data = encoded(noise(640, 480, block=40), "JPEG", quality=90)
    small = load_rgb(data, at_least_px=224)
    reference = load_rgb(data).resize(small.size, Image.Resampling.BOX)
    difference = np.abs(np.asarray(small, dtype=int) - np.asarray(reference, dtype=int))
    assert difference.mean() < 1


@pytest.mark.parametrize("progressive", [False, True])
def test_truncation_is_found_at_every_cut_whether_decoded_whole_or_smaller(progressive):
    data = encoded(noise(320, 240), "JPEG", quality=90, progressive=progressive)
    for kept in [*range(1, len(data), max(1, len(data) // 60)), *range(len(data) - 20, len(data))]:
        for at_least_px in (None, 16):
            with pytest.raises(PictureError):
                load_rgb(data[:kept], at_least_px=at_least_px)


def test_too_many_pixels_are_refused_before_decoding(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(encoded(Image.new("1", (4000, 3000)))[:200])  # decoding would stumble over the missing pixels
    with pytest.raises(PictureError) as refused:
        load_rgb(path, max_pixels=11_999_999)
    assert str(refused.value) == f"{path}: 4000 x 3000 pixels, the limit is 11,999,999 pixels"
    whole = encoded(Image.new("1", (400, 300)))
    assert load_rgb(whole, max_pixels=120_000).size == (400, 300)


def test_picture_between_our_limit_and_pillows_raises_no_warning():
    header = encoded(Image.new("1", (8, 8))).replace(b"\0\0\0\x08\0\0\0\x08", b"\0\0\x2e\xe0\0\0\x2e\xe0")  # 12,000 px
    ihdr = header.index(b"IHDR")
    crc = zlib.crc32(header[ihdr : ihdr + 17]).to_bytes(4)
    with pytest.raises(PictureError, match="12000 x 12000 pixels, the limit is 100,000,000 pixels"):
        load_rgb(header[: ihdr + 17] + crc + header[ihdr + 21 :])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty (0 bytes)"),
        (b"<html>404</html>", "not a picture, or damaged, or of a format that is not supported"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture, or damaged"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC pictures are not supported; convert it to JPEG"),
    ],
)
def test_what_is_no_picture_is_refused_with_path_and_reason_in_one_line(tmp_path, content, reason):
    path = tmp_path / "größe 写真.jpg"
    path.write_bytes(content)
    for read in (load_rgb, picture_size):
        with pytest.raises(PictureError) as refused:
            read(path)
        assert str(refused.value).startswith(f"{path}: {reason}")
        assert "\n" not in str(refused.value)


def test_truncated_file_is_refused_with_its_path(tmp_path):
    path = tmp_path / "cut.jpg"
    path.write_bytes(encoded(noise(320, 240), "JPEG")[:-2000])
    with pytest.raises(PictureError) as refused:
        load_rgb(path)
    assert str(refused.value).startswith(f"{path}: cannot be decoded: image file is truncated")


def test_missing_file_folder_and_pipe_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, reason in (("a.jpg", "No such file or directory"), (".", "not a regular"), ("pipe.jpg", "not a regular")):
        with pytest.raises(PictureError, match=reason):
            load_rgb(tmp_path / name)


def test_oversized_file_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PICTURE_BYTES", 10)
    with pytest.raises(PictureError, match=r"bytes, the limit is 10 bytes$"):
        load_rgb(encoded(marked()))


def test_bytes_and_files_with_unicode_names_decode_alike(tmp_path):
    data = encoded(marked())
    path = tmp_path / "Sørens 犬 🐕.png"
    path.write_bytes(data)
    assert load_rgb(path).tobytes() == load_rgb(data).tobytes() == marked().tobytes()
    assert picture_size(path) == (48, 32)


def test_random_damage_is_always_a_picture_error_of_one_line():
    rng = random.Random(0)
    wholes = [
        encoded(marked(), "JPEG", exif=exif(6)),
        encoded(marked().convert("CMYK"), "JPEG", progressive=True),
        encoded(marked().convert("RGBA")),
        encoded(marked().convert("P"), transparency=b"\1\2\3"),
        encoded(marked().convert("P"), "GIF", save_all=True, append_images=[marked().convert("P")]),
        encoded(marked(), "WEBP"),
        encoded(marked(), "BMP"),
        encoded(marked(), "TIFF", exif=exif(6)),
    ]
    failures = []
    for _ in range(1500):
        data = bytearray(rng.choice(wholes))
        for _ in range(rng.choice((1, 2, 8))):
            data[rng.randrange(min(len(data), rng.choice((64, 1 << 30))))] = rng.randrange(256)
        try:
            assert load_rgb(bytes(data[: rng.choice((len(data), rng.randrange(1, len(data))))])).mode == "RGB"
        except PictureError as error:
            failures.append(str(error))
    assert len(failures) > 500
    assert not [failure for failure in failures if "\n" in failure]


def test_pillow_warnings_are_silenced_in_threads_and_other_warnings_afterwards_are_not():
    palette = marked().convert("P")
    bomb = encoded(Image.new("1", (9500, 9500)))  # above the 89,478,485 pixels at which Pillow starts to warn
    sources = [encoded(palette, transparency=b"\1\2"), bomb, b"no picture"] * 4
    failures = []

    def decode(source):
        try:
            load_rgb(source)
        except PictureError:
            failures.append("refused")
        except Warning as warning:
            failures.append(repr(warning))

    before = list(warnings.filters)
    threads = [threading.Thread(target=decode, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == ["refused"] * 4
    assert list(warnings.filters) == before
    with pytest.raises(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(bomb))


def test_pictures_are_found_sorted_by_ending_with_hidden_ones_skipped(tmp_path):
    for name in ("b/ü.JPG", "b/a.png", "a.webp", "notes.txt", ".hidden.jpg", ".cache/x.jpg", "b/.x/y.jpg", "z.tiff"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    assert [path.as_posix() for path in find_pictures(tmp_path)] == ["a.webp", "b/a.png", "b/ü.JPG", "z.tiff"]


def test_linked_folders_are_followed_once_and_loops_end(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for path in (root / "zoo/cat.jpg", elsewhere / "dog.jpg"):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    (root / "a loop").symlink_to(root, target_is_directory=True)
    (root / "zoo/up").symlink_to(root, target_is_directory=True)
    (root / "a second way").symlink_to(root / "zoo", target_is_directory=True)
    (root / "more").symlink_to(elsewhere, target_is_directory=True)
    (elsewhere / "back").symlink_to(root, target_is_directory=True)
    (root / "dangling.jpg").symlink_to(root / "gone.jpg")
    (root / "self.jpg").symlink_to(root / "self.jpg")
    (root / "linked.jpg").symlink_to(elsewhere / "dog.jpg")
    assert [path.as_posix() for path in find_pictures(root)] == ["linked.jpg", "more/dog.jpg", "zoo/cat.jpg"]


def test_absent_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        find_pictures(tmp_path / "nowhere")


def test_every_real_photograph_decodes_whole_and_smaller(shared_data):
    folder = shared_data / "coco" / "train2017"
    found = find_pictures(folder)
    assert len(found) == 80
    for path in found:
        whole = load_rgb(folder / path)
        assert whole.size == picture_size(folder / path)
        assert min(load_rgb(folder / path, at_least_px=64).size) >= 64


def test_module_imports_neither_pandas_nor_torch():
    code = (
        "import sys; import components.data.images; "
        "sys.exit(any(name in sys.modules for name in ('pandas', 'torch', 'pyarrow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path.cwd()).returncode == 0
