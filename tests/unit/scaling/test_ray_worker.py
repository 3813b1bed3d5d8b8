"""What runs on Ray's nodes, called without Ray."""

import os
import shutil

import numpy as np
import pyarrow as pa
import pytest

from image_finder.components.configs import EmbeddingConfig
from image_finder.components.errors import BundleError, StorageError
from image_finder.components.index.vector_cache import vector_maker
from image_finder.components.scaling.ray_worker import FILES, NEW, ImageEmbedder, Job, hash_files
from image_finder.components.scaling.shards import Shards
from image_finder.components.storage import sha256_of_bytes, sha256_of_file

CONFIG = EmbeddingConfig(device="cpu", threads=1, batch_images=4)
COLOURS = {"red.png": (255, 0, 0), "green.png": (0, 255, 0), "blue.png": (0, 0, 255)}


@pytest.fixture
def images(tmp_path, paint):
    for name, colour in COLOURS.items():
        paint(tmp_path / "images" / name, colour)
    return tmp_path / "images"


@pytest.fixture
def job(colour_bundle, images, tmp_path):
    return Job(str(colour_bundle.path), str(images), str(tmp_path), vector_maker(colour_bundle), CONFIG)


@pytest.fixture
def shards(colour_bundle, tmp_path):
    return Shards(str(tmp_path), maker=vector_maker(colour_bundle), dim=3)


def new_files(images, *names):
    hashes = [sha256_of_file(images / name) for name in names]
    return pa.table({"row": range(len(names)), "path": [os.fsencode(n) for n in names], "sha256": hashes}, schema=NEW)


def rows_of(table):
    return [(row["sha256"], row["failure"]) for row in table.to_pylist()]


@pytest.mark.parametrize(("prefix", "why"), [("", "No such file or directory"), ("file://", "No such file")])
def test_files_are_hashed_or_have_the_reason_why_they_are_unreadable(images, prefix, why):
    (images / os.fsdecode(b"caf\xe9.png")).write_bytes(b"any bytes")
    (images / "folder.png").mkdir()
    names = [b"red.png", b"gone.png", b"folder.png"] + ([b"caf\xe9.png"] if not prefix else [])
    files = pa.table({"row": range(7, 7 + len(names)), "path": names}, schema=FILES)
    red, absent, folder, *rest = hash_files(files, images=f"{prefix}{images}").to_pylist()
    assert red == {
        "row": 7,
        "sha256": sha256_of_file(images / "red.png"),
        "failure": "",
    }
    assert (absent["row"], absent["sha256"], absent["failure"]) == (8, "", f"cannot be read: {why}")
    assert folder["failure"].startswith("cannot be read: ")
    assert [row["sha256"] for row in rest] == [sha256_of_bytes(b"any bytes")] * len(rest)


def test_a_call_writes_vectors_hashes_and_facts_as_a_shard(job, shards, images):
    files = new_files(images, "red.png", "green.png")
    done = ImageEmbedder(job)(files)
    keys = files["sha256"].to_pylist()
    assert rows_of(done) == [(key, "") for key in keys]
    found = shards.collect(keys[::-1])
    np.testing.assert_allclose(found.vectors, [[0, 1, 0], [1, 0, 0]], atol=1e-4)
    assert [(facts.width_px, facts.height_px) for facts in found.facts] == [(16, 12)] * 2
    assert found.hashes.tolist() == [0, 0]


def test_a_repeated_call_computes_nothing(job, shards, images):
    files = new_files(images, "red.png", "green.png")
    first = ImageEmbedder(job)(files)
    for name in ("red.png", "green.png"):
        (images / name).unlink()
    assert ImageEmbedder(job)(files) == first


def test_an_unreadable_image_is_reported_and_not_stored(job, shards, images):
    (images / "blue.png").write_bytes(b"no image")
    files = new_files(images, "red.png", "blue.png")
    (_, fine), (content, reason) = rows_of(ImageEmbedder(job)(files))
    assert (fine, content) == ("", "")
    assert "not a readable image" in reason
    assert shards.all_keys() == {files["sha256"][0].as_py()}
    assert rows_of(ImageEmbedder(job)(files))[1] == (content, reason)


def test_a_file_that_changed_after_hashing_is_stored_under_its_new_content(job, shards, images):
    files = new_files(images, "red.png", "green.png")
    embedder = ImageEmbedder(job)
    embedder(files.slice(0, 1))
    shutil.copy(images / "blue.png", images / "green.png")
    (_, blue) = rows_of(embedder(files))
    assert blue == (sha256_of_file(images / "blue.png"), "")
    np.testing.assert_allclose(shards.collect([blue[0]]).vectors, [[0, 0, 1]], atol=1e-4)


def test_an_existing_shard_stays_if_a_later_run_finds_other_content(job, shards, images):
    files = new_files(images, "red.png", "green.png")
    (images / "green.png").write_bytes(b"half written")
    ImageEmbedder(job)(files)
    shutil.copy(images / "blue.png", images / "green.png")
    ImageEmbedder(job)(files)
    assert shards.all_keys() == {sha256_of_file(images / "red.png"), sha256_of_file(images / "blue.png")}


def test_an_actor_refuses_a_bundle_that_differs_from_that_of_the_driver(job, write_colour_bundle, images, tmp_path):
    other = write_colour_bundle(tmp_path / "other", input_px=16)
    embedder = ImageEmbedder(Job(str(other.path), job.images, job.shards, job.maker, CONFIG))
    with pytest.raises(BundleError, match="is another one on this node"):
        embedder(new_files(images, "red.png"))


def test_a_shard_folder_that_cannot_be_written_gives_a_one_line_error(job, images, tmp_path):
    (tmp_path / "file").touch()
    embedder = ImageEmbedder(Job(job.bundle, job.images, str(tmp_path / "file"), job.maker, CONFIG))
    with pytest.raises(StorageError, match="cannot write .*Not a directory"):
        embedder(new_files(images, "red.png"))
