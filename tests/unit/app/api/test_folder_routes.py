"""Adding folders: only with the key, only on this machine, and with the reason if it fails."""

import time

import pytest

from image_finder.components.app.api.settings import Settings
from image_finder.components.errors import ConfigError

KEY = "key-that-the-server-has-printed"
HEADERS = {"X-Folder-Key": KEY}


@pytest.fixture
def library(tmp_path, album_tools, colour_bundle, paint):
    paint(tmp_path / "images" / "red.png", "red")
    place = tmp_path / "library"
    album_tools.publish_album(tmp_path / "images", colour_bundle, place)
    return place


@pytest.fixture
def client(library, album_tools):
    with album_tools.serving(library / "index", library_path=library, folder_key=KEY) as client:
        yield client


def ended(client):
    for _ in range(600):
        state = client.get("/api/v1/folders", headers=HEADERS).json()
        if not state["running"]:
            return state
        time.sleep(0.1)
    pytest.fail("the folder was not added within 60 s")


@pytest.mark.parametrize("headers", [{}, {"X-Folder-Key": "wrong"}, {"X-Folder-Key": ""}])
def test_without_the_key_nothing_is_added(client, tmp_path, headers):
    assert client.get("/api/v1/folders", headers=headers).json()["allowed"] is False
    answer = client.post("/api/v1/folders", headers=headers, json={"folder": str(tmp_path)})
    assert answer.status_code == 403


def test_without_a_key_of_the_server_nothing_is_added(library, album_tools, tmp_path):
    with album_tools.serving(library / "index", library_path=library) as client:
        assert client.get("/api/v1/folders", headers={"X-Folder-Key": ""}).json()["allowed"] is False
        assert client.post("/api/v1/folders", headers=HEADERS, json={"folder": str(tmp_path)}).status_code == 403


@pytest.mark.parametrize("folder", ["nowhere", "/no/such/folder", "~nobody-of-this-name/x", "a\0b"])
def test_what_is_not_a_folder_is_refused(client, folder):
    answer = client.post("/api/v1/folders", headers=HEADERS, json={"folder": folder})
    assert answer.status_code == 400
    assert "is not a folder of this computer" in answer.text


@pytest.mark.slow
def test_a_folder_is_added_and_searchable(client, tmp_path, paint):
    paint(tmp_path / "-more" / "blue.png", "blue")
    answer = client.post("/api/v1/folders", headers=HEADERS, json={"folder": str(tmp_path / "-more")})
    assert (answer.status_code, answer.json()["running"]) == (202, True)
    assert client.post("/api/v1/folders", headers=HEADERS, json={"folder": str(tmp_path)}).status_code in {202, 409}
    assert ended(client)["failure"] == ""
    for _ in range(100):
        hits = client.get("/api/v1/search?q=blue").json()["hits"]
        if hits[0]["name"] == "blue.png":
            return
        time.sleep(0.1)
    pytest.fail("the added image is not found")


@pytest.mark.slow
def test_the_reason_of_a_failure_is_reported(client, tmp_path, library):
    (library / "index").rename(tmp_path / "index")
    (library / "index").write_text("not a folder")
    client.post("/api/v1/folders", headers=HEADERS, json={"folder": str(tmp_path / "images")})
    assert "index" in ended(client)["failure"]


@pytest.mark.parametrize("values", [{"host": "0.0.0.0", "token": "0123456789abcdef"}, {"library_path": None}])
def test_only_a_server_of_this_machine_with_a_library_has_a_key(tmp_path, values):
    with pytest.raises(ConfigError, match="folder_key needs a library and an address of this machine only"):
        Settings.parse({"library_path": tmp_path, "folder_key": KEY, **values})
