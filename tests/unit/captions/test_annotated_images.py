import json
import logging
from pathlib import Path

import pytest

from image_finder.components.captions.annotated_images import captions_by_image
from image_finder.components.errors import DataError


def write_annotations(path, images, annotations):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations}), encoding="utf-8")


def test_annotated_images_that_are_absent_are_left_out_counted_and_logged(tmp_path, paint, caplog):
    paint(tmp_path / "val" / "2.png", "red")
    paint(tmp_path / "val" / "1.png", "blue")
    paint(tmp_path / "val" / "unannotated.png", "green")
    images = [{"id": number, "file_name": f"{number}.png"} for number in (10, 2, 1)]
    captions = [(1, " one "), (2, "two"), (1, "uno"), (10, "ten"), (2, None)]
    write_annotations(
        tmp_path / "captions.json",
        images,
        [{"id": n, "image_id": image_id, "caption": text} for n, (image_id, text) in enumerate(captions)],
    )
    with caplog.at_level(logging.WARNING):
        found = captions_by_image(tmp_path / "captions.json", tmp_path / "val")
    assert list(found.items()) == [(Path("1.png"), ("one", "uno")), (Path("2.png"), ("two",))]
    assert "1 of 3 annotated images are not in" in caplog.text


def test_names_of_other_tools_find_their_images_in_a_gallery_too(tmp_path, paint, caplog):
    for number in (1, 2, 3):
        paint(tmp_path / "val" / f"{number}.png", "red")
    names = {1.0: "val/1.png", 2.0: ".\\2.PNG", 3.0: "data/val/3.png", 4.0: "val/4.png"}
    images = [{"id": number, "file_name": name} for number, name in names.items()]
    write_annotations(tmp_path / "c.json", images, [{"id": 1, "image_id": 2.0, "caption": "two"}])
    found = captions_by_image(tmp_path / "c.json", tmp_path / "val")
    assert list(found.items()) == [(Path("1.png"), ()), (Path("2.png"), ("two",)), (Path("3.png"), ())]
    assert f"1 of 4 annotated images are not in {tmp_path}/val, e.g. {tmp_path}/val/4.png" in caplog.text


def test_full_annotations_of_coco_val_give_the_images_that_are_there(shared_data):
    coco = shared_data / "coco"
    found = captions_by_image(coco / "annotations_full" / "captions_val2017.json", coco / "val2017")
    assert len(found) == len(list((coco / "val2017").glob("*.jpg")))
    assert [int(path.stem) for path in found] == sorted(int(path.stem) for path in found)
    assert min(map(len, found.values())) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected an object with images and annotations, found a list"),
        ("{}", "no key 'images', so this is no COCO captions file"),
        ('{"images": 3, "annotations": []}', "'images' must be a list, found a int"),
        ('{"images": [3], "annotations": []}', r"images\[0\] must be an object, found a int"),
        (
            '{"images": [{"id": "x", "file_name": "a"}], "annotations": []}',
            r"images\[\].id: entry 0 must be int, found 'x'",
        ),
        (
            '{"images": [{"id": true, "file_name": "a"}], "annotations": []}',
            r"images\[\].id: entry 0 must be int, found True",
        ),
        ('{"images": [{"id": 1, "file_name": "../a"}], "annotations": []}', "leaves the folder"),
        ('{"images": [{"id": 1, "file_name": "/a"}], "annotations": []}', "leaves the folder"),
        (
            '{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": []}',
            r"1 image id \(1\) listed twice with different contents",
        ),
        (
            '{"images": [], "annotations": [{"image_id": 7, "caption": "x"}]}',
            r"1 of 1 captions point to 1 image id \(7\) not",
        ),
        (
            '{"images": [], "annotations": [{"image_id": 7, "caption": 1}]}',
            r"annotations\[\].caption: entry 0 must be str, found 1",
        ),
        ('{"images": [{"id": 1, "file_name": "a"}], "annotations": []}', "no images in"),
    ],
)
def test_malformed_annotations_are_one_line_with_the_place(tmp_path, text, message):
    (tmp_path / "captions.json").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        captions_by_image(tmp_path / "captions.json", tmp_path)
    assert "\n" not in str(caught.value)
    assert "captions.json" in str(caught.value)


def test_missing_folder_and_annotations_are_named(tmp_path):
    with pytest.raises(DataError, match=r"no such folder: .*nowhere"):
        captions_by_image(tmp_path / "captions.json", tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"absent\.json: no such file; check the data set's root and annotations"):
        captions_by_image(tmp_path / "absent.json", tmp_path)
