import os
from pathlib import Path

import pytest

from image_finder.components.configs import GalleryConfig
from image_finder.components.errors import ConfigError, DataError
from image_finder.components.images.image_folder import ImageFolder, shown_uri, uri_below


@pytest.fixture
def photos(tmp_path, paint):
    for name in ("b/2.PNG", "a/1.jpg", "b/10.png", ".hidden/3.png", "b/.4.png", "wei\u00df/\u767d.png"):
        paint(tmp_path / "photos" / name, "red")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


@pytest.fixture(params=["folder", "file", "s3"])
def folder(request, photos, s3_server):
    with s3_server(photos.parent.parent) as options:
        s3 = f"s3://{photos.parent.name}/photos?{options}"
        yield ImageFolder({"folder": str(photos), "file": f"file://{photos}", "s3": s3}[request.param])


def test_folders_and_object_stores_list_the_same_images(folder):
    assert [path.as_posix() for path in sorted(folder.states())] == [
        "a/1.jpg",
        "b/10.png",
        "b/2.PNG",
        "wei\u00df/\u767d.png",
    ]


def test_content_size_and_time_are_those_of_the_file(folder, photos):
    path = Path("wei\u00df/\u767d.png")
    os.utime(photos / path, (1_600_000_000, 1_600_000_000.9))
    assert folder.read(path) == (photos / path).read_bytes()
    assert (folder.state(path).n_bytes, folder.state(path).modified_ns // 10**9) == (
        (photos / path).stat().st_size,
        1_600_000_000,
    )
    assert folder.shown(path).endswith(f"{photos.parent.name}/photos/{path}")


def test_a_removed_file_is_an_os_error(folder):
    with pytest.raises(FileNotFoundError):
        folder.read(Path("gone.png"))
    with pytest.raises(FileNotFoundError):
        folder.state(Path("gone.png"))


def test_the_fingerprint_changes_with_a_file(folder, photos):
    before = folder.fingerprint()
    assert folder.fingerprint() == before
    os.utime(photos / "a" / "1.jpg", (1, 1))
    assert folder.fingerprint() != before


def test_a_location_that_cannot_be_listed_is_a_one_line_error(tmp_path):
    with pytest.raises(DataError, match="nosuch://bucket: no file system for it"):
        ImageFolder("nosuch://bucket?key=secret")
    with pytest.raises(DataError, match=r"file:///nosuch.* cannot be listed: .*; check the URI") as caught:
        ImageFolder("file:///nosuch/place").states()
    assert "\n" not in str(caught.value)


def test_options_of_a_uri_are_kept_and_not_shown():
    uri = "s3://bucket/photos?endpoint_override=127.0.0.1%3A9000&scheme=http"
    assert uri_below(uri, "train") == "s3://bucket/photos/train?endpoint_override=127.0.0.1%3A9000&scheme=http"
    assert uri_below("s3://bucket/photos/", ".") == "s3://bucket/photos"
    assert shown_uri(uri) == "s3://bucket/photos"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"uri": "s3://bucket", "root": "/photos"}, "uri .* excludes root and annotations"),
        ({"uri": "s3://key:secret@bucket/photos"}, "uri must contain no password"),
        ({"uri": "bucket/photos"}, "uri"),
    ],
)
def test_unusable_uris_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        GalleryConfig.parse(values)
