"""Galleries as sources of a library: captions, object stores, limits, and what an update survives."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from image_finder.components.configs import GalleryConfig
from image_finder.components.errors import DataError, QualityError, StorageError
from image_finder.components.index.index import VectorIndex
from image_finder.components.index.vector_cache import vector_cache
from image_finder.components.library.catalog import Catalog
from image_finder.components.library.index_options import IndexOptions
from image_finder.components.library.indexer import update
from image_finder.components.library.library import Library
from image_finder.components.library.sources import given_uris, root_of, settle_galleries, uris_of
from image_finder.components.search.finder import Finder
from image_finder.components.storage import hash_directory, sha256_of_file
from tests.support.checkout import CHECKOUT
from tests.support.galleries import CONFIG, publish_gallery
from tests.support.item_ids import item_id

# Embeds argv[2] with the bundle argv[1] in the library argv[3]; argv[4]: how it is hurt, argv[5]: how much it may take.
CHILD = """
import os, resource, signal, sys
from pathlib import Path
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import EmbeddingConfig, GalleryConfig
from image_finder.components.errors import FinderError
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.library.catalog import Catalog
from image_finder.components.library.index_options import IndexOptions
from image_finder.components.library.indexer import update
from image_finder.components.library.library import Library
bundle, images, library, hurt, much = sys.argv[1:]
if hurt == "kill":
    append, left = ContentCache.append, [int(much)]
    def dying(self, keys, entries):
        if left[0] == 0:
            with self._data_path.open("ab") as stream:  # half a row and no key: what a kill in mid-write leaves
                stream.write(b"12345")
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        append(self, keys, entries)
    ContentCache.append = dying
if hurt == "disk":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(much), int(much)))
try:
    options = IndexOptions(EmbeddingConfig(device="cpu", threads=1, batch_images=4), bundle=Path(bundle),
        galleries=[GalleryConfig(root=images, max_failed_share=0)], self_check=True)
    update(Library(Path(library)), [], options, warn=print)
except FinderError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def child(*arguments):
    command = [sys.executable, "-c", CHILD, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(
        command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture
def folder(tmp_path, paint):
    """30 images of distinct colours."""
    rng = np.random.default_rng(0)
    for number in range(30):
        paint(tmp_path / "images" / f"{number:02d}.png", tuple(int(value) for value in rng.integers(20, 255, 3)))
    return tmp_path / "images"


def embed(bundle, gallery, tmp_path, *, config=CONFIG, max_failed_share=0.0, warn=None):
    if not isinstance(gallery, GalleryConfig):
        gallery = GalleryConfig(root=gallery, max_failed_share=max_failed_share)
    return publish_gallery(gallery, bundle, tmp_path / "library", config=config, warn=warn)


def searched(tmp_path):
    """Files that a failed update must not change."""
    return hash_directory(tmp_path / "library" / "index")


def table(index):
    return index.items.to_pylist()


def test_items_are_in_the_order_of_the_gallery_and_have_the_vectors_of_their_images(colour_bundle, tmp_path, paint):
    paint(tmp_path / "images" / "z.png", (255, 0, 0), (30, 20))
    paint(tmp_path / "images" / "a.png", (0, 0, 255), (7, 9))
    (tmp_path / "captions.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "z.png"}, {"id": 2, "file_name": "a.png"}],
                "annotations": [{"image_id": 1, "caption": "a red thing"}],
            }
        )
    )
    gallery = GalleryConfig(root=tmp_path, annotations="captions.json", images="images")
    index = embed(colour_bundle, gallery, tmp_path)
    second, first = table(index)  # by path
    modified = first.pop("modified_at")
    assert modified.replace(tzinfo=UTC).timestamp() == int((tmp_path / "images" / "z.png").stat().st_mtime)
    assert first == {
        "id": item_id(tmp_path / "images", b"z.png"),
        "root": 0,
        "path": b"z.png",
        "folder": "images",
        "name": "z.png",
        "bytes": (tmp_path / "images" / "z.png").stat().st_size,
        "dhash": 0,
        "taken_at": None,
        "camera": "",
        "latitude": None,
        "longitude": None,
        "sha256": sha256_of_file(tmp_path / "images" / "z.png"),
        "width_px": 30,
        "height_px": 20,
        "captions": ["a red thing"],
    }
    assert (second["name"], second["width_px"], second["height_px"], second["captions"]) == ("a.png", 7, 9, [])
    np.testing.assert_allclose(index.vectors, [[0, 0, 1], [1, 0, 0]], atol=1e-4)
    assert index.manifest.bundle_sha256 == colour_bundle.sha256
    assert index.manifest.bundle_uri == str(tmp_path / "library" / "bundles" / colour_bundle.sha256[:16])
    assert index.manifest.roots == (str(tmp_path / "images"),)


def test_rotated_photographs_have_their_displayed_size(colour_bundle, tmp_path):
    from PIL import Image

    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 10), "red").save(tmp_path / "images" / "a.jpg", exif=exif)
    (item,) = table(embed(colour_bundle, tmp_path / "images", tmp_path))
    assert (item["width_px"], item["height_px"]) == (10, 40)


def test_self_check_counts_and_finds_every_image(colour_bundle, folder, tmp_path):
    check = embed(colour_bundle, folder, tmp_path).manifest.self_check
    assert (check.n_images, check.found_themselves_first, check.recall_at_10) == (30, 30, 1.0)
    config = CONFIG.model_copy(update={"self_check_images": 7})
    assert embed(colour_bundle, folder, tmp_path / "other", config=config).manifest.self_check.n_images == 7


def test_a_gallery_needs_at_least_one_image(colour_bundle, tmp_path, paint):
    paint(tmp_path / "images" / "a.png", "red")
    assert embed(colour_bundle, tmp_path / "images", tmp_path).manifest.count == 1
    (tmp_path / "empty").mkdir()
    before = searched(tmp_path)
    with pytest.raises(DataError, match=r"gallery: no images in .*/empty and below"):
        embed(colour_bundle, tmp_path / "empty", tmp_path)
    assert searched(tmp_path) == before
    assert embed(colour_bundle, tmp_path / "images", tmp_path).manifest.roots == (str(tmp_path / "images"),)


def test_unreadable_images_are_counted_listed_and_skipped(colour_bundle, folder, tmp_path):
    (folder / "05.png").write_bytes(b"no image")
    (folder / "07.png").write_bytes((folder / "07.png").read_bytes()[:40])
    warned = []
    index = embed(colour_bundle, folder, tmp_path, max_failed_share=2 / 30, warn=warned)
    assert index.manifest.count == 28
    assert set(index.manifest.failed) == {str(folder / "05.png"), str(folder / "07.png")}
    assert "not a readable image" in index.manifest.failed[str(folder / "05.png")]
    assert {item["name"] for item in table(index)}.isdisjoint({"05.png", "07.png"})
    assert warned[-1].startswith("2 of 30 images of 'images' cannot be read (05.png:")


def test_too_many_unreadable_images_keep_the_old_index(colour_bundle, folder, tmp_path):
    embed(colour_bundle, folder, tmp_path)
    before = searched(tmp_path)
    for number in range(7):
        (folder / f"{number:02d}.png").write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"7 of 30 .*\(00\.png: .*04\.png: .*; and 2 more\): 23\.33%, allowed 20\.00%"
    ) as caught:
        embed(colour_bundle, folder, tmp_path, max_failed_share=0.2)
    assert "\n" not in str(caught.value)
    assert searched(tmp_path) == before


def test_a_gallery_of_unreadable_images_is_refused_and_not_added(colour_bundle, tmp_path, paint):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 of 1 .*100\.00%"):
        embed(colour_bundle, tmp_path / "images", tmp_path, max_failed_share=1)
    assert not (tmp_path / "library" / "index").exists()
    paint(tmp_path / "other" / "b.png", "red")
    assert embed(colour_bundle, tmp_path / "other", tmp_path).manifest.roots == (str(tmp_path / "other"),)


def test_equal_content_is_embedded_once_and_shares_its_vector(colour_bundle, folder, tmp_path):
    for number in range(30):
        shutil.copy(folder / f"{number:02d}.png", folder / f"copy of {number:02d}.png")
    index = embed(colour_bundle, folder, tmp_path)
    rows = {item["name"]: row for row, item in enumerate(table(index))}
    for number in range(30):
        one, other = rows[f"{number:02d}.png"], rows[f"copy of {number:02d}.png"]
        assert index.vectors[one].tobytes() == index.vectors[other].tobytes()
    assert len(vector_cache(colour_bundle, tmp_path / "library")) == 30
    assert index.manifest.self_check.found_themselves_first == 60


def test_a_second_run_computes_nothing_and_gives_the_same_index(colour_bundle, folder, tmp_path):
    embed(colour_bundle, folder, tmp_path)
    (cached,) = (tmp_path / "library").glob("vectors-*/rows.bin")
    before = cached.stat().st_size, searched(tmp_path)
    embed(colour_bundle, folder, tmp_path)
    assert (cached.stat().st_size, searched(tmp_path)) == before


def test_another_preprocessing_does_not_use_cached_vectors(colour_bundle, write_colour_bundle, folder, tmp_path):
    embed(colour_bundle, folder, tmp_path)
    embed(write_colour_bundle(tmp_path / "other", input_px=16), folder, tmp_path)
    assert len(list((tmp_path / "library").glob("vectors-*"))) == 2


def test_an_edited_image_is_embedded_again(colour_bundle, folder, tmp_path, paint):
    before = np.array(embed(colour_bundle, folder, tmp_path).vectors)
    paint(folder / "03.png", (255, 0, 0))
    after = np.array(embed(colour_bundle, folder, tmp_path).vectors)
    assert np.flatnonzero((before != after).any(axis=1)).tolist() == [3]
    np.testing.assert_allclose(after[3], [1, 0, 0], atol=1e-4)


@pytest.mark.posix
@pytest.mark.parametrize("kept_batches", [0, 3])
def test_a_killed_run_resumes_to_the_index_of_an_uninterrupted_one(colour_bundle, folder, tmp_path, kept_batches):
    whole = embed(colour_bundle, folder, tmp_path / "whole")
    library = tmp_path / "killed" / "library"
    arguments = (colour_bundle.path, folder, library)
    killed = child(*arguments, "kill", kept_batches)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (library / "index").exists()
    assert len(vector_cache(colour_bundle, library)) == 4 * kept_batches
    resumed = child(*arguments, "not", 0)
    assert resumed.returncode == 0, resumed.stderr
    index = VectorIndex.open(library / "index", verify=True)
    np.testing.assert_allclose(index.vectors, whole.vectors, atol=1e-6)
    assert table(index) == table(whole)
    assert index.manifest.self_check == whole.manifest.self_check


@pytest.mark.parametrize("limit", [100, 700, 20_000])
def test_a_full_disk_gives_a_one_line_error_and_keeps_the_old_index(colour_bundle, folder, tmp_path, limit):
    embed(colour_bundle, folder, tmp_path)
    before = searched(tmp_path)
    for number in range(30):
        (folder / f"{number:02d}.png").write_bytes((folder / f"{number:02d}.png").read_bytes() + b"\0" * (number + 1))
    done = child(colour_bundle.path, folder, tmp_path / "library", "disk", limit)
    assert done.returncode == 1
    assert done.stderr.startswith("StorageError: "), done.stderr
    assert str(tmp_path / "library") in done.stderr
    assert done.stderr.count("\n") == 1
    assert searched(tmp_path) == before


def test_vectors_of_other_images_are_not_published(colour_bundle, folder, tmp_path):
    embed(colour_bundle, folder, tmp_path)
    before = searched(tmp_path)
    (cached,) = (tmp_path / "library").glob("vectors-*/rows.bin")
    keys = cached.with_name("keys.tsv")
    np.fromfile(cached, np.float32).reshape(-1, 7)[::-1].tofile(cached)
    keys.write_bytes(b"".join(line.rpartition(b"\t")[0] + b"\n" for line in keys.read_bytes().splitlines()))  # no CRC
    shutil.copy(folder / "00.png", folder / "zz.png")
    with pytest.raises(QualityError, match="of 31 images do not find themselves first, the first is .*00"):
        embed(colour_bundle, folder, tmp_path)
    assert searched(tmp_path) == before


def test_a_library_that_cannot_be_written_names_its_path(colour_bundle, folder, tmp_path):
    (tmp_path / "library").write_text("a file is in the way")
    with pytest.raises((StorageError, DataError), match=str(tmp_path / "library")):
        embed(colour_bundle, folder, tmp_path)


def test_real_photographs_find_themselves(colour_bundle, shared_data, tmp_path):
    index = embed(colour_bundle, shared_data / "coco" / "train2017", tmp_path)
    assert index.manifest.failed == {}
    assert index.manifest.self_check.found_themselves_first == index.manifest.count == 80


# Captions


def annotate(tmp_path, **captions):
    """COCO annotations of images by their stems."""
    images = [{"id": number, "file_name": f"{stem}.png"} for number, stem in enumerate(captions)]
    texts = [{"image_id": number, "caption": text} for number, each in enumerate(captions.values()) for text in each]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": texts}))
    return GalleryConfig(root=tmp_path, annotations="captions.json", images="images")


def index_again(bundle, tmp_path, *folders, warn=print):
    """Update the library as `image-finder index` does."""
    library = Library(tmp_path / "library")
    summary = update(library, folders, IndexOptions(CONFIG, bundle=bundle.path), warn=warn)
    return summary, {item["name"]: item["captions"] for item in table(VectorIndex.open(library.index))}


def test_only_annotated_images_belong_to_an_annotated_gallery(colour_bundle, tmp_path, paint):
    for name in ("red", "green", "blue"):
        paint(tmp_path / "images" / f"{name}.png", name)
    embed(colour_bundle, annotate(tmp_path, red=["a red thing", "red"], blue=[]), tmp_path)
    captions = {"red.png": ["a red thing", "red"], "blue.png": []}
    assert index_again(colour_bundle, tmp_path)[1] == captions
    named, everything = index_again(colour_bundle, tmp_path, tmp_path / "images")
    assert (named.added, named.embedded) == (1, 1)
    assert everything == {**captions, "green.png": []}


def test_captions_are_updated_with_their_file_and_kept_without_it(colour_bundle, tmp_path, paint):
    for name in ("red", "green"):
        paint(tmp_path / "images" / f"{name}.png", name)
    embed(colour_bundle, annotate(tmp_path, red=["one"]), tmp_path)
    annotate(tmp_path, red=["another"], green=["a leaf"])
    changed, captions = index_again(colour_bundle, tmp_path)
    assert captions == {"red.png": ["another"], "green.png": ["a leaf"]}
    assert (changed.published, changed.embedded) == (True, 1)
    (tmp_path / "captions.json").write_text("{")
    warned = []
    again, captions = index_again(colour_bundle, tmp_path, warn=warned.append)
    assert (again.published, len(captions)) == (False, 2)
    assert warned[0].startswith(f"{tmp_path}/captions.json: not valid JSON")
    assert warned[0].endswith("the captions read before are kept")


def test_captions_of_a_lost_catalogue_are_restored_from_the_index(colour_bundle, tmp_path, paint):
    for name in ("red", "green"):
        paint(tmp_path / "images" / f"{name}.png", name)
    embed(colour_bundle, annotate(tmp_path, red=["a red thing"]), tmp_path)
    (tmp_path / "library" / "catalog.sqlite").unlink()
    summary, captions = index_again(colour_bundle, tmp_path)
    assert (summary.embedded, captions) == (0, {"red.png": ["a red thing"]})


def test_a_directory_that_is_indexed_keeps_all_its_images_when_it_becomes_a_gallery(colour_bundle, tmp_path, paint):
    for name in ("red", "green"):
        paint(tmp_path / "images" / f"{name}.png", name)
    index_again(colour_bundle, tmp_path, tmp_path / "images")
    index = embed(colour_bundle, annotate(tmp_path, red=["a red thing"]), tmp_path)
    assert {item["name"]: item["captions"] for item in table(index)} == {"red.png": ["a red thing"], "green.png": []}


def test_an_annotated_gallery_inside_a_directory_keeps_the_other_images_of_the_directory(
    colour_bundle, tmp_path, paint
):
    for name in ("red", "green"):
        paint(tmp_path / "images" / f"{name}.png", name)
    paint(tmp_path / "blue.png", "blue")
    index_again(colour_bundle, tmp_path, tmp_path / "images")
    embed(colour_bundle, annotate(tmp_path, red=["a red thing"]), tmp_path)
    summary, captions = index_again(colour_bundle, tmp_path, tmp_path)
    assert (summary.added, summary.embedded) == (1, 1)
    assert captions == {"blue.png": [], "green.png": [], "red.png": ["a red thing"]}


# Object stores


@pytest.fixture
def store(tmp_path, paint, s3_server):
    """store(): context of a server; yields the gallery of its two images."""
    for name in ("red", "blue"):
        paint(tmp_path / "bucket" / "photos" / "trip" / f"{name}.png", name, (30, 20))

    @contextlib.contextmanager
    def enter():
        with s3_server(tmp_path) as options:
            yield GalleryConfig(uri=f"s3://bucket?{options}", images="photos")

    return enter


def test_an_object_store_is_a_source_with_its_uris(colour_bundle, tmp_path, store):
    with store() as gallery:
        index = embed(colour_bundle, gallery, tmp_path)
        assert index.manifest.roots == ("s3://bucket/photos",)
        assert index.manifest.uris["s3://bucket/photos"].startswith("s3://bucket/photos?endpoint_override=")
        blue, red = table(index)
        assert index.uri_of_item(blue) == "s3://bucket/photos/trip/blue.png"
        assert (red["width_px"], red["height_px"], red["folder"], red["captions"]) == (30, 20, "photos/trip", [])
        assert red["sha256"] == sha256_of_file(tmp_path / "bucket" / "photos" / "trip" / "red.png")
        assert index.manifest.self_check.found_themselves_first == 2
        assert embed(colour_bundle, gallery, tmp_path).path == index.path


def test_a_store_without_images_and_one_that_is_a_directory_of_this_machine(colour_bundle, tmp_path, store, paint):
    paint(tmp_path / "photos" / "b" / "2.PNG", "red")
    index = embed(colour_bundle, GalleryConfig(uri=f"file://{tmp_path}/photos", images="b"), tmp_path)
    assert (index.manifest.roots, index.manifest.uris) == ((f"{tmp_path}/photos/b",), {})
    with store() as gallery, pytest.raises(DataError, match=r"gallery: no images in s3://bucket/none and below"):
        embed(colour_bundle, gallery.model_copy(update={"images": "none"}), tmp_path)


def test_credentials_among_the_options_of_a_uri_are_not_stored(tmp_path):
    gallery = GalleryConfig(uri="abfs://photos@account/trip?client_id=me&client_secret=s3cr3t&tenant_id=us")
    with Catalog.open(tmp_path / "catalog.sqlite", warn=print) as catalog:
        catalog.add_folder(root_of(gallery))
        settle_galleries(catalog, [gallery], directories=(), named=(), warn=print)
        stored = uris_of(catalog)
    assert stored == {b"abfs://photos@account/trip": "abfs://photos@account/trip?client_id=me&tenant_id=us"}
    assert given_uris([gallery]) == {b"abfs://photos@account/trip": gallery.uri}


def test_a_store_is_listed_again_only_by_its_pipeline_and_for_another_bundle(
    colour_bundle, write_colour_bundle, tmp_path, store, paint
):
    other = write_colour_bundle(tmp_path / "other", input_px=16)
    with store() as gallery:
        embed(colour_bundle, gallery, tmp_path)
    paint(tmp_path / "here" / "green.png", "green")
    warned = []
    summary, names = index_again(colour_bundle, tmp_path, tmp_path / "here", warn=warned.append)
    assert (summary.unchanged, summary.added, warned, len(names)) == (2, 1, [], 3)
    (tmp_path / "bucket" / "photos" / "trip" / "red.png").unlink()
    paint(tmp_path / "bucket" / "photos" / "yellow.png", "yellow")
    with store() as gallery:
        assert set(index_again(colour_bundle, tmp_path)[1]) == {"blue.png", "green.png", "red.png"}
        embed(colour_bundle, gallery, tmp_path)
        summary, names = index_again(other, tmp_path)
    assert (summary.embedded, set(names)) == (3, {"blue.png", "green.png", "yellow.png"})


def test_images_of_an_unreachable_store_are_kept_until_it_can_be_embedded_again(
    colour_bundle, write_colour_bundle, tmp_path, store, paint
):
    other = write_colour_bundle(tmp_path / "other", input_px=16)
    with store() as gallery:
        embed(colour_bundle, gallery, tmp_path)
    paint(tmp_path / "here" / "green.png", "green")
    warned = []
    summary, names = index_again(other, tmp_path, tmp_path / "here", warn=warned.append)
    assert (summary.absent, set(names)) == (2, {"green.png"})
    assert any(line.startswith("s3://bucket/photos: gallery: s3://bucket/photos cannot be listed") for line in warned)
    again, names = index_again(colour_bundle, tmp_path)
    assert (again.embedded, set(names)) == (1, {"blue.png", "green.png", "red.png"})
    warned.clear()
    summary = update(
        Library(tmp_path / "library"),
        [],
        IndexOptions(CONFIG, bundle=colour_bundle.path),
        forget=[Path("s3://bucket/photos")],
        warn=warned.append,
    )
    assert (summary.images, summary.folders) == (1, (str(tmp_path / "here"),))


def test_the_page_shows_the_images_of_a_store(colour_bundle, tmp_path, store, album_tools):
    with store() as gallery:
        embed(colour_bundle, gallery, tmp_path)
        whole = (tmp_path / "bucket" / "photos" / "trip" / "red.png").read_bytes()
        with album_tools.serving(tmp_path / "library" / "index", show_paths=True) as client:
            hit = client.get("/api/v1/search", params={"q": "red", "k": 1}).json()["hits"][0]
            assert hit["path"] == "s3://bucket/photos/trip/red.png"
            path = f"/api/v1/images/{hit['id']}"
            original = client.get(f"{path}/original")
            assert (original.content, original.headers["content-type"]) == (whole, "image/png")
            assert client.head(f"{path}/original").headers["content-length"] == str(len(whole))
            thumbnail = client.get(f"{path}/thumbnail")
            assert Image.open(io.BytesIO(thumbnail.content)).size == (30, 20)
            known = {"If-None-Match": thumbnail.headers["etag"]}
            assert client.get(f"{path}/thumbnail", headers=known).status_code == 304
        finder = Finder.open(tmp_path / "library", threads=1)
        assert finder.classify(hit["id"], ["red", "blue"])[0].label == "red"
        (tmp_path / "bucket" / "photos" / "trip" / "red.png").unlink()
        with album_tools.serving(tmp_path / "library" / "index") as client:
            assert client.get(f"{path}/original").status_code == 410
            assert client.get(f"{path}/thumbnail").json()["code"] == "gone"


# Bundles


def test_vectors_embedded_for_a_later_publication_are_kept(colour_bundle, write_colour_bundle, folder, tmp_path):
    embed(colour_bundle, folder, tmp_path)
    other = write_colour_bundle(tmp_path / "other", input_px=16)
    library = Library(tmp_path / "library")
    before = searched(tmp_path)
    options = IndexOptions(CONFIG, bundle=other.path, publish=False)
    assert update(library, [], options, warn=print).embedded == 30
    assert searched(tmp_path) == before
    shutil.copy(folder / "00.png", folder / "copy.png")
    assert index_again(colour_bundle, tmp_path)[0].published
    assert update(library, [], IndexOptions(CONFIG, bundle=other.path), warn=print).embedded == 0
    assert VectorIndex.open(library.index).manifest.bundle_sha256 == other.sha256
