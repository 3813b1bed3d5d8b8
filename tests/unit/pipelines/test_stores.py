import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from image_finder.components.app.stored_data import CONTENT
from image_finder.components.errors import ConfigError, StorageError
from image_finder.pipelines.stores import Home, _make_folders, prepare, require_demo_library, tracking_uri
from tests.support.checkout import CHECKOUT


def test_given_folder_wins_over_the_variable_and_the_variable_over_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGE_FINDER_HOME", str(tmp_path / "variable"))
    assert Home.resolve(tmp_path / "given").root == tmp_path / "given"
    assert Home.resolve().root == tmp_path / "variable"
    monkeypatch.delenv("IMAGE_FINDER_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert Home.resolve().root.name == "image-finder"


def test_relative_and_tilde_folders_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Home.resolve(Path("here")).root == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Home.resolve(Path("~/there")).root == tmp_path / "there"


def test_resolving_makes_no_folder(tmp_path):
    home = Home.resolve(tmp_path / "new")
    assert not home.root.exists()
    assert {home.zenml_dir.parent, home.mlflow_db.parent, home.mlflow_artifacts.parent, home.cache_dir.parent} == {
        home.root
    }


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def index(images, bundle, *options, home):
    line = [sys.executable, "-m", "image_finder", "index", images, "--bundle", bundle.path, *options]
    environment = {**os.environ, "IMAGE_FINDER_HOME": str(home)}
    checkout = CHECKOUT
    subprocess.run(line, env=environment, cwd=checkout, umask=0o022, capture_output=True, timeout=120, check=True)


def test_a_new_home_and_a_library_elsewhere_can_be_read_by_their_owner_only(colour_bundle, paint, tmp_path):
    (tmp_path / "existing").mkdir(mode=0o755)
    home, library = tmp_path / "existing" / "new" / "home", tmp_path / "existing" / "library"
    paint(tmp_path / "images" / "red.png", "red")
    index(tmp_path / "images", colour_bundle, home=home)
    index(tmp_path / "images", colour_bundle, "--library", library, home=home)
    _make_folders(Home(home))
    assert [mode_of(path) for path in (home.parent, home, home / "library", home / "zenml", library)] == [0o700] * 5
    assert mode_of(tmp_path / "existing") == 0o755


def test_an_existing_home_keeps_its_mode(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(0o750)
    _make_folders(Home(tmp_path / "home"))
    assert mode_of(tmp_path / "home") == 0o750


def test_mlflow_address_is_the_given_one_then_the_variable_then_the_home(tmp_path, monkeypatch):
    home = Home(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://variable")
    assert tracking_uri(home, "http://given") == "http://given"
    assert tracking_uri(home) == "http://variable"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # as ZenML leaves it after a tracked step
    assert tracking_uri(home) == f"sqlite:///{tmp_path}/mlflow.db"


def test_home_that_is_a_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*file/zenml: Not a directory"):
        prepare(Home(tmp_path / "file"), mlflow_uri=None)


def test_the_demo_does_not_take_over_the_search_of_other_images(colour_bundle, paint, tmp_path, album_tools):
    home = Home(tmp_path / "home")
    require_demo_library(home)
    paint(home.data_dir / "demo" / "images" / "red.png", "red")
    album_tools.publish_album(home.data_dir / "demo" / "images", colour_bundle, home.library_dir)
    require_demo_library(home)
    paint(tmp_path / "photos" / "blue.png", "blue")
    album_tools.publish_album(tmp_path / "photos", colour_bundle, home.library_dir)
    with pytest.raises(
        ConfigError, match=rf"holds {tmp_path}/photos, which would .*: give another directory with --home"
    ):
        require_demo_library(home)


def test_info_names_the_content_of_each_path_in_a_home(tmp_path):
    paths = [path for path in vars(Home(tmp_path)).values() if isinstance(path, Path) and path != tmp_path]
    assert {path.relative_to(tmp_path).parts[0] for path in paths} <= set(CONTENT)
