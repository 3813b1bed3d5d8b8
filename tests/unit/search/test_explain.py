import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.errors import ImageError
from image_finder.components.search.explain import HEAT, explain, explain_pooling, heat_overlay
from tests.support.checkout import CHECKOUT

SPOT = np.zeros((7, 7), np.float32)
SPOT[5, 1] = 1.0
NOTHING = np.zeros((7, 7), np.float32)


def brightness(image):
    return np.asarray(image.convert("L"), np.float32)


def coloured(image):
    """Where an image is not grey."""
    return np.ptp(np.asarray(image).astype(int), axis=2) > 8


@pytest.mark.parametrize("ground", ["black", "white", "grey", "yellow", (255, 140, 10)])
def test_the_largest_share_is_the_brightest_spot_on_any_image(ground):
    overlay = heat_overlay(Image.new("RGB", (140, 70), ground), SPOT)
    light = brightness(overlay)
    top, left = np.unravel_index(light.argmax(), light.shape)
    assert (abs(top - 55) <= 2, abs(left - 30) <= 3) == (True, True)
    assert light.max() > light[:35, 70:].max() + 20


def test_only_contributing_regions_are_coloured():
    image = Image.effect_noise((140, 70), 80).convert("RGB")
    seen = coloured(heat_overlay(image, SPOT))
    assert seen[55, 30]
    assert not seen[:35].any()
    assert not seen[:, 70:].any()
    clear, plain = heat_overlay(image, SPOT), heat_overlay(image, NOTHING)
    assert not coloured(plain).any()
    np.testing.assert_array_equal(np.asarray(clear)[:35], np.asarray(plain)[:35])


def test_an_overlay_without_colour_is_legible():
    image = Image.new("RGB", (40, 20), (90, 90, 90))
    image.paste((120, 120, 120), (0, 0, 20, 20))
    light = brightness(heat_overlay(image, NOTHING))
    assert light[:, :18].min() - light[:, 22:].max() > 80


def test_the_legend_of_the_page_has_the_colours_of_the_overlay():
    style = (CHECKOUT / "components/app/web/viewer.css").read_text(encoding="utf-8")
    scale = re.search(r"\.scale \{.*", style).group()
    stops = [
        [float(number) for number in each.split()] for each in re.findall(r"rgb\(([^)]*)\)", scale.replace("/", ""))
    ]
    np.testing.assert_array_equal([stop[:3] for stop in stops], HEAT)
    ramp = np.linspace(0, 1, len(HEAT), dtype=np.float32)
    for share, stop in zip(ramp, stops, strict=True):
        shown = np.asarray(heat_overlay(Image.new("RGB", (9, 9), "black"), np.full((1, 1), share)))[4, 4]
        np.testing.assert_allclose(shown, np.array(stop[:3]) * stop[3], atol=2)


def test_the_image_is_not_changed():
    image = Image.effect_noise((30, 30), 50).convert("RGB")
    before = image.tobytes()
    heat_overlay(image, SPOT)
    assert image.tobytes() == before


@settings(max_examples=60, deadline=None)
@given(
    shares=hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.floats(0, 1, width=32)),
    size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
)
def test_any_shares_on_any_size_give_an_image_of_that_size(shares, size):
    overlay = heat_overlay(Image.new("RGB", size, "green"), shares)
    assert (overlay.size, overlay.mode) == (size, "RGB")


def test_a_file_is_explained_at_its_display_size(colour_bundle, tmp_path):
    encoder = OnnxEncoder(colour_bundle, device="cpu", threads=1)
    path = tmp_path / "wide.png"
    image = Image.new("RGB", (300, 100), "grey")
    image.paste("red", (0, 0, 40, 100))
    image.save(path)
    red, blue = encoder.encode_text(["red", "blue"])
    overlay = explain(encoder, path, red).overlay
    assert overlay.size == (300, 100)
    assert coloured(overlay)[:, 5:20].all()
    assert not coloured(overlay)[:, 100:].any()
    assert not coloured(explain(encoder, path, blue).overlay)[:, 5:20].any()
    assert explain(encoder, path.read_bytes(), red, at_most_px=150).overlay.size == (150, 50)
    assert explain_pooling(encoder, path, at_most_px=150).size == (150, 50)
    for each in (lambda path: explain(encoder, path, red), lambda path: explain_pooling(encoder, path)):
        with pytest.raises(ImageError, match="gone"):
            each(tmp_path / "gone.jpg")
