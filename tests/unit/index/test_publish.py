"""Published indices are bound to their bundle: going back to a model brings its index back."""

import json
import random

import pytest

from image_finder.components.errors import StorageError
from image_finder.components.index.format import MANIFEST, VECTORS, is_sealed
from image_finder.components.index.generations import POINTER, generations
from image_finder.components.index.index import VectorIndex
from image_finder.components.index.publish import current_bundle_sha256, default_bundle, restore
from image_finder.components.storage import unsealed


@pytest.fixture
def bundles(write_colour_bundle, tmp_path):
    """Three bundles that are not the same."""
    return [write_colour_bundle(tmp_path / f"bundle{px}", input_px=px) for px in (8, 10, 12)]


@pytest.fixture
def published(album_tools, bundles, paint, tmp_path):
    """publish(bundle, colour): index the images, one more than before, and publish that below tmp_path."""

    def publish(bundle, *colours):
        for colour in colours:
            paint(tmp_path / "images" / f"{colour}.png", colour)
        return album_tools.publish_album(tmp_path / "images", bundle, tmp_path)

    return publish


def place(tmp_path):
    return {"bundles": tmp_path / "bundles", "target": tmp_path / "index"}


def test_the_index_of_the_model_before_comes_back_with_its_model(bundles, published, tmp_path):
    old, new, _ = bundles
    assert current_bundle_sha256(tmp_path / "index") == ""
    published(old, "red")
    for colour in ("green", "blue", "white"):
        root = published(new, colour)
    assert current_bundle_sha256(root) == new.sha256
    assert len(generations(root)) == 3  # the current one, the one before it, and the newest of the model before
    index = restore(old, **place(tmp_path))
    assert index is not None
    assert (index.manifest.count, index.manifest.bundle_sha256) == (1, old.sha256)
    assert VectorIndex.open(root).manifest == index.manifest
    assert default_bundle(tmp_path / "bundles").name == old.sha256[:16]
    index = restore(new, **place(tmp_path))
    assert index is not None
    assert index.manifest.count == 4


def test_an_index_that_is_not_kept_or_not_whole_is_not_restored(bundles, published, tmp_path):
    first, second, third = bundles
    published(first, "red")
    published(second, "green")
    root = published(third, "blue")
    before = VectorIndex.open(root).manifest
    assert [VectorIndex.open(each).manifest.bundle_sha256 for each in generations(root)] == [
        third.sha256,
        second.sha256,
    ]
    assert restore(first, **place(tmp_path)) is None
    with (generations(root)[1] / VECTORS).open("ab") as stream:
        stream.write(b"x")
    assert restore(second, **place(tmp_path)) is None
    assert VectorIndex.open(root).manifest == before
    assert default_bundle(tmp_path / "bundles").name == third.sha256[:16]


def test_after_going_back_the_next_index_of_either_model_keeps_the_other(bundles, published, tmp_path):
    old, new, _ = bundles
    published(old, "red")
    published(new, "green")
    restore(old, **place(tmp_path))
    root = published(old, "blue")
    assert current_bundle_sha256(root) == old.sha256
    assert restore(new, **place(tmp_path)).manifest.count == 2
    published(new, "white")
    assert restore(old, **place(tmp_path)).manifest.count == 3


def test_a_damaged_current_index_does_not_keep_a_complete_one_from_being_published(bundles, published, tmp_path):
    root = published(bundles[0], "red")
    (generations(root)[0] / VECTORS).write_bytes(b"")
    with pytest.raises(StorageError):
        VectorIndex.open(root)
    published(bundles[0], "green")
    assert VectorIndex.open(root).manifest.count == 2


def test_an_index_published_without_a_checksum_gets_one_with_the_next_publication(bundles, published):
    root = published(bundles[0], "red")
    (generation,) = generations(root)
    manifest = VectorIndex.open(root).manifest
    assert is_sealed(generation)
    (generation / MANIFEST).write_text(json.dumps(unsealed((generation / MANIFEST).read_bytes())[0]))
    assert VectorIndex.open(root).manifest == manifest
    published(bundles[0])
    assert len(generations(root)) == 2
    assert is_sealed(generations(root)[0])
    published(bundles[0])
    assert len(generations(root)) == 2


def test_no_flipped_bit_of_the_pointer_leads_to_another_index(bundles, published):
    published(bundles[0], "red")
    root = published(bundles[0], "green")
    manifest, whole, chance = VectorIndex.open(root).manifest, (root / POINTER).read_bytes(), random.Random(7)
    refused = []
    for position in range(len(whole)):
        for bit in chance.sample(range(8), 4):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            (root / POINTER).write_bytes(damaged)
            try:
                assert VectorIndex.open(root, verify=False).manifest == manifest
            except StorageError as error:
                refused.append(str(error))
    assert len(refused) > len(whole)
    assert "\n" not in "".join(refused)
