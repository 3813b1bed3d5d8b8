"""File names as other tools write them, resolved to the files of a folder."""

import unicodedata

import pytest

from image_finder.components.captions.file_names import ImageNames, leads_out, plain_name
from image_finder.components.errors import DataError

NFD = unicodedata.normalize("NFD", "käfer.jpg")


@pytest.fixture
def root(tmp_path):
    for name in ("val2017/1.jpg", "val2017/käfer.jpg", "val2017/Sub/IMG_2.JPG", "val2017/a\\b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("1.jpg", "1.jpg"),
        ("./1.jpg", "1.jpg"),
        (".\\1.jpg", "1.jpg"),
        ("val2017/1.jpg", "1.jpg"),
        ("VAL2017\\1.JPG", "1.jpg"),
        ("data//coco/val2017/1.jpg", "1.jpg"),
        ("images/1.jpg", "1.jpg"),  # a directory that all names share
        (NFD, "käfer.jpg"),
        ("KÄFER.jpg", "käfer.jpg"),
        ("val2017/sub/img_2.jpg", "Sub/IMG_2.JPG"),
        ("export\\sub\\img_2.jpg", "Sub/IMG_2.JPG"),
        ("a\\b.jpg", "a\\b.jpg"),  # a file that is really called so
    ],
)
def test_a_name_of_another_tool_finds_its_file(root, name, file):
    assert ImageNames(root, "val2017").resolve([name]) == [f"val2017/{file}"]
    assert ImageNames(root / "val2017", "").resolve([name]) == [file]


def test_a_name_without_a_file_gets_the_path_that_is_tried_first(root):
    names = ["9.jpg", "val2017/9.jpg", "other\\9.jpg"]
    assert ImageNames(root, "val2017").resolve(names) == ["val2017/9.jpg", "val2017/9.jpg", "val2017/other/9.jpg"]
    assert ImageNames(None, "val2017").resolve(names) == ["val2017/9.jpg", "val2017/9.jpg", "val2017/other/9.jpg"]
    assert ImageNames(root / "nowhere", "").resolve(["./9.jpg"]) == ["9.jpg"]


def test_directories_that_not_all_names_share_are_not_dropped(root):
    names = ["a/1.jpg", "b/1.jpg"]
    assert ImageNames(root, "val2017").resolve(names) == ["val2017/a/1.jpg", "val2017/b/1.jpg"]


@pytest.mark.parametrize(
    "name", ["../1.jpg", "..\\1.jpg", "a/../../1.jpg", "/1.jpg", "\\1.jpg", "C:\\val2017\\1.jpg", "c:/1.jpg"]
)
def test_a_name_that_leads_out_is_never_resolved(root, name):
    assert leads_out(name)
    (found,) = ImageNames(root / "val2017", "").resolve([name])
    assert leads_out(found)
    (found,) = ImageNames(root, "val2017/Sub").resolve([name])
    assert leads_out(found)
    assert plain_name(name, "val2017") == name


def test_a_name_that_matches_several_files_is_an_error_unless_one_is_exact(root):
    (root / "val2017" / "KÄFER.JPG").write_bytes(b"y")
    exact = ["val2017/käfer.jpg", "val2017/KÄFER.JPG"]
    assert ImageNames(root, "val2017").resolve(["käfer.jpg", "KÄFER.JPG"]) == exact
    with pytest.raises(DataError, match="'Käfer.jpg' matches both 'KÄFER.JPG' and 'käfer.jpg' in val2017"):
        ImageNames(root, "val2017").resolve(["Käfer.jpg"])


def test_two_names_of_one_file_are_an_error(root):
    with pytest.raises(DataError, match=r"file names '1.jpg' and '1.JPG' both match val2017/1.jpg"):
        ImageNames(root, "val2017").resolve(["1.jpg", "1.JPG"])
    assert ImageNames(root, "val2017").resolve(["1.jpg", "./1.jpg"]) == ["val2017/1.jpg"] * 2
