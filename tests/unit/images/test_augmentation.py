import numpy as np
import pytest
from PIL import Image

from image_finder.components.errors import ImageError
from image_finder.components.images.augmentation import View
from image_finder.components.images.preprocess import Preprocess
from tests.support.encoded import encoded

PREPROCESS = Preprocess(input_px=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def ramp(width=300, height=200):
    """Red rises from left to right, green from top to bottom."""
    across, down = np.linspace(0, 255, width), np.linspace(0, 255, height)
    red, green = np.broadcast_to(across, (height, width)), np.broadcast_to(down[:, None], (height, width))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 128)], axis=2).astype(np.uint8))


def test_view_0_is_the_image_itself():
    content = encoded(ramp())
    np.testing.assert_array_equal(View(PREPROCESS, 0).load(content), PREPROCESS.load(content))


def test_a_view_depends_on_content_and_number_alone(tmp_path):
    content = encoded(ramp())
    path = tmp_path / "renamed.jpg"
    path.write_bytes(content)
    views = [View(PREPROCESS, number).load(content) for number in range(5)]
    for number, view in enumerate(views):
        assert view.shape == (64, 64, 3)
        assert view.dtype == np.uint8
        np.testing.assert_array_equal(view, View(PREPROCESS, number).load(path))
    assert len({view.tobytes() for view in views}) == 5
    other = encoded(ramp(301))
    assert View(PREPROCESS, 1).load(other).tobytes() != views[1].tobytes()


def test_crops_keep_half_of_the_image_and_half_of_them_are_mirrored():
    content = encoded(ramp())
    shares, mirrored = [], 0
    for number in range(1, 81):
        view = View(PREPROCESS, number).load(content).astype(float)
        # brightness and contrast scale both ramps, so their slopes are compared with blue, which is flat, as the unit
        slope_x = (view[:, -8:, 0] - view[:, :8, 0]).mean() / 56
        slope_y = (view[-8:, :, 1] - view[:8, :, 1]).mean() / 56
        mirrored += slope_x < 0
        shares.append(abs(slope_x) / (255 / 64) * slope_y / (255 / 64))
        assert slope_y > 0, "never upside down"
    assert 25 < mirrored < 55
    assert 0.25 < np.median(shares) < 1.0
    assert min(shares) > 0.15  # half the area at the least contrast, brightness and colour together


@pytest.mark.parametrize("content", [b"", b"no image", encoded(ramp())[:50]])
def test_what_is_no_image_is_an_image_error(content):
    with pytest.raises(ImageError):
        View(PREPROCESS, 3).load(content)
