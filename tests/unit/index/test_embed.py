import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC

import numpy as np
import pytest

from image_finder.components.configs import EmbeddingConfig, GalleryConfig
from image_finder.components.errors import DataError, QualityError, StorageError
from image_finder.components.index.embed import embed_gallery
from image_finder.components.index.gallery import Gallery, read_gallery
from image_finder.components.index.index import VectorIndex, item_id
from image_finder.components.index.vector_cache import vector_cache
from image_finder.components.storage import hash_directory, sha256_of_file
from tests.support.checkout import CHECKOUT

CONFIG = EmbeddingConfig(device="cpu", threads=1, batch_images=4)

# Embeds argv[2] with the bundle argv[1] into argv[3]; argv[5]: where it is to be hurt, argv[6]: how much it may take.
CHILD = """
import os, resource, signal, sys
from pathlib import Path
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import EmbeddingConfig, GalleryConfig
from image_finder.components.errors import FinderError
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.index.embed import embed_gallery
from image_finder.components.index.gallery import read_gallery
bundle, images, index, cache, hurt, much = sys.argv[1:]
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
    embed_gallery(Bundle.open(Path(bundle)), read_gallery(GalleryConfig(root=images)), Path(index),
        EmbeddingConfig(device="cpu", threads=1, batch_images=4), cache_dir=Path(cache), max_failed_share=0)
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


def embed(bundle, folder, tmp_path, *, config=CONFIG, max_failed_share=0.0, name="index"):
    gallery = folder if isinstance(folder, Gallery) else read_gallery(GalleryConfig(root=folder))
    return embed_gallery(
        bundle, gallery, tmp_path / name, config, cache_dir=tmp_path / "cache", max_failed_share=max_failed_share
    )


def table(index):
    return index.items.to_pylist()


def test_items_follow_the_gallery_and_each_vector_is_its_images(colour_bundle, tmp_path, paint):
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
    gallery = read_gallery(GalleryConfig(root=tmp_path, annotations="captions.json", images="images"))
    index = embed(colour_bundle, gallery, tmp_path)
    first, second = table(index)
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
    np.testing.assert_allclose(index.vectors, [[1, 0, 0], [0, 0, 1]], atol=1e-4)
    assert index.manifest.bundle_sha256 == colour_bundle.sha256
    assert index.manifest.bundle_uri == str(colour_bundle.path.resolve())
    assert index.manifest.gallery == "images"


def test_sideways_photographs_are_measured_as_displayed(colour_bundle, tmp_path):
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
    assert embed(colour_bundle, folder, tmp_path, config=config).manifest.self_check.n_images == 7


def test_one_image_is_a_gallery_and_none_is_not(colour_bundle, tmp_path, paint):
    paint(tmp_path / "images" / "a.png", "red")
    assert embed(colour_bundle, tmp_path / "images", tmp_path).manifest.count == 1
    with pytest.raises(DataError, match="gallery 'none' has no images"):
        embed(colour_bundle, Gallery("none", tmp_path, ()), tmp_path)


def test_broken_images_are_counted_named_and_left_out(colour_bundle, folder, tmp_path, caplog):
    (folder / "05.png").write_bytes(b"no image")
    (folder / "07.png").write_bytes((folder / "07.png").read_bytes()[:40])
    with caplog.at_level(logging.WARNING):
        index = embed(colour_bundle, folder, tmp_path, max_failed_share=2 / 30)
    assert index.manifest.count == 28
    assert set(index.manifest.failed) == {str(folder / "05.png"), str(folder / "07.png")}
    assert "not a readable image" in index.manifest.failed[str(folder / "05.png")]
    assert {item["name"] for item in table(index)}.isdisjoint({"05.png", "07.png"})
    assert "2 of 30 images of 'images' cannot be read (05.png:" in caplog.text


def test_too_many_broken_images_leave_the_old_index_as_it_was(colour_bundle, folder, tmp_path):
    embed(colour_bundle, folder, tmp_path)
    before = hash_directory(tmp_path / "index")
    for number in range(7):
        (folder / f"{number:02d}.png").write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"7 of 30 .*\(00\.png: .*04\.png: .*; and 2 more\): 23\.33%, allowed 20\.00%"
    ) as caught:
        embed(colour_bundle, folder, tmp_path, max_failed_share=0.2)
    assert "\n" not in str(caught.value)
    assert hash_directory(tmp_path / "index") == before


def test_a_gallery_of_broken_images_is_refused_whatever_the_limit(colour_bundle, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 of 1 .*100\.00%"):
        embed(colour_bundle, tmp_path / "images", tmp_path, max_failed_share=1)
    assert not (tmp_path / "index").exists()


def test_equal_content_is_embedded_once_and_shares_its_vector(colour_bundle, folder, tmp_path):
    for number in range(30):
        shutil.copy(folder / f"{number:02d}.png", folder / f"copy of {number:02d}.png")
    index = embed(colour_bundle, folder, tmp_path)
    rows = {item["name"]: row for row, item in enumerate(table(index))}
    for number in range(30):
        one, other = rows[f"{number:02d}.png"], rows[f"copy of {number:02d}.png"]
        assert index.vectors[one].tobytes() == index.vectors[other].tobytes()
    assert len(vector_cache(colour_bundle, tmp_path / "cache")) == 30
    assert index.manifest.self_check.found_themselves_first == 60


def test_a_second_run_computes_nothing_and_gives_the_same_index(colour_bundle, folder, tmp_path):
    embed(colour_bundle, folder, tmp_path)
    (cached,) = (tmp_path / "cache").glob("vectors-*/rows.bin")
    before = cached.stat().st_size, hash_directory(tmp_path / "index")
    embed(colour_bundle, folder, tmp_path)
    assert (cached.stat().st_size, hash_directory(tmp_path / "index")) == before


def test_another_preprocessing_never_meets_cached_vectors(colour_bundle, write_colour_bundle, folder, tmp_path):
    embed(colour_bundle, folder, tmp_path)
    embed(write_colour_bundle(tmp_path / "other", input_px=16), folder, tmp_path)
    assert len(list((tmp_path / "cache").glob("vectors-*"))) == 2


def test_an_edited_image_is_embedded_again(colour_bundle, folder, tmp_path, paint):
    before = np.array(embed(colour_bundle, folder, tmp_path).vectors)
    paint(folder / "03.png", (255, 0, 0))
    after = np.array(embed(colour_bundle, folder, tmp_path).vectors)
    assert np.flatnonzero((before != after).any(axis=1)).tolist() == [3]
    np.testing.assert_allclose(after[3], [1, 0, 0], atol=1e-4)


@pytest.mark.parametrize("kept_batches", [0, 3])
def test_a_killed_run_goes_on_to_the_index_of_an_uninterrupted_one(colour_bundle, folder, tmp_path, kept_batches):
    whole = embed(colour_bundle, folder, tmp_path / "whole")
    place = tmp_path / "killed"
    arguments = (colour_bundle.path, folder, place / "index", place / "cache")
    killed = child(*arguments, "kill", kept_batches)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (place / "index").exists()
    assert len(vector_cache(colour_bundle, place / "cache")) == 4 * kept_batches
    resumed = child(*arguments, "not", 0)
    assert resumed.returncode == 0, resumed.stderr
    index = VectorIndex.open(place / "index", verify=True)
    np.testing.assert_allclose(index.vectors, whole.vectors, atol=1e-6)
    assert table(index) == table(whole)
    assert index.manifest.self_check == whole.manifest.self_check


@pytest.mark.parametrize(("limit", "where"), [(100, "cache"), (700, "index")])
def test_a_full_disk_is_one_line_and_leaves_the_old_index(colour_bundle, folder, tmp_path, paint, limit, where):
    old = embed(colour_bundle, folder, tmp_path)
    before = hash_directory(tmp_path / "index")
    if where == "cache":
        shutil.rmtree(tmp_path / "cache")
    shutil.copy(folder / "00.png", folder / "zz.png")
    done = child(colour_bundle.path, folder, tmp_path / "index", tmp_path / "cache", "disk", limit)
    assert done.returncode == 1
    assert done.stderr.startswith(f"StorageError: cannot write {tmp_path / where}"), done.stderr
    assert done.stderr.count("\n") == 1
    assert hash_directory(tmp_path / "index") == before
    assert old.manifest.count == 30
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "images", "index"]


def test_damaged_cached_vectors_do_not_become_an_index(colour_bundle, folder, tmp_path):
    embed(colour_bundle, folder, tmp_path)
    shutil.rmtree(tmp_path / "index")
    (cached,) = (tmp_path / "cache").glob("vectors-*/rows.bin")
    rows = np.fromfile(cached, np.float32).reshape(-1, 7)
    rows[::-1].tofile(cached)
    with pytest.raises(QualityError, match="of 30 images do not find themselves first, first .*00"):
        embed(colour_bundle, folder, tmp_path)
    assert not (tmp_path / "index").exists()


def test_an_index_that_cannot_be_written_names_its_place(colour_bundle, folder, tmp_path):
    (tmp_path / "index").write_text("a file is in the way")
    with pytest.raises((StorageError, DataError), match=str(tmp_path / "index")):
        embed(colour_bundle, folder, tmp_path, name="index/below")


def test_real_photographs_find_themselves(colour_bundle, shared_data, tmp_path):
    index = embed(colour_bundle, shared_data / "coco" / "train2017", tmp_path)
    assert index.manifest.failed == {}
    assert index.manifest.self_check.found_themselves_first == index.manifest.count == 80
