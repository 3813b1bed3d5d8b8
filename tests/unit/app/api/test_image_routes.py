import io
import os
import re
import shutil
import zipfile
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
from PIL import Image

from image_finder.components.app.api.archive import _unused
from image_finder.components.app.api.error_responses import Fault
from image_finder.components.app.api.image_routes import attachment
from image_finder.components.app.api.original_files import open_original
from image_finder.components.search.finder import Finder

VIEWS = ("thumbnail", "view", "original", "explanation?q=red")


def hit_of(api, colour):
    return api.get("/api/v1/search", params={"q": colour, "k": 1}).json()["hits"][0]


def address(api, colour, what=""):
    return f"/api/v1/images/{hit_of(api, colour)['id']}{what}"


def shown(response):
    assert response.status_code == 200, response.text
    return Image.open(io.BytesIO(response.content))


@pytest.fixture
def own(album_tools, colour_bundle, paint, tmp_path):
    """A separate album that a test may damage: files by colour, and a client."""
    files = {
        name: paint(tmp_path / "images" / "sub" / f"{name}.png", name, (400, 300)) for name in ("red", "green", "blue")
    }
    index = album_tools.publish_album(tmp_path / "images", colour_bundle, tmp_path)
    kept = tmp_path / "thumbnails"
    with album_tools.serving(index, thumbnails_path=kept) as client:
        identities = {name: hit_of(client, name)["id"] for name in files}
        yield SimpleNamespace(files=files, client=client, ids=identities, index=index, kept=kept, root=tmp_path)


def test_metadata_of_an_image_contains_no_path(api, album):
    answer = api.get(address(api, "red")).json()
    assert (answer["name"], answer["folder"]) == ("red.png", "images/warm")
    assert (answer["width_px"], answer["height_px"]) == (400, 300)
    everything = [api.get(path).text for path in ("/api/v1/info", "/api/v1/facets", "/api/v1/search?q=red", "/metrics")]
    assert str(album) not in "".join([*everything, str(answer)])
    assert "path" not in answer


def test_show_paths_adds_paths_to_answers(album_tools, album):
    with album_tools.serving(album / "index", show_paths=True) as client:
        hit = hit_of(client, "red")
        assert hit["path"] == str(album / "images" / "warm" / "red.png")
        assert client.get(f"/api/v1/images/{hit['id']}").json()["path"] == hit["path"]


@pytest.mark.parametrize(("px", "longer"), [(1, 160), (160, 160), (161, 320), (320, 320), (960, 400)])
def test_thumbnail_sizes_are_rounded_up(api, px, longer):
    image = shown(api.get(address(api, "red", f"/thumbnail?px={px}")))
    assert max(image.size) == longer
    assert image.format == "JPEG"
    red, green, blue = image.getpixel((20, 20))
    assert red > 200 > 60 > max(green, blue)


def test_views_are_upright_and_without_metadata(album_tools, colour_bundle, tmp_path):
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Secret Camera"
    Image.new("RGB", (400, 300), "red").save(tmp_path / "images" / "turned.jpg", exif=exif)
    index = album_tools.publish_album(tmp_path / "images", colour_bundle, tmp_path)
    with album_tools.serving(index) as client:
        for what in ("thumbnail", "view", "explanation?q=red"):
            answer = client.get(address(client, "red", f"/{what}"))
            assert shown(answer).width < shown(answer).height
            assert b"Secret" not in answer.content
            assert not shown(answer).getexif()


@pytest.mark.parametrize("what", ["thumbnail", "view"])
def test_a_cached_view_is_answered_with_304(api, what):
    first = api.get(address(api, "red", f"/{what}"))
    assert first.headers["Cache-Control"].startswith("private")
    again = api.get(address(api, "red", f"/{what}"), headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (
        api.get(address(api, "blue", f"/{what}"), headers={"If-None-Match": first.headers["ETag"]}).status_code == 200
    )


def test_the_original_is_a_download_of_the_unchanged_file(api, album):
    answer = api.get(address(api, "red", "/original"))
    assert answer.content == (album / "images/warm/red.png").read_bytes()
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Disposition"] == "attachment; filename=\"red.png\"; filename*=UTF-8''red.png"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_head_is_answered_like_get_without_body(api):
    for what in ("", *(f"/{view}" for view in VIEWS)):
        got, head = (api.request(method, address(api, "red", what)) for method in ("GET", "HEAD"))
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["Content-Length"] == str(len(got.content))
        assert head.headers["Content-Type"] == got.headers["Content-Type"]


@pytest.mark.parametrize(
    "name", ['a"b.png', "a\nb\r\nSet-Cookie: x=1.png", "\u767d\u00df.png", "a/../b\\c.png", "%41;.png", "\u202egnp.exe"]
)
def test_file_names_cannot_inject_headers(name):
    value = attachment(name)
    assert value.isascii()
    assert value.isprintable()
    plain, encoded = re.fullmatch(r"attachment; filename=\"([^\"]*)\"; filename\*=UTF-8''(\S+)", value).groups()
    assert "/" not in plain + unquote(encoded)
    assert "\\" not in plain + unquote(encoded)
    assert unquote(encoded).isprintable()


def test_a_file_name_with_quotes_and_a_newline_is_served(api):
    hit = hit_of(api, "white")
    assert hit["name"] == 'wei\u00df "\n\u767d.png'
    answer = api.get(f"/api/v1/images/{hit['id']}/original")
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"].endswith("filename*=UTF-8''wei%C3%9F%20%22_%E7%99%BD.png")


@pytest.mark.parametrize(
    "identity",
    [
        "f" * 16,
        "..",
        "../../../etc/passwd",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "%2Fetc%2Fpasswd",
        "%00",
        "x" * 65,
        "x" * 9000,
        "\u767d",
    ],
)
@pytest.mark.parametrize("view", ["", *(f"/{view}" for view in VIEWS)])
def test_an_unknown_id_is_not_found(api, identity, view):
    answer = api.get(f"/api/v1/images/{identity}{view}")
    assert answer.status_code in {404, 422}
    assert answer.json()["code"] in {"not_found", "bad_request"}
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/static/../api/live.py",
        "/static/%2e%2e/api/live.py",
        "/static//etc/passwd",
        "/static/..%2f..%2fcli.py",
        "/static/%00",
    ],
)
def test_static_files_cannot_escape_their_folder(api, path):
    answer = api.get(path)
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


@pytest.mark.parametrize("view", VIEWS)
def test_a_missing_file_is_answered_with_410(own, view):
    own.files["red"].unlink()
    answer = own.client.get(f"/api/v1/images/{own.ids['red']}/{view}")
    assert (answer.status_code, answer.json()["code"]) == (410, "gone")
    assert str(own.root) not in answer.text
    assert own.client.get(f"/api/v1/images/{own.ids['red']}").status_code == 200
    labels = own.client.post("/api/v1/labels", json={"id": own.ids["red"], "labels": ["red", "blue"]})
    assert labels.status_code == 410


@pytest.mark.posix
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("way", ["file", "folder", "loop", "pipe", "directory", "unreadable"])
def test_no_file_outside_the_indexed_folders_is_opened(own, view, way, paint):
    outside = paint(own.root / "outside" / "red.png", "red")
    if way == "file":
        own.files["red"].unlink()
        own.files["red"].symlink_to(outside)
    elif way == "folder":
        shutil.rmtree(own.files["red"].parent)
        own.files["red"].parent.symlink_to(outside.parent)
    elif way == "unreadable":
        own.files["red"].write_bytes(b"no image any more")
    else:
        own.files["red"].unlink()
        own.files["red"].symlink_to(own.files["red"]) if way == "loop" else None
        os.mkfifo(own.files["red"]) if way == "pipe" else None
        own.files["red"].mkdir() if way == "directory" else None
    answer = own.client.get(f"/api/v1/images/{own.ids['red']}/{view}")
    if (way, view) == ("unreadable", "original"):
        assert answer.headers["Content-Type"] == "application/octet-stream"
        return
    assert (answer.status_code, answer.json()["code"]) == (410, "gone")


@pytest.mark.posix
def test_a_path_replaced_by_a_link_while_opening_is_refused(own, monkeypatch, paint):
    outside = paint(own.root / "outside" / "red.png", "red")
    engine = Finder.open(own.index).engine
    genuine = engine.image_path

    def exchanged(identity):  # between the check of the path and its opening, a folder becomes a link to elsewhere
        path = genuine(identity)
        shutil.rmtree(path.parent)
        path.parent.symlink_to(outside.parent)
        return path

    monkeypatch.setattr(engine, "image_path", exchanged)
    with pytest.raises(Fault, match="no longer exists") as caught:
        open_original(engine, own.ids["red"])
    assert caught.value.status == 410


def test_a_changed_file_is_shown_in_its_current_state(own, paint):
    url = f"/api/v1/images/{own.ids['red']}/thumbnail"
    before = own.client.get(url)
    paint(own.files["red"], "blue", (400, 300))
    after = own.client.get(url, headers={"If-None-Match": before.headers["ETag"]})
    red, _, blue = shown(after).getpixel((5, 5))
    assert blue > 200 > 50 > red


def test_hits_and_browsed_images_give_the_address_of_their_thumbnail(api):
    hit = hit_of(api, "red")
    assert re.fullmatch(rf"images/{hit['id']}/thumbnail\?v=[0-9a-f]{{16}}", hit["thumbnail"])
    browsed = {each["id"]: each["thumbnail"] for each in api.get("/api/v1/images").json()["images"]}
    assert browsed[hit["id"]] == hit["thumbnail"] == api.get(f"/api/v1/images/{hit['id']}").json()["thumbnail"]
    answer = api.get(f"/api/v1/{hit['thumbnail']}&px=160")
    assert max(shown(answer).size) == 160


def test_a_thumbnail_addressed_by_content_is_immutable_and_private(own):
    address = f"/api/v1/{hit_of(own.client, 'red')['thumbnail']}"
    first = own.client.get(address)
    assert first.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    known = own.client.get(address, headers={"If-None-Match": first.headers["ETag"]})
    assert (known.status_code, known.headers["Cache-Control"]) == (304, first.headers["Cache-Control"])
    assert own.client.get(address).headers["Cache-Control"] == first.headers["Cache-Control"]  # from the cache folder
    for other in (address.partition("?")[0], f"{address[:-1]}x", address.partition("?")[0] + "?v="):
        assert own.client.get(other).headers["Cache-Control"] == "private, max-age=300"


def test_the_thumbnail_of_a_changed_file_is_not_immutable_until_it_is_indexed(own, paint, colour_bundle, album_tools):
    before = hit_of(own.client, "red")["thumbnail"]
    paint(own.files["red"], "blue", (500, 300))
    assert own.client.get(f"/api/v1/{before}").headers["Cache-Control"] == "private, max-age=300"
    album_tools.publish_album(own.root / "images", colour_bundle, own.root)
    with album_tools.serving(own.index) as client:
        after = client.get(f"/api/v1/images/{own.ids['red']}").json()["thumbnail"]
        assert after != before
        assert client.get(f"/api/v1/{after}").headers["Cache-Control"].endswith("immutable")
        assert client.get(f"/api/v1/{before}").headers["Cache-Control"] == "private, max-age=300"


def test_thumbnails_are_cached_and_work_without_a_writable_cache(own):
    url = f"/api/v1/images/{own.ids['red']}/thumbnail"
    first = own.client.get(url).content
    (kept,) = own.kept.rglob("*.jpg")
    assert kept.read_bytes() == first
    kept.write_bytes(b"from the folder")
    assert own.client.get(url).content == b"from the folder"
    shutil.rmtree(own.kept)
    own.kept.write_text("a file where the folder should be")
    assert own.client.get(url).content == first


def test_a_file_above_the_size_limit_is_not_read(album_tools, album):
    with album_tools.serving(album / "index", max_original_bytes=100) as client:
        answer = client.get(address(client, "red", "/thumbnail"))
        assert (answer.status_code, answer.json()["code"]) == (410, "gone")
        assert client.get(address(client, "red", "/original")).status_code == 200


def zip_of(response):
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/zip"
    return zipfile.ZipFile(io.BytesIO(response.content))


def test_an_archive_holds_the_unchanged_files(own):
    archive = zip_of(
        own.client.get("/api/v1/archive", params={"id": [own.ids["red"], own.ids["blue"], own.ids["red"]]})
    )
    assert archive.testzip() is None
    assert {name: archive.read(name) for name in archive.namelist()} == {
        f"{name}.png": own.files[name].read_bytes() for name in ("red", "blue")
    }


def test_an_archive_names_the_files_that_are_gone(own):
    own.files["green"].unlink()
    archive = zip_of(own.client.get("/api/v1/archive", params={"id": [own.ids["green"], own.ids["red"]]}))
    assert archive.namelist() == ["red.png", "missing.txt"]
    assert archive.read("missing.txt") == b"green.png\n"


def test_an_archive_of_unknown_or_too_many_images_is_refused(own):
    assert own.client.get("/api/v1/archive", params={"id": ["0" * 16]}).status_code == 404
    assert own.client.get("/api/v1/archive").status_code == 422
    assert own.client.get("/api/v1/archive", params={"id": [own.ids["red"]] * 501}).status_code == 422


def test_files_of_one_name_get_numbers_in_an_archive():
    used = {"missing.txt"}
    assert [_unused(name, used) for name in ("a.jpg", "A.jpg", "a.jpg", ".x", ".x", "missing.txt")] == [
        "a.jpg",
        "A (2).jpg",
        "a (3).jpg",
        ".x",
        ".x (2)",
        "missing (2).txt",
    ]
