"""Preprocessing: an image's pixels, however it is stored."""

import io

import numpy as np
import pytest
from PIL import Image

from image_finder.components.errors import ImageError
from image_finder.components.images.preprocess import Preprocess
from tests.support.encoded import encoded

PREPROCESS = Preprocess(input_px=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def test_an_image_of_the_right_size_is_unchanged(pixels):
    np.testing.assert_array_equal(PREPROCESS.load(encoded(Image.fromarray(pixels[0]))), pixels[0])


def test_a_wide_image_is_squashed_not_cropped():
    wide = Image.new("RGB", (256, 64), "blue")
    wide.paste("red", (0, 0, 64, 64))
    loaded = PREPROCESS.load(encoded(wide))
    assert loaded.shape == (64, 64, 3)
    np.testing.assert_array_equal(loaded[:, :14], np.broadcast_to([255, 0, 0], (64, 14, 3)))
    np.testing.assert_array_equal(loaded[:, 18:], np.broadcast_to([0, 0, 255], (64, 46, 3)))


def test_shrinking_averages_details_smaller_than_a_pixel():
    checks = np.indices((512, 512)).sum(axis=0) % 2 * 255
    loaded = PREPROCESS.load(encoded(Image.fromarray(checks.astype(np.uint8)).convert("RGB")))
    assert abs(loaded.astype(int) - 127).max() <= 2


def test_a_large_jpeg_decoded_small_looks_like_one_decoded_whole():
    y, x = np.mgrid[0:1200, 0:1600]
    waves = np.stack([127 + 120 * np.sin(x / 90), 127 + 120 * np.cos(y / 70), (x + y) / 12], axis=-1).astype(np.uint8)
    data = encoded(Image.fromarray(waves), "JPEG", quality=95)
    whole = Image.open(io.BytesIO(data)).convert("RGB").resize((64, 64), Image.Resampling.BILINEAR)
    assert abs(PREPROCESS.load(data).astype(int) - np.asarray(whole).astype(int)).mean() < 1.0


def test_an_upright_copy_and_a_rotated_one_with_its_tag_give_the_same_pixels(pixels):
    upright = Image.fromarray(pixels[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    np.testing.assert_array_equal(PREPROCESS.load(turned), PREPROCESS.load(encoded(upright)))


def test_a_file_and_its_bytes_give_the_same_pixels(tmp_path, pixels):
    path = tmp_path / "x.png"
    path.write_bytes(encoded(Image.fromarray(pixels[1]).resize((100, 80))))
    np.testing.assert_array_equal(PREPROCESS.load(path), PREPROCESS.load(path.read_bytes()))


def test_a_broken_image_is_a_one_line_error(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"^\S+x.jpg: [^\n]+$"):
        PREPROCESS.load(path)


def test_json_and_back(tmp_path):
    assert Preprocess.model_validate_json(PREPROCESS.model_dump_json()) == PREPROCESS
