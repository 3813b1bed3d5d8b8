"""A home of an earlier version, with a second index beside the library: it becomes a source, and nothing is embedded."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.configs import GalleryConfig
from image_finder.components.home import HOME_VARIABLE
from image_finder.components.index.format import write_manifest
from image_finder.components.index.generations import POINTER, current_generation, generations
from image_finder.components.index.index import VectorIndex
from image_finder.components.index.publish import default_bundle, publish_bundle, restore
from image_finder.components.library import former_home
from image_finder.components.library.former_home import bring_up_to_date
from image_finder.components.library.index_options import IndexOptions
from image_finder.components.library.indexer import update
from image_finder.components.library.library import Library, default_index
from image_finder.components.search.finder import Finder
from tests.support.checkout import CHECKOUT
from tests.support.galleries import CONFIG, publish_gallery

CAPTIONED = ("red", "green")


@pytest.fixture
def make_former(tmp_path, paint):
    """make(bundle, ...): a home whose `index` holds one generation for each bundle, as an earlier version published it."""

    def make(*bundles):
        images, annotations = [], []
        for number, name in enumerate(CAPTIONED):
            paint(tmp_path / "data" / "images" / f"{name}.png", name)
            images.append({"id": number, "file_name": f"{name}.png"})
            annotations.append({"image_id": number, "caption": f"a {name} thing"})
        paint(tmp_path / "data" / "images" / "white.png", "white")  # without an annotation
        content = {"images": images, "annotations": annotations}
        (tmp_path / "data" / "captions.json").write_text(json.dumps(content))
        home = tmp_path / "home"
        gallery = GalleryConfig(root=tmp_path / "data", annotations="captions.json", images="images")
        for number, bundle in enumerate(bundles, start=1):
            made = publish_gallery(gallery, bundle, tmp_path / f"made{number}")
            publish_bundle(bundle, home / "bundles")
            folder = home / "index" / "generations" / f"{number:08d}-0123456{number}"
            shutil.copytree(made.path, folder)
            kept = str(home / "bundles" / bundle.sha256[:16])
            write_manifest(folder, made.manifest.model_copy(update={"bundle_uri": kept}))
            for cache in (tmp_path / f"made{number}").glob("vectors-*"):
                shutil.copytree(cache, home / "cache" / cache.name)
        (home / "index" / POINTER).write_text(f"{folder.name}\n")
        return home

    return make


@pytest.fixture
def without_embedding(monkeypatch):
    """A function after whose call an embedded image fails the test."""
    return lambda: monkeypatch.setattr(OnnxEncoder, "encode_image", lambda *_: pytest.fail("an image was embedded"))


def found(index):
    return [(hit.name, list(hit.captions)) for hit in Finder.open(index, threads=1).search("red", k=5).hits]


BOTH = [("red.png", ["a red thing"]), ("green.png", ["a green thing"])]


def index_again(home, *folders, bundle=None):
    """Update the library as `image-finder index` does."""
    warned = []
    options = IndexOptions(CONFIG, bundle=bundle, default_bundles=home / "bundles")
    return update(Library(home / "library"), folders, options, warn=warned.append), warned


def test_the_index_becomes_a_source_of_the_library_and_nothing_is_embedded(
    make_former, colour_bundle, without_embedding, monkeypatch, caplog
):
    home = make_former(colour_bundle)
    before = VectorIndex.open(home / "index")
    (home / "cache" / "pictures").mkdir()
    (home / "cache" / "pictures" / "facts.parquet").write_bytes(b"facts")
    without_embedding()
    monkeypatch.setenv(HOME_VARIABLE, str(home))
    index = default_index()
    assert index == home / "library" / "index"
    assert found(index) == BOTH
    opened = VectorIndex.open(index)
    assert sorted(opened.items["id"].to_pylist()) == sorted(before.items["id"].to_pylist())
    assert sorted(map(bytes, opened.vectors)) == sorted(map(bytes, before.vectors))
    assert sorted(path.name for path in home.iterdir()) == ["bundles", "cache", "library"]
    assert (home / "cache" / "images" / "facts.parquet").read_bytes() == b"facts"
    assert not (home / "cache" / "pictures").exists()
    assert caplog.messages == [f"the index in {home}/index, 2 images, is a source of the library {home}/library now"]
    summary, warned = index_again(home)
    assert (summary.embedded, summary.unchanged, summary.images, warned) == (0, 2, 2, [])
    assert found(index) == BOTH


def test_a_second_migration_changes_nothing(make_former, colour_bundle):
    home = make_former(colour_bundle)
    bring_up_to_date(home)
    generation = current_generation(home / "library" / "index")
    bring_up_to_date(home)
    assert current_generation(home / "library" / "index") == generation


def test_a_library_of_the_same_bundle_is_merged_with_the_former_index(
    make_former, colour_bundle, paint, tmp_path, without_embedding
):
    home = make_former(colour_bundle)
    paint(tmp_path / "photos" / "blue.png", "blue")
    index_again(home, tmp_path / "photos")
    without_embedding()
    bring_up_to_date(home)
    assert {name for name, _ in found(home / "library" / "index")} == {"red.png", "green.png", "blue.png"}
    assert index_again(home)[0].folders == (str(tmp_path / "photos"), str(tmp_path / "data" / "images"))


@pytest.mark.parametrize("newer", ["index", "library"])
def test_searches_keep_the_bundle_of_the_former_index_until_the_library_is_indexed(
    make_former, colour_bundle, write_colour_bundle, paint, tmp_path, monkeypatch, caplog, newer
):
    home = make_former(colour_bundle)
    other = write_colour_bundle(tmp_path / "other", input_px=16)
    paint(tmp_path / "photos" / "blue.png", "blue")
    index_again(home, tmp_path / "photos", bundle=other.path)
    os.utime(home / "library" / "index" / POINTER, (100, 100))
    os.utime(home / "index" / POINTER, (200, 200) if newer == "index" else (50, 50))
    with monkeypatch.context() as patch:
        patch.setattr(OnnxEncoder, "encode_image", lambda *_: pytest.fail("an image was embedded"))
        bring_up_to_date(home)
    seen, left = ({"red.png", "green.png"}, "1 image is") if newer == "index" else ({"blue.png"}, "2 images are")
    assert {name for name, _ in found(home / "library" / "index")} == seen
    assert f"{left} not searched until 'image-finder index' has embedded " in caplog.messages[0]
    summary, _ = index_again(home, bundle=other.path)
    assert (summary.images, summary.embedded) == (3, 2)
    with monkeypatch.context() as patch:
        patch.setattr(OnnxEncoder, "encode_image", lambda *_: pytest.fail("an image was embedded"))
        library = Library(home / "library")
        restored = restore(colour_bundle, bundles=home / "bundles", target=library.index)
    assert restored is not None
    assert {name for name, _ in found(library.index)} == {"red.png", "green.png"}


def test_a_rollback_finds_the_index_of_the_previous_bundle(
    make_former, colour_bundle, write_colour_bundle, tmp_path, without_embedding
):
    newer = write_colour_bundle(tmp_path / "newer", input_px=16)
    home = make_former(colour_bundle, newer)
    without_embedding()
    bring_up_to_date(home)
    library = Library(home / "library")
    assert VectorIndex.open(library.index).manifest.bundle_sha256 == newer.sha256
    assert restore(colour_bundle, bundles=home / "bundles", target=library.index) is not None
    assert found(library.index) == BOTH
    assert default_bundle(home / "bundles").name == colour_bundle.sha256[:16]
    assert index_again(home)[0].embedded == 0  # its vectors are kept as well


def test_a_read_only_home_is_searched_in_its_former_index(make_former, colour_bundle, monkeypatch):
    home = make_former(colour_bundle)
    monkeypatch.setenv(HOME_VARIABLE, str(home))
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert default_index() == home / "index"
    assert found(default_index()) == BOTH


def test_an_unreadable_former_index_is_moved_aside(make_former, colour_bundle, caplog):
    home = make_former(colour_bundle)
    shutil.rmtree(home / "bundles" / colour_bundle.sha256[:16])
    bring_up_to_date(home)
    assert (home / "index.damaged" / POINTER).is_file()
    assert not (home / "index").exists()
    assert "cannot be read: no bundle at" in caplog.messages[0]


STEPS = ("_move_vectors", "_keep_vectors", "_keep_items", "_keep_generations", "_publish", "temporary_directory")


@pytest.mark.posix
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_migration_that_is_killed_is_completed_by_the_next_command(
    make_former, colour_bundle, write_colour_bundle, tmp_path, without_embedding, step, when
):
    newer = write_colour_bundle(tmp_path / "newer", input_px=16)
    home = make_former(colour_bundle, newer)
    if (child := os.fork()) == 0:
        whole = getattr(former_home, step)

        def killed(*arguments):
            if when == "after":
                result = whole(*arguments)
                if step == "temporary_directory":
                    result.__enter__()
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(former_home, step, killed)
        bring_up_to_date(home)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    # A reader finds a whole index at any time.
    published = home / "library" / "index"
    assert found(published if (published / POINTER).is_file() else home / "index") == BOTH
    without_embedding()
    bring_up_to_date(home)
    assert found(published) == BOTH
    assert not (home / "index").exists()
    assert len(generations(published)) <= 3
    assert restore(colour_bundle, bundles=home / "bundles", target=published) is not None


def test_processes_that_migrate_at_the_same_time_agree(make_former, colour_bundle):
    home = make_former(colour_bundle)
    environment = {**os.environ, HOME_VARIABLE: str(home), "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-m", "image_finder", "search", "red", "--json"]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    printed = [(process.communicate(timeout=100), process.returncode) for process in running]
    assert [code for _, code in printed] == [0] * 4, printed
    assert all([hit["name"] for hit in json.loads(out)["hits"]] == ["red.png", "green.png"] for (out, _), _ in printed)
    assert len(generations(home / "library" / "index")) == 1
