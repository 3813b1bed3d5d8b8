import numpy as np
import pytest
from PIL import Image

from image_finder.components import cancellation
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.search.contributions import _DESIGN, GRID, Contributions, contributions

PX = 28  # four pixels a region


@pytest.fixture(scope="module")
def encoder(write_colour_bundle, tmp_path_factory):
    bundle = write_colour_bundle(tmp_path_factory.mktemp("bundle") / "colours", input_px=PX)
    return OnnxEncoder(bundle, device="cpu", threads=1)


@pytest.fixture(scope="module")
def corners():
    """Grey, with red in the regions of the lower left corner and blue in those of the upper right one."""
    image = Image.new("RGB", (PX, PX), (128, 128, 128))
    image.paste((250, 20, 20), (4, 20, 12, 28))
    image.paste((20, 20, 250), (20, 0, 28, 8))
    return np.asarray(image)


RED, BLUE = np.zeros((GRID, GRID), bool), np.zeros((GRID, GRID), bool)
RED[5:, 1:3] = True
BLUE[:2, 5:] = True


@pytest.mark.parametrize(("text", "marked", "opposed"), [("red", RED, BLUE), ("blue", BLUE, RED)])
def test_each_query_marks_its_region_and_nothing_else(encoder, corners, text, marked, opposed):
    found = contributions(encoder, corners, encoder.encode_text([text])[0])
    np.testing.assert_array_equal(found.shares > 0, marked)
    assert found.shares[marked].min() > 0.9
    assert found.cells[opposed].max() < -5 * found.noise
    assert found.peak == found.cells.max()


def test_hiding_the_most_marked_regions_costs_more_than_hiding_the_least_marked(encoder, corners):
    for text in ("red", "blue", "red blue"):
        query = encoder.encode_text([text])[0]
        order = np.argsort(contributions(encoder, corners, query).cells, axis=None)
        lost = []
        for regions in (order[-12:], order[:12]):  # a quarter of 49
            hidden = np.isin(np.arange(GRID * GRID), regions).reshape(GRID, GRID).repeat(4, 0).repeat(4, 1)
            for ground in (0, 128, 255):
                seen = np.where(hidden[..., None], np.uint8(ground), corners)
                lost.append(float((encoder.encode_image(np.stack([corners, seen])) @ query) @ (1, -1)))
        assert min(lost[:3]) > max(lost[3:]) + 0.01


@pytest.mark.parametrize("ground", [0, 128, 255, (200, 40, 40)])
def test_a_plain_image_has_no_region_that_raises_its_score(encoder, ground):
    plain = np.broadcast_to(np.array(ground, np.uint8), (PX, PX, 3))
    found = contributions(encoder, plain, encoder.encode_text(["red"])[0])
    assert (found.peak, found.shares.max()) == (0, 0)


def test_images_are_encoded_a_few_at_a_time_until_the_computation_is_cancelled(encoder, corners, monkeypatch):
    sizes = []
    encode = encoder._encode_batch

    def encode_batch(pixels):
        vectors = encode(pixels)
        sizes.append(len(pixels))
        return vectors

    monkeypatch.setattr(encoder, "_encode_batch", encode_batch)
    contributions(encoder, corners, encoder.encode_text(["red"])[0])
    assert (sum(sizes), max(sizes)) == (60, 8)
    sizes.clear()
    with pytest.raises(cancellation.Cancelled), cancellation.cancellable(lambda: len(sizes) == 2):
        contributions(encoder, corners, np.ones(3, np.float32))
    assert sizes == [8, 8]


def test_shares_are_contributions_above_two_standard_errors():
    cells = np.array([[-0.5, 0.01], [0.03, 0.05]], np.float32)
    np.testing.assert_allclose(Contributions(cells, 0.005).shares, np.array([[0, 0], [0.5, 1]]), atol=1e-6)
    assert Contributions(cells, 0.005).peak == pytest.approx(0.05)
    assert Contributions(cells, 0.03).peak == 0
    assert not Contributions(cells, 0.03).shares.any()
    assert Contributions(cells / np.float32(20), 0).peak == 0, "too little to matter, however little noise there is"


def test_regions_are_hidden_independently_of_each_other():
    signs = 1 - 2 * _DESIGN.astype(int)
    np.testing.assert_array_equal(signs.T @ signs, 60 * np.eye(59))
    np.testing.assert_array_equal(signs.sum(axis=0), 0)
