"""Slices: labels of every caption from the captions table."""

import json

import numpy as np
import pandas as pd
import pytest

from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.configs import EvaluationConfig
from image_finder.components.errors import DataError
from image_finder.components.metrics.slices import caption_slices
from image_finder.components.records.retrieval import EvaluatedOn
from tests.support.retrieval import evaluate_retrieval


def table(rows):
    """rows: (image_id, caption, width_px, height_px, license)."""
    names = ["image_id", "caption", "width_px", "height_px", "license"]
    return pd.DataFrame(rows, columns=names).assign(part="val", caption_id=range(len(rows)), file_name="a.jpg")


def words(count):
    return " ".join(["word"] * count) + " ."


def test_caption_length_is_counted_in_words_and_cut_at_fixed_edges():
    rows = [(i, words(n), 1, 1, 0) for i, n in enumerate([1, 8, 9, 13, 14, 30])]
    rows.append((9, "A man's t-shirt isn't what he's wearing, is it ?", 1, 1, 0))
    assert caption_slices(table(rows), min_captions=1)["caption length"] == [
        "1-8 words", "1-8 words", "9-13 words", "9-13 words", "14 words or more", "14 words or more", "9-13 words",
    ]  # fmt: skip


def test_captions_are_divided_by_whether_all_their_words_occurred_in_training():
    rows = [(0, "a dog", 1, 1, 0), (1, "a kangaroo", 1, 1, 0)]
    vocabulary = Vocabulary.of(["a dog", "a dog"])
    labels = caption_slices(table(rows), vocabulary, min_captions=1)
    assert labels["words"] == ["all met in training", "some not met"]
    assert "words" not in caption_slices(table(rows), min_captions=1)


def test_image_shape_comes_from_the_annotated_size_and_unknown_sizes_are_in_no_group():
    sizes = [(640, 480), (480, 640), (500, 500), (500, 480), (510, 480), (0, 480), (640, 0)]
    rows = [(i, "a dog", width_px, height_px, 0) for i, (width_px, height_px) in enumerate(sizes)]
    assert caption_slices(table(rows), min_captions=1)["image shape"] == [
        "landscape", "portrait", "square", "square", "landscape", "", "",
    ]  # fmt: skip


def test_captions_of_an_image_are_counted_in_any_row_order():
    ids = [1, 2, 3, 2, 2, 2, 2, 3, 3, 3, 3, 3]
    labels = caption_slices(table([(i, "a dog", 1, 1, 0) for i in ids]), min_captions=1)["captions of the image"]
    assert labels == [{1: "1-4", 2: "5", 3: "6 or more"}[i] for i in ids]


def test_equal_ids_in_two_parts_are_two_images():
    captions = table([(1, "a dog", 1, 1, 0)] * 6 + [(2, "a cat", 1, 1, 0)] * 5)
    captions.loc[:2, "part"] = "train"
    assert set(caption_slices(captions, min_captions=1)["captions of the image"][:6]) == {"1-4"}


def test_licenses_are_named_by_id_and_unknown_ones_are_in_no_group():
    rows = [(i, "a dog", 1, 1, license_id) for i, license_id in enumerate([4, 1, 0, 4])]
    assert caption_slices(table(rows), min_captions=1) == {"license": ["license 4", "license 1", "", "license 4"]}


def test_slices_that_divide_nothing_are_left_out():
    assert caption_slices(table([(i, "a dog", 224, 224, 1) for i in range(80)])) == {}


def test_groups_too_small_to_be_measured_get_no_label():
    rows = [(i, "a dog", *((640, 480) if i < 40 else (480, 640) if i < 70 else (500, 500)), 0) for i in range(99)]
    assert caption_slices(table(rows))["image shape"] == ["landscape"] * 40 + ["portrait"] * 30 + [""] * 29
    assert caption_slices(table(rows[:69])) == {}


def test_a_table_without_the_needed_columns_is_refused():
    with pytest.raises(DataError, match="lacks the columns width_px, license"):
        caption_slices(table([(1, "a dog", 1, 1, 0)]).drop(columns=["width_px", "license"]))


def test_slices_of_real_coco_captions_go_into_a_report(shared_data):
    path = shared_data / "coco" / "annotations" / "captions_val2017.json"
    annotations = json.loads(path.read_text())
    images = pd.DataFrame(annotations["images"]).rename(
        columns={"id": "image_id", "width": "width_px", "height": "height_px"}
    )
    captions = pd.DataFrame(annotations["annotations"]).merge(images, on="image_id").assign(part="val")
    slices = caption_slices(captions)
    assert {"caption length", "image shape", "license"} <= set(slices)
    rows = {image_id: row for row, image_id in enumerate(images["image_id"])}
    owners = np.array([rows[image_id] for image_id in captions["image_id"]])
    vectors = np.random.default_rng(0).standard_normal((len(images), 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    report = evaluate_retrieval(
        vectors,
        vectors[owners],
        owners,
        config=EvaluationConfig(bootstrap_samples=100),
        identity=EvaluatedOn(dataset="coco", data_version="0", split="val"),
        slices=slices,
    )
    lengths = [part for part in report.slices if part.slice == "caption length"]
    assert [part.value for part in lengths] == ["1-8 words", "9-13 words", "14 words or more"]
    assert sum(part.n_queries for part in lengths) == len(captions)
    assert {part.recall[1] for part in report.slices} == {1.0}
