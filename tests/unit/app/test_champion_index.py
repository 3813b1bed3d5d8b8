"""Champion note: how serving code reports an index of the previous champion."""

import json

import pytest
from click.testing import CliRunner

from image_finder.components.app.champion_index import NOTE, ChampionNote, note_champion, pending_change
from image_finder.components.app.cli import main

NEWER = "f" * 64


@pytest.fixture
def home(tmp_path, paint, album_tools, colour_bundle, monkeypatch):
    """A home with an index of version 1."""
    monkeypatch.setenv("IMAGE_FINDER_HOME", str(tmp_path))
    paint(tmp_path / "images" / "red.png", "red")
    album_tools.publish_album(tmp_path / "images", colour_bundle, tmp_path / "library")
    return tmp_path


def champion(version, bundle, model="image-finder"):
    return ChampionNote(model=model, version=version, bundles={"1": bundle.sha256, "2": NEWER})


def test_info_and_readiness_name_both_versions_and_the_command(home, album_tools, colour_bundle):
    text = "The current index belongs to version 1; version 2 is champion. Complete with: image-finder models promote 2"
    with album_tools.serving(home / "library" / "index") as client:
        assert "pending" not in client.get("/health/ready").json()
        note_champion(home, champion("2", colour_bundle))
        answer = client.get("/health/ready").json()
        assert (answer["status"], answer["pending"]) == ("ready", text)
        shown = CliRunner().invoke(main, ["info"])
        assert f"pending    {text}" in shown.stdout.splitlines()
        assert json.loads(CliRunner().invoke(main, ["info", "--json"]).stdout)["pending"] == text
        note_champion(home, champion("1", colour_bundle))
        assert "pending" not in client.get("/health/ready").json()
    assert "pending" not in CliRunner().invoke(main, ["info"]).stdout


def test_the_command_names_model_and_home_but_readiness_contains_no_path(home, colour_bundle, monkeypatch, album_tools):
    note_champion(home, champion("2", colour_bundle, model="my model"))
    monkeypatch.setenv("IMAGE_FINDER_HOME", "/usual")
    command = "image-finder models promote 2 --model 'my model'"
    assert (
        pending_change(home / "library" / "index").text().endswith(f"Complete with: IMAGE_FINDER_HOME={home} {command}")
    )
    with album_tools.serving(home / "library" / "index") as client:
        assert client.get("/health/ready").json()["pending"].endswith(f"Complete with: {command}")


def test_a_library_outside_the_home_has_no_champion(home, colour_bundle, album_tools, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    album_tools.publish_album(home / "images", colour_bundle, elsewhere)
    note_champion(home, champion("2", colour_bundle))
    assert pending_change(elsewhere / "index") is None


def test_an_index_of_an_unknown_version_has_no_pending_change(home, colour_bundle):
    unknown = ChampionNote(model="image-finder", version="2", bundles={"2": NEWER})
    note_champion(home, unknown)
    assert pending_change(home / "library" / "index") is None
    (home / NOTE).write_bytes(b"{damaged")
    assert pending_change(home / "library" / "index") is None
    note_champion(home, champion("2", colour_bundle))
    assert pending_change(home / "library" / "index").champion_version == "2"


def test_a_home_without_an_index_gets_no_note(tmp_path, colour_bundle):
    note_champion(tmp_path, champion("2", colour_bundle))
    assert not (tmp_path / NOTE).exists()
