"""Decoding: every kind of image becomes upright RGB, and every broken one a single line."""

import io
import os
import random
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from image_finder.components.errors import DataError, ImageError
from image_finder.components.images import decoding, files
from image_finder.components.images.decoding import image_size, load_for_display, load_rgb
from image_finder.components.images.files import find_images
from tests.support.checkout import CHECKOUT
from tests.support.encoded import encoded

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
# marked() encoded by pillow-heif 1.8.1 with EXIF orientation 6, hence an irot box of 270 degrees counter-clockwise,
# and with the camera, time and position that tests/unit/images/test_exif.py expects.
HEIC = (CHECKOUT / "tests/support/turned.heic").read_bytes()


def exif(orientation):
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def marked(width=48, height=32):
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    return image


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
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
    ],
)
def test_every_exif_orientation_is_displayed_upright(file_format, options, orientation):
    data = encoded(marked(), file_format, exif=exif(orientation), **options)
    image = load_rgb(data)
    assert image.size == image_size(data) == ((48, 32) if orientation <= 4 else (32, 48))
    side, end = CORNER_OF_ORIENTATION[orientation]
    x = 4 if side == "left" else image.width - 5
    y = 4 if end == "top" else image.height - 5
    assert near(image.getpixel((x, y)), RED)
    assert near(image.getpixel((image.width - 1 - x, image.height - 1 - y)), BLUE)


def test_decoded_image_cannot_be_turned_a_second_time():
    image = load_rgb(encoded(marked(), "JPEG", exif=exif(6)))
    assert image.getexif().get(ORIENTATION) is None
    assert image.info == {}


@pytest.mark.parametrize(("quarter_turns_left", "orientation"), [(0, 1), (1, 8), (2, 3), (3, 6)])
@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_heic_is_turned_once_by_its_own_rotation(brand, quarter_turns_left, orientation):
    data = HEIC.replace(b"irot\x03", b"irot" + bytes([quarter_turns_left])).replace(b"ftypheic", b"ftyp" + brand)
    image = load_rgb(data)
    assert image.size == image_size(data) == ((48, 32) if orientation in (1, 3) else (32, 48))
    side, end = CORNER_OF_ORIENTATION[orientation]
    x = 4 if side == "left" else image.width - 5
    y = 4 if end == "top" else image.height - 5
    assert near(image.getpixel((x, y)), RED, tolerance=24)
    assert near(image.getpixel((image.width - 1 - x, image.height - 1 - y)), BLUE, tolerance=24)
    assert image.getexif().get(ORIENTATION) is None


def test_heic_with_too_many_pixels_is_refused_also_if_its_header_hides_them(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 1535)
    with pytest.raises(ImageError, match="32 x 48 pixels, the limit is 1,535 pixels"):
        load_rgb(HEIC)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 1536)
    assert load_rgb(HEIC).size == (32, 48)
    stored = HEIC.index(b"ispe") + 8
    assert struct.unpack(">II", HEIC[stored : stored + 8]) == (64, 64)
    lying = HEIC[:stored] + struct.pack(">II", 48, 32) + HEIC[stored + 8 :]
    with pytest.raises(ImageError, match="cannot be decoded"):
        load_rgb(lying)


@pytest.mark.parametrize("old", [b"Exif\0\0\0\0\x0epitm", b"hvc1\0"])
@pytest.mark.parametrize("damage", [b"\xff", b"\xc3"])
def test_heic_with_an_item_type_that_would_crash_pi_heif_is_refused(old, damage):
    for position in range(4):
        at = HEIC.index(old) + position
        with pytest.raises(ImageError, match="cannot be decoded: an item of the HEIF file has a damaged type"):
            image_size(HEIC[:at] + damage + HEIC[at + 1 :])


def test_heic_whose_pixels_contain_the_name_of_a_box_is_read():
    assert image_size(HEIC + b"\xff" * 8 + b"infe" + b"\xff" * 90) == (32, 48)
    assert image_size(HEIC + b"\0\0\0\x40infe\x09" + b"\xff" * 90) == (32, 48)


def test_heic_without_pi_heif_says_what_to_install_and_avif_of_the_same_brand_still_opens(monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)  # what Python itself does to make an import fail
    reason = "HEIC images need pi-heif: pip install 'text-guided-image-finder[app]'"
    for data in (HEIC, HEIC.replace(b"ftypheic", b"ftypmif1")):
        with pytest.raises(ImageError) as refused:
            load_rgb(data)
        assert str(refused.value) == f"image ({len(data)} bytes): {reason}"
    avif = encoded(marked(), "AVIF").replace(b"ftypavif", b"ftypmif1")
    assert load_rgb(avif).size == (48, 32)


def test_impossible_orientation_and_damaged_exif_leave_the_image_as_stored():
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
def test_palette_image_with_transparency_is_laid_over_white(transparency):
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, *BLUE])
    palette.putpixel((1, 0), 1)
    decoded = load_rgb(encoded(palette, transparency=transparency))
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [WHITE, BLUE]


def test_grey_bilevel_palette_and_cmyk_images_become_rgb():
    assert load_rgb(encoded(Image.new("L", (3, 2), 77))).getpixel((0, 0)) == (77, 77, 77)
    assert load_rgb(encoded(Image.new("1", (3, 2), 1))).getpixel((0, 0)) == WHITE
    assert load_rgb(encoded(Image.new("RGB", (3, 2), RED).convert("P"))).getpixel((0, 0)) == RED
    cyan = load_rgb(encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=95))
    assert cyan.mode == "RGB"
    assert near(cyan.getpixel((8, 8)), (0, 255, 255))


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_an_animation_is_decoded_to_its_first_frame(file_format):
    options = {"lossless": True} if file_format == "WEBP" else {}
    later = Image.new("RGB", (20, 10), BLUE)
    data = encoded(Image.new("RGB", (20, 10), RED), file_format, save_all=True, append_images=[later], **options)
    assert near(load_rgb(data).getpixel((5, 5)), RED)


def test_image_of_one_pixel_is_decoded():
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
    assert image_size(data) == (size if orientation == 1 else size[::-1])


def test_jpeg_decoded_smaller_shows_the_same_image():
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
            with pytest.raises(ImageError):
                load_rgb(data[:kept], at_least_px=at_least_px)


def test_too_many_pixels_are_refused_before_decoding(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    path.write_bytes(encoded(Image.new("1", (4000, 3000)))[:200])  # decoding would stumble over the missing pixels
    monkeypatch.setattr(decoding, "MAX_PIXELS", 11_999_999)
    with pytest.raises(ImageError) as refused:
        load_rgb(path)
    assert str(refused.value) == f"{path}: 4000 x 3000 pixels, the limit is 11,999,999 pixels"
    whole = encoded(Image.new("1", (400, 300)))
    monkeypatch.setattr(decoding, "MAX_PIXELS", 120_000)
    assert load_rgb(whole).size == (400, 300)


def test_image_between_our_limit_and_pillows_raises_no_warning():
    header = encoded(Image.new("1", (8, 8))).replace(b"\0\0\0\x08\0\0\0\x08", b"\0\0\x2e\xe0\0\0\x2e\xe0")  # 12,000 px
    ihdr = header.index(b"IHDR")
    crc = zlib.crc32(header[ihdr : ihdr + 17]).to_bytes(4)
    with pytest.raises(ImageError, match="12000 x 12000 pixels, the limit is 100,000,000 pixels"):
        load_rgb(header[: ihdr + 17] + crc + header[ihdr + 21 :])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty (0 bytes)"),
        (b"<html>404</html>", "not a readable image (supported: JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a readable image"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "cannot be decoded: Invalid input: Unspecified: File size too small."),
    ],
)
def test_a_file_that_is_no_image_is_refused_with_path_and_reason_in_one_line(tmp_path, content, reason):
    path = tmp_path / "größe 写真.jpg"
    path.write_bytes(content)
    for read in (load_rgb, image_size):
        with pytest.raises(ImageError) as refused:
            read(path)
        assert str(refused.value).startswith(f"{path}: {reason}")
        assert "\n" not in str(refused.value)


def test_truncated_file_is_refused_with_its_path(tmp_path):
    path = tmp_path / "cut.jpg"
    path.write_bytes(encoded(noise(320, 240), "JPEG")[:-2000])
    with pytest.raises(ImageError) as refused:
        load_rgb(path)
    assert str(refused.value).startswith(f"{path}: cannot be decoded: image file is truncated")


@pytest.mark.posix
def test_missing_file_folder_and_pipe_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, reason in (("a.jpg", "No such file or directory"), (".", "not a regular"), ("pipe.jpg", "not a regular")):
        with pytest.raises(ImageError, match=reason):
            load_rgb(tmp_path / name)


def test_oversized_file_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_IMAGE_BYTES", 10)
    with pytest.raises(ImageError, match=r"bytes, the limit is 10 bytes$"):
        load_rgb(encoded(marked()))


def test_bytes_and_files_with_unicode_names_decode_alike(tmp_path):
    data = encoded(marked())
    path = tmp_path / "Sørens 犬 🐕.png"
    path.write_bytes(data)
    assert load_rgb(path).tobytes() == load_rgb(data).tobytes() == marked().tobytes()
    assert image_size(path) == (48, 32)


def test_random_damage_is_always_an_image_error_of_one_line():
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
        encoded(marked(), "AVIF", exif=exif(6)),
        HEIC,
    ]
    failures = []
    for _ in range(2000):
        data = bytearray(rng.choice(wholes))
        for _ in range(rng.choice((1, 2, 8))):
            data[rng.randrange(min(len(data), rng.choice((64, 1 << 30))))] = rng.randrange(256)
        try:
            assert load_rgb(bytes(data[: rng.choice((len(data), rng.randrange(1, len(data))))])).mode == "RGB"
        except ImageError as error:
            failures.append(str(error))
    assert len(failures) > 500
    assert not [failure for failure in failures if "\n" in failure]


def test_pillow_warnings_are_silenced_in_threads_and_other_warnings_afterwards_are_not():
    palette = marked().convert("P")
    bomb = encoded(Image.new("1", (9500, 9500)))  # above the 89,478,485 pixels at which Pillow starts to warn
    sources = [encoded(palette, transparency=b"\1\2"), bomb, b"no image"] * 4
    failures = []

    def decode(source):
        try:
            load_rgb(source)
        except ImageError:
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


@pytest.mark.parametrize(
    ("size", "at_most_px", "shown"),
    [
        ((640, 480), 320, (320, 240)),
        ((640, 427), 320, (320, 214)),  # libjpeg's half; the exact 213.5 needs no second scaling
        ((641, 427), 320, (320, 213)),
        ((480, 640), 320, (240, 320)),
        ((1000, 700), 333, (333, 233)),
        ((100, 80), 320, (100, 80)),
        ((3000, 2), 320, (320, 1)),
    ],
)
def test_image_for_display_fits_and_is_never_enlarged(size, at_most_px, shown):
    image = noise(size[0], size[1], block=1)
    data = encoded(image, "JPEG")
    assert load_for_display(data, at_most_px=at_most_px).size == shown
    turned = encoded(image, "JPEG", exif=exif(6))
    assert load_for_display(turned, at_most_px=at_most_px).size == shown[::-1]


def test_image_for_display_is_upright_and_has_no_metadata():
    profile = display_p3()
    data = encoded(marked(480, 320), "JPEG", exif=exif(6), icc_profile=profile, comment=b"secret", quality=95)
    image = load_for_display(data, at_most_px=240)
    assert (image.mode, image.size, image.info, len(image.getexif())) == ("RGB", (160, 240), {}, 0)
    assert near(image.getpixel((150, 10)), RED, tolerance=12)
    again = encoded(image, "JPEG")
    assert b"secret" not in again
    assert profile not in again


def display_p3():
    """An ICC profile with the primaries of Display P3 (SMPTE EG 432-1, adapted to D50) and the curve of sRGB."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    for entry in range(132, 132 + 12 * int.from_bytes(profile[128:132]), 12):
        xyz = primaries.get(bytes(profile[entry : entry + 4]))
        if xyz is not None:
            at = int.from_bytes(profile[entry + 4 : entry + 8]) + 8
            profile[at : at + 12] = struct.pack(">3i", *(round(value * 65536) for value in xyz))
    return bytes(profile)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_wide_gamut_colours_are_shown_in_srgb_but_embedded_as_stored(file_format):
    options = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}}.get(
        file_format, {"quality": 100, "subsampling": "4:4:4"}
    )
    # CSS Color 4: sRGB's red is color(display-p3 0.9175 0.2003 0.1386), its green (0.4584 0.9853 0.2983)
    for in_p3, in_srgb in (((234, 51, 35), RED), ((117, 251, 76), (0, 255, 0)), ((128, 128, 128), (128, 128, 128))):
        data = encoded(Image.new("RGB", (64, 64), in_p3), file_format, icc_profile=display_p3(), **options)
        assert near(load_for_display(data, at_most_px=32).getpixel((9, 9)), in_srgb, tolerance=5)
        assert near(load_rgb(data).getpixel((9, 9)), in_p3, tolerance=3)


def test_profile_that_is_damaged_or_of_another_colour_space_is_ignored():
    orange = (200, 100, 50)
    whole = display_p3()
    for profile in (b"no profile", whole[:200], whole[:16] + b"CMYK" + whole[20:], b"\0" * 5_000_000):
        stored = encoded(Image.new("RGB", (8, 8), orange), "TIFF", icc_profile=profile)
        assert load_for_display(stored, at_most_px=8).getpixel((4, 4)) == orange
    grey = encoded(Image.new("L", (8, 8), 77), icc_profile=whole)
    assert load_for_display(grey, at_most_px=8).getpixel((4, 4)) == (77, 77, 77)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F", "YCbCr"])
def test_every_kind_of_pixel_is_displayed_as_it_is_embedded(mode):
    image = Image.new("L", (64, 48), 255).convert("1") if mode == "1" else marked(64, 48).convert("L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(np.asarray(image).astype(np.float32) / 255)
    elif mode != "1":
        image = marked(64, 48).convert(mode)
    file_format = "TIFF" if mode in ("F", "CMYK", "YCbCr", "I;16") else "PNG"
    data = encoded(image, file_format)
    shown, embedded = load_for_display(data, at_most_px=32), load_rgb(data)
    assert shown.size == (32, 24)
    for at in ((4, 4), (28, 20), (4, 20), (28, 4)):
        assert near(shown.getpixel(at), embedded.getpixel((2 * at[0], 2 * at[1])), tolerance=2)


def test_transparency_is_laid_over_white_for_display_without_dark_edges():
    hole = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    hole.paste((255, 255, 255, 255), (16, 16, 48, 48))
    assert np.asarray(load_for_display(encoded(hole), at_most_px=20)).min() >= 254


def test_all_bands_of_a_large_16_bit_grey_are_scaled_by_the_same_white(monkeypatch):
    values = np.arange(-500, 1500, dtype=np.int32).reshape(50, 40) * 100  # beyond 16 bits: stretched from end to end
    data = encoded(Image.fromarray(values), "TIFF")
    whole = np.asarray(load_rgb(data))
    monkeypatch.setattr(decoding, "_GREY_PIXELS_AT_ONCE", 90)
    assert np.array_equal(np.asarray(load_rgb(data)), whole)
    assert (whole[0, 0, 0], whole[-1, -1, 0]) == (0, 255)


def test_images_are_found_sorted_by_ending_with_hidden_ones_skipped(tmp_path):
    for name in (
        "b/ü.JPG",
        "b/a.png",
        "a.webp",
        "notes.txt",
        ".hidden.jpg",
        ".cache/x.jpg",
        "b/.x/y.jpg",
        "z.tiff",
        "c.HEIC",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    assert [path.as_posix() for path in find_images(tmp_path)] == ["a.webp", "b/a.png", "b/ü.JPG", "c.HEIC", "z.tiff"]


@pytest.mark.posix
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
    assert [path.as_posix() for path in find_images(root)] == ["linked.jpg", "more/dog.jpg", "zoo/cat.jpg"]


def test_absent_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        find_images(tmp_path / "nowhere")


def test_every_real_photograph_decodes_whole_and_smaller(shared_data):
    folder = shared_data / "coco" / "train2017"
    found = find_images(folder)
    assert len(found) == 80
    for path in found:
        whole = load_rgb(folder / path)
        assert whole.size == image_size(folder / path)
        assert min(load_rgb(folder / path, at_least_px=64).size) >= 64


def test_module_imports_neither_pandas_nor_torch_nor_pi_heif():
    code = (
        "import sys; import image_finder.components.images.decoding; "
        "sys.exit(any(name in sys.modules for name in ('pandas', 'torch', 'pyarrow', 'pi_heif')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path.cwd()).returncode == 0
