"""Facts of a photograph: what EXIF says well is kept, what it says badly is unknown, and nothing of it is fatal."""

import io
import random
import zlib
from datetime import datetime
from fractions import Fraction

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from image_finder.components.errors import ImageError
from image_finder.components.images.decoding import image_size
from image_finder.components.images.exif import ImageFacts, image_facts
from image_finder.components.images.files import find_images
from tests.support.checkout import CHECKOUT

MAKE, MODEL, ORIENTATION, DATE_TIME, ORIGINAL, DIGITIZED = 0x010F, 0x0110, 0x0112, 0x0132, 0x9003, 0x9004
HEIC = (CHECKOUT / "tests/support/turned.heic").read_bytes()  # see test_images.py for how it was made
SUMMER = datetime.fromisoformat("2019-07-14T18:30:05")
SYDNEY = {1: "S", 2: (33, 51, 24), 3: "E", 4: (151, 12, Fraction(54))}


def photograph(file_format="JPEG", *, first=None, details=None, gps=None):
    exif = Image.Exif()
    exif.update(first or {})
    if details:
        exif.get_ifd(0x8769).update(details)
    if gps:
        exif.get_ifd(0x8825).update(gps)
    if file_format == "TIFF":  # its writer leaves out directories that were not read from bytes
        block, exif = exif.tobytes(), Image.Exif()
        exif.load(block)
    stream = io.BytesIO()
    Image.new("RGB", (48, 32), "teal").save(stream, file_format, exif=exif)
    return stream.getvalue()


def position(gps):
    facts = image_facts(photograph(gps=gps))
    return facts.latitude, facts.longitude


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_size_time_camera_and_position_are_read_from_every_format(file_format):
    facts = image_facts(
        photograph(
            file_format,
            first={ORIENTATION: 6, MAKE: "Apple", MODEL: "iPhone 12"},
            details={ORIGINAL: "2019:07:14 18:30:05"},
            gps=SYDNEY,
        )
    )
    assert (facts.width_px, facts.height_px) == (32, 48)
    assert (facts.taken_at, facts.camera) == (SUMMER, "Apple iPhone 12")
    assert facts.latitude == pytest.approx(-33.856667, abs=1e-6)
    assert facts.longitude == pytest.approx(151.215, abs=1e-6)


def test_facts_of_heic_are_read_and_its_size_is_the_upright_one():
    facts = image_facts(HEIC)
    assert (facts.width_px, facts.height_px, facts.camera) == (32, 48, "Canon EOS 80D")
    assert facts.taken_at == SUMMER
    assert (facts.latitude, facts.longitude) == (pytest.approx(-33.856667, abs=1e-6), pytest.approx(151.215, abs=1e-6))


def test_image_without_exif_has_only_a_size(tmp_path):
    path = tmp_path / "plain.png"
    Image.new("L", (7, 5)).save(path)
    nothing = {"taken_at": None, "camera": "", "latitude": None, "longitude": None}
    assert image_facts(path).model_dump() == {"width_px": 7, "height_px": 5, **nothing}


def test_png_without_exif_is_not_decoded():
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(stream, "PNG")
    cut = stream.getvalue()[:200]  # decoding would stumble over the missing pixels
    assert (image_facts(cut).width_px, image_facts(cut).height_px) == (64, 64)


def test_time_of_the_shutter_is_preferred_to_scan_and_change():
    changed = {DATE_TIME: "2021:03:03 03:03:03"}
    scanned = {DIGITIZED: "2020:02:02 02:02:02"}
    taken = {ORIGINAL: "1999:01:01 01:01:01"}
    assert image_facts(photograph(first=changed)).taken_at == datetime.fromisoformat("2021-03-03T03:03:03")
    assert image_facts(photograph(first=changed, details=scanned)).taken_at == datetime.fromisoformat(
        "2020-02-02T02:02:02"
    )
    assert image_facts(photograph(first=changed, details=scanned | taken)).taken_at == datetime.fromisoformat(
        "1999-01-01T01:01:01"
    )
    unset = scanned | {ORIGINAL: "0000:00:00 00:00:00"}
    assert image_facts(photograph(first=changed, details=unset)).taken_at == datetime.fromisoformat(
        "2020-02-02T02:02:02"
    )


@pytest.mark.parametrize(
    "text",
    [
        "0000:00:00 00:00:00",
        "9999:12:31 23:59:59",
        "1825:12:31 23:59:59",
        "2019:02:29 12:00:00",
        "2019:13:01 12:00:00",
        "2019:07:14 24:00:00",
        "2019:07:14 18:30:60",
        "    :  :     :  :  ",
        "2019:07\x0014 18:30:05",
        "\u0662\u0660\u0661\u0669:07:14 18:30:05".encode(),  # Arabic digits, which int() would take
        "\uff12\uff10\uff11\uff19:07:14 18:30:05".encode(),  # full-width ones
        b"2019:07:14 18:30:0\xb2",
        "2019:07:14",
        "14/07/2019 18:30",
        "1563129005",
        "",
        "2019:07:14 18:30:05 and more",
    ],
)
def test_absurd_time_is_unknown(text):
    assert image_facts(photograph(details={ORIGINAL: text})).taken_at is None


@pytest.mark.parametrize(
    "text",
    [
        "2019:07:14 18:30:05\0\0\0",
        " 2019:07:14 18:30:05 ",
        "2019-07-14T18:30:05Z",
        "2019:07:14 18:30:05.123+02:00",
    ],
)
def test_times_as_phones_and_scanners_write_them_are_local_times(text):
    assert image_facts(photograph(details={ORIGINAL: text})).taken_at == SUMMER


def test_time_of_the_wrong_type_is_unknown():
    assert image_facts(photograph(details={ORIGINAL: 20190714, DIGITIZED: (1, 2)})).taken_at is None


@pytest.mark.parametrize(
    ("make", "model", "camera"),
    [
        ("Canon", "Canon EOS 80D", "Canon EOS 80D"),
        ("CANON", "Canon EOS 80D", "Canon EOS 80D"),
        ("NIKON CORPORATION", "NIKON D90", "NIKON D90"),
        ("EASTMAN KODAK COMPANY", "KODAK DX6490", "KODAK DX6490"),
        ("Apple", "iPhone 12", "Apple iPhone 12"),
        ("Google", "", "Google"),
        ("", "Pixel 5", "Pixel 5"),
        ("samsung", "samsung", "samsung"),
        ("NIKON\0\0\0\0", "E950  \0\0", "NIKON E950"),
        ("Canon\0garbage", "PowerShot", "Canon PowerShot"),
        ("SONY\x07\x1b[31m", "\tDSC-\n W50\x7f", "SONY [31m DSC- W50"),
        (b"Xiaomi", "Mi 手机".encode(), "Xiaomi Mi 手机"),
        (b"Caf\xe9", "X", "Café X"),
        ("Evil", "\u202egnp.exe".encode(), "Evil gnp.exe"),
        (" \0", "\x01", ""),
    ],
)
def test_camera_is_named_once_in_clean_text(make, model, camera):
    assert image_facts(photograph(first={MAKE: make, MODEL: model})).camera == camera


def test_name_of_a_camera_ends_after_a_hundred_characters():
    assert image_facts(photograph(first={MAKE: "M" * 60, MODEL: "m" * 70})).camera == "M" * 60 + " " + "m" * 39


@pytest.mark.parametrize(("north", "south"), [("N", "S"), ("n", "s"), ("N\0", "S\0")])
def test_south_and_west_are_negative(north, south):
    coordinates = {2: (33, 51, 24), 3: "W", 4: (70, 30, 0)}
    assert position({1: south} | coordinates) == (pytest.approx(-33.856667, abs=1e-6), -70.5)
    assert position({1: north} | coordinates) == (pytest.approx(33.856667, abs=1e-6), -70.5)


def test_decimal_degrees_and_minutes_are_understood():
    gps = {1: "N", 2: (Fraction(525163, 10000), 0, 0), 3: "E", 4: (13, Fraction(226660, 10000), 0)}
    assert position(gps) == (pytest.approx(52.5163), pytest.approx(13.377767, abs=1e-6))


@pytest.mark.parametrize(
    "change",
    [
        {2: (0, 0, 0), 4: (0, 0, 0)},
        {2: (91, 0, 0)},
        {2: (90, 0, 1)},
        {4: (180, 0, 1)},
        {2: (33, 61, 0)},
        {4: (151, 0, 5345)},
        {2: (IFDRational(33, 0), IFDRational(51, 0), IFDRational(24, 0))},
        {4: (IFDRational(151, 1), IFDRational(12, 1), IFDRational(0, 0))},
        {1: None},
        {3: None},
        {2: None},
        {4: None},
        {1: "E"},
        {3: "X"},
        {1: ""},
        {2: (33, 51)},
        {2: 33},
    ],
)
def test_implausible_position_is_unknown(change):
    gps = {tag: value for tag, value in (SYDNEY | change).items() if value is not None}
    assert position(gps) == (None, None)


def test_poles_the_date_line_and_the_equator_are_positions():
    assert position({1: "S", 2: (90, 0, 0), 3: "W", 4: (180, 0, 0)}) == (-90.0, -180.0)
    assert position({1: "N", 2: (0, 0, 0), 3: "E", 4: (9, 0, 0)}) == (0.0, 9.0)


def test_exif_directory_with_a_bad_offset_leaves_the_other_facts_known():
    data = photograph(first={MAKE: "Canon"}, details={ORIGINAL: "2019:07:14 18:30:05"}, gps=SYDNEY)
    facts = image_facts(damaged_pointer(data, 0x8825))
    assert (facts.camera, facts.taken_at, facts.latitude) == ("Canon", SUMMER, None)
    facts = image_facts(damaged_pointer(data, 0x8769))
    assert (facts.camera, facts.taken_at, facts.longitude) == ("Canon", None, pytest.approx(151.215))


def damaged_pointer(data, tag):
    at = data.index(tag.to_bytes(2) + b"\0\x04\0\0\0\x01") + 8
    return data[:at] + b"\x7f\xff\xff\xf0" + data[at + 4 :]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_meaningless_exif_leaves_the_size_known(file_format):
    for block in (
        b"Exif\0\0",
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0nonsense",
    ):
        stream = io.BytesIO()
        Image.new("RGB", (48, 32)).save(stream, "JPEG" if file_format == "AVIF" else file_format, exif=block)
        facts = image_facts(stream.getvalue())
        assert (facts.width_px, facts.height_px, facts.taken_at, facts.camera) == (48, 32, None, "")


def test_randomly_damaged_exif_never_fails():
    rng = random.Random(0)
    whole = photograph(first={MAKE: "Canon", MODEL: "EOS"}, details={ORIGINAL: "2019:07:14 18:30:05"}, gps=SYDNEY)
    start = whole.index(b"Exif\0\0") + 6
    end = start + int.from_bytes(whole[start - 8 : start - 6]) - 8
    n_changed = 0
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 3, 20))):
            data[rng.randrange(start, end)] = rng.choice((0, 1, 255, rng.randrange(256)))
        facts = image_facts(bytes(data))
        assert {facts.width_px, facts.height_px} == {48, 32}
        assert ImageFacts.model_validate_json(facts.model_dump_json()) == facts
        n_changed += facts != image_facts(whole)
    assert n_changed > 1000


def test_a_file_that_is_no_image_is_refused_in_one_line(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"notes\.jpg: not a readable image"):
        image_facts(path)
    with pytest.raises(ImageError, match="No such file"):
        image_facts(tmp_path / "gone.jpg")


def test_exif_of_a_compressed_png_profile_is_read():
    """ImageMagick's older form of EXIF in PNG: a zTXt chunk of hexadecimal digits."""
    exif = Image.Exif()
    exif[MAKE] = "Canon"
    block = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    text = b"\nexif\n%8d\n" % len(block) + block.hex().encode() + b"\n"
    body = b"zTXt" + b"Raw profile type exif\0\0" + zlib.compress(text)
    chunk = (len(body) - 4).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "PNG")
    plain = stream.getvalue()
    assert image_facts(plain[:33] + chunk + plain[33:]).camera == "Canon"


def test_facts_of_every_real_photograph_agree_with_its_size(shared_data):
    folder = shared_data / "coco" / "train2017"
    for path in find_images(folder):
        facts = image_facts(folder / path)
        assert (facts.width_px, facts.height_px) == image_size(folder / path)
