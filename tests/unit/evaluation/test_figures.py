"""Figures: their content, read back from the figure and its pixels."""

import io
import subprocess
import sys
import threading

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from image_finder.components.errors import DataError
from image_finder.components.evaluation.curves import recall_curve, training_curves
from image_finder.components.evaluation.drawing import png_bytes
from image_finder.components.evaluation.image_figures import query_examples, similarity_heat_map
from image_finder.components.metrics.examples import QueryExamples, pick_examples
from image_finder.components.metrics.ranks import first_match_ranks
from image_finder.components.metrics.recall import random_recall_at_k
from image_finder.components.records.training import EpochRecord
from tests.support.checkout import CHECKOUT

GREEN = "#1a9641"
COLORS = [(255, 0, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]


def thumbnail(row, size=(60, 60)):
    return Image.new("RGB", size, COLORS[row % 4])


def heat_map(similarity=None, captions=("a red square", "a blue square")):
    values = np.array([[0.91, 0.12], [-0.004, 0.83]]) if similarity is None else similarity
    return similarity_heat_map(values, [thumbnail(0), thumbnail(1, (90, 30))], captions)


def retrieval_case():
    texts = np.array([[0.9, 0.3, 0.1], [0.75, 0.6, 0.1], [0.7, 0.55, 0.4]], dtype=np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    images, owners = np.eye(3, dtype=np.float32), np.arange(3)
    ranks = first_match_ranks(images, texts, owners)
    return ranks, pick_examples(images, texts, ranks, count=1, top=2)


def epoch(number, **changes):
    values = {
        "epoch": number, "loss": 3.0 / number, "head_rate": 1e-3, "trunk_rate": 1e-4, "logit_scale": 14.0 + number,
        "images_per_s": 100.0, "seconds": 1.0, "val_recall": {"t2i_r1": 0.1, "t2i_r10": 0.4, "i2t_r1": 0.2, "i2t_r10": 0.5},
        "val_mean_recall": 0.3,
    }  # fmt: skip
    return EpochRecord(**(values | changes))


def texts_of(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def pixels(figure):
    with Image.open(io.BytesIO(png_bytes(figure))) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def share_of_color(array, color):
    return float((np.abs(array - np.array(color)).max(axis=2) <= 3).mean())


def test_heat_map_writes_each_similarity_in_its_cell():
    cells = {tuple(text.get_position()): text.get_text() for text in heat_map().axes[0].texts}
    assert cells == {(0, 0): "0.91", (1, 0): "0.12", (0, 1): "0.00", (1, 1): "0.83"}  # (column, row), no "-0.00"


def test_heat_map_shows_thumbnails_and_captions():
    figure = heat_map()
    assert {"a red square", "a blue square"} <= set(texts_of(figure))
    array = pixels(figure)
    assert share_of_color(array, COLORS[0]) > 0.02
    assert 0.005 < share_of_color(array, COLORS[1]) < share_of_color(array, COLORS[0])  # 90 x 30 keeps its shape


def test_dollar_signs_line_breaks_and_unknown_signs_in_captions_are_drawn_as_text():
    figure = heat_map(captions=("Pay $5 and $x_{", "two\nlines \U0001f415 ."))
    assert {"Pay $5 and $x_{", "two lines \ufffd."} <= set(texts_of(figure))
    png_bytes(figure)  # neither a formula error nor a glyph warning


def test_long_captions_are_wrapped_and_cut():
    (text,) = [text for text in texts_of(heat_map(captions=("word " * 200, "b"))) if text.startswith("word")]
    assert len(text.splitlines()) <= 8
    assert max(map(len, text.splitlines())) <= 40
    assert text.endswith("\u2026")


def test_heat_map_of_equal_values_and_of_one_pair_can_be_drawn():
    png_bytes(heat_map(np.full((2, 2), 0.5)))
    png_bytes(similarity_heat_map(np.ones((1, 1)), [thumbnail(0)], ["one"]))


@pytest.mark.parametrize(
    "similarity", [np.ones((2, 3)), np.ones((3, 3)), np.array([[np.nan, 1], [1, 1]])], ids=["wide", "large", "nan"]
)
def test_heat_map_refuses_numbers_that_do_not_fit(similarity):
    with pytest.raises(DataError, match="expected"):
        heat_map(similarity)


def test_query_examples_frame_the_own_image_green_wherever_it_stands():
    ranks, examples = retrieval_case()
    assert [example.caption_row for example in (*examples.best, *examples.worst)] == [0, 2]
    figure = query_examples(
        examples, {row: thumbnail(row) for row in examples.image_rows}, ["first", "second", "third"], gallery_size=3
    )
    shown = [
        (tuple(axes.images[0].get_array()[0, 0].tolist()), to_hex(axes.spines["top"].get_edgecolor()) == GREEN)
        for axes in figure.axes
        if axes.images
    ]
    assert shown == [
        (COLORS[0], True), (COLORS[0], True), (COLORS[1], False),  # best: own, hit 1 is own, hit 2
        (COLORS[2], True), (COLORS[0], False), (COLORS[1], False),  # worst: own is not among the two hits
    ]  # fmt: skip
    texts = texts_of(figure)
    assert {"first", "third"} <= set(texts)
    assert any(text.startswith("rank 3 of 3, margin -") for text in texts)
    assert ranks.text_to_image.tolist() == [1, 2, 3]


def test_query_examples_refuse_missing_images_and_no_examples():
    _, examples = retrieval_case()
    with pytest.raises(DataError, match=r"2 thumbnails missing \(rows \[1, 2\]\)"):
        query_examples(examples, {0: thumbnail(0)}, ["a", "b", "c"], gallery_size=3)
    with pytest.raises(DataError, match="0 queries to draw"):
        query_examples(QueryExamples((), ()), {}, [], gallery_size=3)


def test_recall_curve_draws_both_directions_and_their_random_baselines():
    ranks, _ = retrieval_case()
    axes = recall_curve(ranks).axes[0]
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in axes.lines}
    text_to_image = lines["text to image, 3 queries in 3"]
    assert text_to_image[:3] == pytest.approx([100 / 3, 200 / 3, 100])
    assert len(text_to_image) == 100
    expected = [100 * random_recall_at_k(3, np.ones(1, np.int64), k) for k in (1, 2, 3, 4)]
    assert lines["text to image, random order"][:4] == pytest.approx(expected)
    assert set(lines) >= {"image to text, 3 queries in 3", "image to text, random order"}
    assert axes.get_xscale() == "log"


def test_training_curves_draw_the_numbers_of_the_history():
    figure = training_curves([epoch(1), epoch(2)])
    panels = {axes.get_ylabel(): axes for axes in figure.axes}
    assert np.asarray(panels["training loss"].lines[0].get_xydata()).tolist() == [[1, 3.0], [2, 1.5]]
    assert np.asarray(panels["logit scale, exp(t)"].lines[0].get_xydata()).tolist() == [[1, 15.0], [2, 16.0]]
    recalls = {line.get_label(): np.asarray(line.get_ydata())[0] for line in panels["recall on val, %"].lines}
    assert recalls == pytest.approx(
        {
            "text to image @1": 10,
            "text to image @10": 40,
            "image to text @1": 20,
            "image to text @10": 50,
            "mean recall": 30,
        }
    )
    assert [line.get_label() for line in panels["learning rate"].lines] == ["heads", "trunks"]


def test_training_curves_leave_out_the_trunk_rate_of_frozen_trunks_and_draw_one_epoch():
    figure = training_curves([epoch(1, trunk_rate=0.0)])
    (rates,) = [axes for axes in figure.axes if axes.get_ylabel() == "learning rate"]
    assert [line.get_label() for line in rates.lines] == ["heads"]
    png_bytes(figure)


def test_training_curves_refuse_an_empty_history():
    with pytest.raises(DataError, match="0 epochs"):
        training_curves([])


def test_equal_figures_give_equal_bytes():
    assert png_bytes(heat_map()) == png_bytes(heat_map())


def test_figures_can_be_drawn_in_a_thread():
    threaded = []
    thread = threading.Thread(target=lambda: threaded.append(png_bytes(heat_map())))
    thread.start()
    thread.join()
    assert threaded == [png_bytes(heat_map())]


def test_figures_do_not_import_pyplot():
    code = "import sys, image_finder.components.evaluation.image_figures, image_finder.components.evaluation.curves; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=CHECKOUT).returncode == 0


def test_real_photographs_with_their_captions_can_be_drawn(shared_data):
    paths = sorted((shared_data / "coco" / "val2017").glob("*.jpg"))[:5]
    images = [Image.open(path) for path in paths]
    try:
        figure = similarity_heat_map(np.eye(5), images, [path.stem for path in paths])
    finally:
        for image in images:
            image.close()
    array = pixels(figure)
    assert array.shape[1] > array.shape[0] > 500
