"""Published indices and libraries whose home was renamed, copied or restored: they answer with the files beside them."""

import json
import shutil
from pathlib import Path

import pytest

from image_finder.components.app.index_info import index_info
from image_finder.components.configs import EmbeddingConfig
from image_finder.components.errors import BundleError
from image_finder.components.index import stored_paths
from image_finder.components.index.format import read_manifest
from image_finder.components.index.generations import current_generation
from image_finder.components.index.index import VectorIndex
from image_finder.components.library.catalog import Catalog
from image_finder.components.library.index_options import IndexOptions
from image_finder.components.library.indexer import update
from image_finder.components.library.library import Library
from image_finder.components.search.engine import SearchEngine
from image_finder.components.search.finder import Finder
from image_finder.components.storage import hash_directory
from image_finder.components.system import path_bytes


@pytest.fixture
def home(tmp_path, paint, album_tools, colour_bundle):
    """A home with two images in it and their published index."""
    root = tmp_path / "home"
    for colour in ("red", "blue"):
        paint(root / "images" / f"{colour}.png", colour)
    album_tools.publish_album(root / "images", colour_bundle, root)
    return root


def best_of(home):
    """Path of the first hit for "red", by each way to open an index."""
    engine = SearchEngine.open(home / "index", threads=1)
    (found,) = {
        engine.image_path(engine.search("red", 1).hits[0].id),
        Path(engine.search("red", 1).hits[0].uri),
        Path(Finder.open(home / "index", threads=1).search("red", k=1).hits[0].uri),
    }
    return found


def store_absolute_paths(home):
    """Write index.json as earlier versions did."""
    generation = current_generation(home / "index")
    manifest = read_manifest(generation)
    (generation / "index.json").write_text(manifest.model_dump_json())


def test_a_published_index_stores_no_absolute_path_of_its_home(home):
    stored = (current_generation(home / "index") / "index.json").read_text()
    assert str(home) not in stored
    assert json.loads(stored)["roots"] == ["../../../images"]
    assert read_manifest(home / "index").roots == (str(home / "images"),)


@pytest.mark.parametrize("earlier", [False, True])
def test_a_renamed_home_answers_and_nothing_is_written_for_it(home, earlier):
    if earlier:
        store_absolute_paths(home)
    renamed = home.rename(home.with_name("re named ü"))
    before = hash_directory(renamed)
    assert best_of(renamed) == renamed / "images" / "red.png"
    assert index_info(renamed / "index", {}).bundle_path.startswith(str(renamed))
    assert hash_directory(renamed) == before


@pytest.mark.parametrize("earlier", [False, True])
def test_a_copy_answers_with_its_own_files_while_the_original_is_there(home, earlier):
    if earlier:
        store_absolute_paths(home)
    copy = Path(shutil.copytree(home, home.with_name("copy")))
    assert best_of(copy) == copy / "images" / "red.png"
    assert best_of(home) == home / "images" / "red.png"
    assert Path(read_manifest(copy / "index").bundle_uri).is_relative_to(copy)


def test_images_outside_the_home_keep_their_path(tmp_path, paint, album_tools, colour_bundle):
    paint(tmp_path / "elsewhere" / "red.png", "red")
    home = tmp_path / "home"
    home.mkdir()
    album_tools.publish_album(tmp_path / "elsewhere", colour_bundle, home)
    assert best_of(home.rename(tmp_path / "renamed")) == tmp_path / "elsewhere" / "red.png"


def test_an_index_without_its_bundle_names_where_it_should_be(home):
    shutil.copytree(home / "index", home.with_name("alone") / "index")
    with pytest.raises(BundleError, match=r"no bundle at .*alone/bundles"):
        Finder.open(home.with_name("alone") / "index")


@pytest.mark.posix
def test_a_relative_path_and_a_link_lead_to_the_same_files(home, monkeypatch):
    monkeypatch.chdir(home.parent)
    assert read_manifest(Path("home/index")).roots == (str(home / "images"),)
    home.with_name("link").symlink_to(home)
    assert read_manifest(home.with_name("link") / "index").roots == (str(home.with_name("link") / "images"),)


def test_a_library_its_published_index_and_a_generation_are_opened_alike(home):
    generation = current_generation(home / "index")
    for path in (home, home / "index", generation):
        assert VectorIndex.open(path).path == SearchEngine.open(path, threads=1).index.path == generation
        assert Finder.open(path, threads=1).generation == generation.name
        assert read_manifest(path) == read_manifest(generation)


def test_uris_of_object_stores_are_stored_as_they_are(tmp_path):
    folder = tmp_path / "index" / "generations" / "00000001-01234567"
    for path in ("s3://bucket/images", "/srv/images"):
        assert stored_paths.relative(path, folder) == path
        assert stored_paths.absolute(path, folder) == path


def test_a_library_follows_its_home_with_the_sources_that_are_in_it(tmp_path, paint, colour_bundle):
    home, outside = tmp_path / "home", tmp_path / "outside"
    paint(home / "photos" / "red.png", "red")
    paint(outside / "blue.png", "blue")
    assert index(home, colour_bundle, home / "photos", outside) == (2, [])
    copy = Path(shutil.copytree(home, tmp_path / "copy"))
    before = hash_directory(home)
    assert index(copy, colour_bundle) == (2, [f"Home moved from {home} to {copy}: stored paths updated"])
    assert VectorIndex.open(copy / "library" / "index").manifest.roots == (str(copy / "photos"), str(outside))
    with Catalog.read(copy / "library" / "catalog.sqlite") as catalog:
        assert set(catalog.folders().values()) == {path_bytes(copy / "photos"), path_bytes(outside)}
    assert hash_directory(home) == before
    assert index(copy, colour_bundle) == (2, [])


def test_a_library_of_an_earlier_version_follows_its_home(tmp_path, paint, colour_bundle):
    home = tmp_path / "home"
    paint(home / "photos" / "red.png", "red")
    index(home, colour_bundle, home / "photos")
    with Catalog.open(home / "library" / "catalog.sqlite", warn=print) as catalog:
        catalog.set(home="")
        catalog.commit()
    store_absolute_paths(home / "library")
    renamed = home.rename(tmp_path / "renamed")
    assert index(renamed, colour_bundle) == (1, [f"Home moved from {home} to {renamed}: stored paths updated"])
    assert best_of(renamed / "library") == renamed / "photos" / "red.png"


def index(home, bundle, *folders):
    """Number of images after an update, and what it warned of."""
    warned = []
    options = IndexOptions(
        EmbeddingConfig(device="cpu", threads=1), bundle=bundle.path, default_bundles=home / "bundles"
    )
    done = update(Library(home / "library"), folders, options, warn=warned.append)
    assert not done.failed
    assert done.embedded in {0, done.added}
    return done.images, warned
