import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from components.errors import PictureError
from components.search.explain import explain, heat_overlay
from components.search.onnx_encoder import OnnxEncoder

SPOT = np.zeros((7, 7), np.float32)
SPOT[5, 1] = 0.3


def brightness(picture):
    return np.asarray(picture.convert("L"), np.float32)


@pytest.mark.parametrize("ground", ["black", "white", "grey", "yellow", (255, 140, 10)])
def test_the_largest_weight_is_the_brightest_place_on_any_ground(ground):
    light = brightness(heat_overlay(Image.new("RGB", (140, 70), ground), SPOT))
    top, left = np.unravel_index(light.argmax(), light.shape)
    assert (abs(top - 55) <= 2, abs(left - 30) <= 3) == (True, True)
    assert light.max() - light.min() > 100
    assert light[:35, 70:].max() - light[:35, 70:].min() < 12


def test_colours_are_those_of_inferno_in_their_order():
    ramp = np.linspace(0, 1, 101, dtype=np.float32)[None].repeat(3, 0)
    overlay = np.asarray(heat_overlay(Image.new("RGB", (101, 3), "black"), ramp))[1].astype(int) / 0.55
    np.testing.assert_allclose(overlay[0], (0, 0, 4), atol=4)
    np.testing.assert_allclose(overlay[50], (188, 55, 84), atol=6)
    np.testing.assert_allclose(overlay[-1], (252, 255, 164), atol=6)
    light = overlay @ (0.299, 0.587, 0.114)
    assert np.all(np.diff(light[::10]) > 5)


def test_only_the_shares_of_the_largest_weight_count():
    picture = Image.effect_noise((60, 40), 80).convert("RGB")
    assert heat_overlay(picture, SPOT * 0.001).tobytes() == heat_overlay(picture, SPOT).tobytes()


def test_without_any_weight_the_picture_is_dark_and_still_seen():
    picture = Image.new("RGB", (40, 20), "black")
    picture.paste("white", (0, 0, 20, 20))
    light = brightness(heat_overlay(picture, np.zeros((7, 7), np.float32)))
    assert light[:, :18].min() - light[:, 22:].max() > 80


def test_the_picture_itself_is_not_changed():
    picture = Image.effect_noise((30, 30), 50).convert("RGB")
    before = picture.tobytes()
    heat_overlay(picture, SPOT)
    assert picture.tobytes() == before


@settings(max_examples=60, deadline=None)
@given(
    attention=hnp.arrays(
        np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.floats(0, 1, width=32)
    ),
    size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
)
def test_any_weights_on_any_size_give_a_picture_of_that_size(attention, size):
    overlay = heat_overlay(Image.new("RGB", size, "green"), attention)
    assert (overlay.size, overlay.mode) == (size, "RGB")


def test_a_file_is_explained_at_the_size_it_is_shown(colour_bundle, tmp_path):
    encoder = OnnxEncoder(colour_bundle, device="cpu", threads=1)
    path = tmp_path / "wide.png"
    Image.effect_noise((300, 100), 80).save(path)
    assert explain(encoder, path).size == (300, 100)
    assert explain(encoder, path.read_bytes(), at_most_px=150).size == (150, 50)
    with pytest.raises(PictureError, match="gone"):
        explain(encoder, tmp_path / "gone.jpg")
