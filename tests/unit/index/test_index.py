import json
import pickle
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_finder.components.errors import BundleError, IndexMismatchError, QueryError, StorageError
from image_finder.components.index import exact
from image_finder.components.index.format import (
    FORMAT_VERSION,
    ITEM_SCHEMA,
    ITEMS,
    MANIFEST,
    VECTORS,
    IndexManifest,
    is_sealed,
    read_manifest,
    write_index,
)
from image_finder.components.index.index import VectorIndex
from image_finder.components.storage import sealed, unsealed


def manifest_of(count, dim, **values):
    return IndexManifest(
        format_version=FORMAT_VERSION,
        kind="exact",
        count=count,
        embedding_dim=dim,
        bundle_sha256="a" * 64,
        bundle_uri="/bundle",
        gallery="test",
        roots=("/p",),
        failed={},
        self_check=None,
        files_sha256={},
    ).model_copy(update=values)


def items_of(count):
    rows = [
        {
            "id": f"id{n}",
            "root": 0,
            "path": f"{n}.jpg".encode(),
            "folder": "p",
            "name": f"{n}.jpg",
            "sha256": f"{n % 3}",
            "dhash": 1 << 63,
            "bytes": 1,
            "width_px": 1,
            "height_px": 1,
            "captions": [f"caption {n}"],
            "camera": "",
        }
        for n in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=ITEM_SCHEMA)


def in_memory(vectors):
    return VectorIndex(None, manifest_of(*vectors.shape), vectors, items_of(len(vectors)))


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def written(tmp_path):
    vectors = unit(np.random.default_rng(1).standard_normal((20, 4)))
    (tmp_path / "index").mkdir()
    write_index(tmp_path / "index", vectors, items_of(20), manifest_of(20, 4))
    return tmp_path / "index"


def expected(vectors, query, k):
    """Hand-made ranking: exact cosines in float64, rounded to float32, ties to the lower row."""
    scores = (vectors.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
    return sorted(range(len(vectors)), key=lambda row: (-scores[row], row))[:k]


@settings(deadline=None)
@given(
    data=st.data(),
    count=st.integers(1, 40),
    dim=st.integers(1, 9),
    k=st.integers(1, 50),
    pass_rows=st.integers(1, 50),
)
def test_search_is_exact_for_any_part_size_and_ties_go_to_the_lower_row(data, count, dim, k, pass_rows):
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 20)))
    pool = unit(rng.standard_normal((data.draw(st.integers(1, count)), dim)) + 1e-3)
    vectors = pool[rng.integers(0, len(pool), count)]  # equal rows on purpose
    queries = unit(rng.standard_normal((3, dim)) + 1e-3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "_SIFTED_ROWS", pass_rows)
        patch.setattr(exact, "_PRODUCTS_A_CALL", 5 * pass_rows)
        near = in_memory(vectors).search(queries, k)
    assert near.rows.shape == near.scores.shape == (3, min(k, count))
    for row, query in enumerate(queries):
        assert near.rows[row].tolist() == expected(vectors, query, k)
        np.testing.assert_allclose(near.scores[row], vectors[near.rows[row]] @ query, atol=1e-6)
        assert (np.diff(near.scores[row]) <= 0).all()


def test_equal_images_keep_their_order_at_the_size_where_blas_sums_differently():
    rng = np.random.default_rng(0)
    vectors = np.repeat(unit(rng.standard_normal((37, 512))), 11, axis=0)
    near = in_memory(vectors).search(vectors[::11], 11)
    assert near.rows.tolist() == [list(range(11 * n, 11 * n + 11)) for n in range(37)]


def test_a_written_index_is_read_with_its_items(written):
    index = VectorIndex.open(written, verify=True)
    near = index.search(np.asarray(index.vectors[[7]]), 1)
    item = index.item(int(near.rows[0, 0]))
    assert (item["id"], item["captions"], item["dhash"]) == ("id7", ["caption 7"], 1 << 63)


def test_an_image_is_found_by_its_id_by_its_content_and_in_its_folder(written):
    index = VectorIndex.open(written)
    assert index.row_of_id("id7") == 7
    assert index.rows_of_content("1").tolist() == [1, 4, 7, 10, 13, 16, 19]
    assert index.rows_of_content("9").tolist() == []
    assert str(index.file_of(7)) == "/p/7.jpg"
    with pytest.raises(QueryError, match="no image has the id 'id70'"):
        index.row_of_id("id70")


@settings(deadline=None)
@given(data=st.data(), count=st.integers(1, 40), k=st.integers(1, 50), pass_rows=st.integers(1, 50))
def test_only_allowed_rows_are_found_and_up_to_k_of_them(data, count, k, pass_rows):
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 20)))
    vectors, queries = unit(rng.standard_normal((count, 4))), unit(rng.standard_normal((3, 4)))
    masks = [rng.random(count) < share for share in (0.1, 0.6)] + [None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "_SIFTED_ROWS", pass_rows)
        patch.setattr(exact, "_PRODUCTS_A_CALL", 5 * pass_rows)
        near = in_memory(vectors).search(queries, k, allowed=masks)
    for mask, query, rows, scores in zip(masks, queries, near.rows, near.scores, strict=True):
        order = [row for row in expected(vectors, query, count) if mask is None or mask[row]][:k]
        assert rows[rows >= 0].tolist() == order
        assert (rows[len(order) :] == -1).all()
        assert np.isneginf(scores[len(order) :]).all()


def test_an_index_refuses_another_bundle_and_names_both(written):
    index = VectorIndex.open(written)
    index.require_bundle("a" * 64)
    with pytest.raises(IndexMismatchError, match="made with bundle aaaaaaaaaaaa, the given bundle is bbbbbbbbbbbb"):
        index.require_bundle("b" * 64)


@pytest.mark.parametrize("vectors", [[[2.0, 0.0]], [[0.0, 0.0]], [[np.nan, 1.0]]])
def test_rows_that_are_not_unit_vectors_are_not_written(tmp_path, vectors):
    with pytest.raises(BundleError, match="a norm differs from 1 by"):
        write_index(tmp_path, np.array(vectors, np.float32), items_of(1), manifest_of(1, 2))
    assert list(tmp_path.iterdir()) == []


def refusal(path, *, verify=True):
    with pytest.raises(StorageError) as caught:
        VectorIndex.open(path, verify=verify)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", [VECTORS, ITEMS])
def test_a_truncated_missing_or_foreign_file_is_refused(written, name):
    whole = (written / name).read_bytes()
    for damaged in (whole[:-10], whole[:30], b"", b"garbage", pickle.dumps({"a": 1})):
        (written / name).write_bytes(damaged)
        assert f"index {written} is corrupted" in refusal(written)
        assert f"index {written} is corrupted" in refusal(written, verify=False)
    (written / name).unlink()
    assert f"{name} is missing" in refusal(written)


@pytest.mark.parametrize("name", [VECTORS, ITEMS])
def test_a_flipped_byte_is_detected(written, name):
    content = bytearray((written / name).read_bytes())
    content[len(content) // 2] ^= 1
    (written / name).write_bytes(content)
    assert f"is corrupted: {name} has sha256" in refusal(written)


def test_pickled_arrays_are_not_unpickled(written):
    np.save(written / VECTORS, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "is corrupted" in refusal(written, verify=False)


def test_arrays_of_another_shape_or_type_are_refused(written):
    np.save(written / VECTORS, np.zeros((19, 4), np.float32))
    assert "vectors (19, 4) and 20 items, expected (20, 4)" in refusal(written, verify=False)
    np.save(written / VECTORS, np.zeros((20, 4), np.float64))
    assert "float64" in refusal(written, verify=False)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"format_version": 2}'])
def test_a_malformed_manifest_is_a_one_line_error(written, content):
    (written / MANIFEST).write_bytes(content)
    assert "is not an index manifest" in refusal(written)


def test_every_flipped_bit_of_the_manifest_is_detected(written):
    whole = (written / MANIFEST).read_bytes()
    manifest = read_manifest(written)
    assert is_sealed(written)
    chance, refused = random.Random(5), []
    for position in range(len(whole)):
        for bit in chance.sample(range(8), 3):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            (written / MANIFEST).write_bytes(damaged)
            try:
                assert read_manifest(written) == manifest
            except StorageError as error:
                refused.append(str(error))
    assert len(refused) > len(whole)
    assert "\n" not in "".join(refused)
    for length in chance.sample(range(len(whole) - 2), 50):
        (written / MANIFEST).write_bytes(whole[:length])
        assert "is not an index manifest, or damaged" in refusal(written)
    for before, after in ((b'"/p"', b'"/q"'), (b'"count": 20', b'"count": 21'), (b'"count"', b'"counts"')):
        (written / MANIFEST).write_bytes(whole.replace(before, after))
        assert "or damaged: its values have sha256 " in refusal(written)


def test_an_index_without_a_checksum_still_opens(written):
    values, _ = unsealed((written / MANIFEST).read_bytes())
    manifest = read_manifest(written)
    (written / MANIFEST).write_text(json.dumps(values))
    assert not is_sealed(written)
    assert VectorIndex.open(written).manifest == manifest


def test_another_format_version_is_refused_with_both_versions(written):
    content = json.loads((written / MANIFEST).read_text())
    (written / MANIFEST).write_text(sealed(json.dumps({**content, "format_version": 7})))
    assert "has format 7, this version reads 2" in refusal(written)


def test_the_error_for_a_folder_without_an_index_says_how_to_make_one(tmp_path):
    assert "Run: image-finder index FOLDER" in refusal(tmp_path)
