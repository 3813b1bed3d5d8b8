import pytest

from image_finder.components.captions.layout import detect_layout
from image_finder.components.errors import DataError


def make(root, *names):
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def test_coco_json_is_found_with_the_folder_of_the_same_ending(tmp_path):
    make(tmp_path, "annotations/captions_train2017.json", "annotations/captions_val2017.json", "train2017/", "val2017/")
    found = detect_layout(tmp_path, "mine")
    assert (found.layout, found.name) == ("coco", "mine")
    assert {part: [(file.annotations, file.images) for file in files] for part, files in found.parts.items()} == {
        "train": [("annotations/captions_train2017.json", "train2017")],
        "val": [("annotations/captions_val2017.json", "val2017")],
    }


def test_a_table_is_found_and_validation_means_val(tmp_path):
    make(tmp_path, "huggingface/train.parquet", "huggingface/validation.parquet", "train2017/", "val2017/")
    found = detect_layout(tmp_path)
    assert found.layout == "coco2017_table"
    (file,) = found.parts["val"]
    assert (file.annotations, file.images) == ("huggingface/validation.parquet", "val2017")


def test_a_folder_without_captions_says_what_it_holds_and_what_was_expected(tmp_path):
    make(tmp_path, "holiday.jpg")
    with pytest.raises(DataError, match=r"expected annotations/captions_train\*.json .* found holiday.jpg"):
        detect_layout(tmp_path)


def test_an_absent_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no such folder: .*nowhere"):
        detect_layout(tmp_path / "nowhere")
