import json
import logging
import os

import pytest

from image_finder.components.configs import GalleryConfig
from image_finder.components.errors import ConfigError, DataError
from image_finder.components.index.gallery import read_gallery


def write_annotations(path, images, annotations):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations}), encoding="utf-8")


def test_folder_is_searched_below_and_paths_are_relative_and_in_order(tmp_path, paint):
    for name in ("b.png", "a/ä.jpg", "a/z.JPG", ".hidden/c.png"):
        paint(tmp_path / name, "red")
    (tmp_path / "notes.txt").write_text("no image")
    items = read_gallery(GalleryConfig(root=tmp_path)).items
    assert [item.path.as_posix() for item in items] == ["a/z.JPG", "a/ä.jpg", "b.png"]
    assert all(item.captions == () for item in items)


def test_a_file_is_absolute_though_the_root_is_relative(tmp_path, paint, monkeypatch):
    paint(tmp_path / "photos" / "a.png", "red")
    monkeypatch.chdir(tmp_path)
    gallery = read_gallery(GalleryConfig(root="photos"))
    assert gallery.root / gallery.items[0].path == tmp_path / "photos" / "a.png"


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
    config = GalleryConfig(root=tmp_path, annotations="captions.json", images="val")
    with caplog.at_level(logging.WARNING):
        gallery = read_gallery(config)
    assert [(item.path.name, item.captions) for item in gallery.items] == [
        ("1.png", ("one", "uno")),
        ("2.png", ("two",)),
    ]
    assert gallery.name == "val"
    assert "1 of 3 annotated images are not in" in caplog.text


def test_names_of_other_tools_find_their_images_in_a_gallery_too(tmp_path, paint, caplog):
    for number in (1, 2, 3):
        paint(tmp_path / "val" / f"{number}.png", "red")
    names = {1.0: "val/1.png", 2.0: ".\\2.PNG", 3.0: "data/val/3.png", 4.0: "val/4.png"}
    images = [{"id": number, "file_name": name} for number, name in names.items()]
    write_annotations(tmp_path / "c.json", images, [{"id": 1, "image_id": 2.0, "caption": "two"}])
    items = read_gallery(GalleryConfig(root=tmp_path, annotations="c.json", images="val")).items
    assert [(item.path.as_posix(), item.captions) for item in items] == [
        ("1.png", ()),
        ("2.png", ("two",)),
        ("3.png", ()),
    ]
    assert f"1 of 4 annotated images are not in {tmp_path}/val, e.g. {tmp_path}/val/4.png" in caplog.text


def test_full_annotations_of_coco_val_give_the_images_that_are_there(shared_data):
    config = GalleryConfig(
        root=shared_data / "coco", annotations="annotations_full/captions_val2017.json", images="val2017"
    )
    items = read_gallery(config).items
    assert len(items) == len(list((shared_data / "coco" / "val2017").glob("*.jpg")))
    assert [int(item.path.stem) for item in items] == sorted(int(item.path.stem) for item in items)
    assert min(len(item.captions) for item in items) == 5


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
        read_gallery(GalleryConfig(root=tmp_path, annotations="captions.json"))
    assert "\n" not in str(caught.value)
    assert "captions.json" in str(caught.value)


def test_missing_root_folder_and_annotations_are_named(tmp_path):
    with pytest.raises(ConfigError, match="root is not set"):
        read_gallery(GalleryConfig())
    with pytest.raises(DataError, match=r"no such folder: .*nowhere"):
        read_gallery(GalleryConfig(root=tmp_path, images="nowhere"))
    with pytest.raises(DataError, match=r"absent\.json: no such file; check the data set's root and annotations"):
        read_gallery(GalleryConfig(root=tmp_path, annotations="absent.json"))
    with pytest.raises(DataError, match="no images in"):
        read_gallery(GalleryConfig(root=tmp_path))


def test_names_that_are_not_utf8_keep_their_bytes(tmp_path, paint):
    paint(tmp_path / "a.png", "red").rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    gallery = read_gallery(GalleryConfig(root=tmp_path))
    assert os.fsencode(gallery.items[0].path) == b"caf\xe9.png"
    assert (gallery.root / gallery.items[0].path).is_file()
