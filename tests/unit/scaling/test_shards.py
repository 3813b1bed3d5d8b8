import logging
from datetime import datetime

import numpy as np
import pytest

from image_finder.components.errors import StorageError
from image_finder.components.images.exif import ImageFacts
from image_finder.components.scaling.shards import ShardRows, Shards, shard_name

DIM = 3


def rows_of(*keys):
    """Rows whose numbers follow from their key, "a0" to "a9"."""
    numbers = [int(key[1:]) for key in keys]
    facts = [
        ImageFacts(
            width_px=100 + n,
            height_px=n,
            taken_at=datetime.fromisoformat(f"2020-01-0{1 + n}") if n % 2 else None,
            camera=f"camera {n}",
            latitude=n / 2 if n % 2 else None,
            longitude=n / 4 if n % 2 else None,
        )
        for n in numbers
    ]
    hashes = np.array([(1 << 63) + n for n in numbers], np.uint64)
    return ShardRows(list(keys), np.array([[n, 0.1, -n] for n in numbers], np.float32), hashes, facts)


def write(shards, *keys):
    name = shard_name(keys)
    shards.write(name, rows_of(*keys))
    return name


@pytest.fixture(params=["folder", "file", "s3"])
def shards(request, tmp_path, s3_server):
    (tmp_path / "shards-mmmmmmmmmmmmmmmm").mkdir()
    with s3_server(tmp_path.parent) as options:
        locations = {"folder": tmp_path, "file": f"file://{tmp_path}", "s3": f"s3://{tmp_path.name}?{options}"}
        yield Shards(str(locations[request.param]), maker="m" * 64, dim=DIM)


def test_rows_are_in_the_order_of_the_keys(shards):
    write(shards, "a3", "a1")
    write(shards, "a2", "a0")
    found = shards.collect(["a1", "a0", "a3"])
    expected = rows_of("a1", "a0", "a3")
    assert found.keys == expected.keys
    assert found.vectors.tobytes() == expected.vectors.tobytes()
    assert found.hashes.tolist() == expected.hashes.tolist()
    assert found.facts == expected.facts
    assert shards.all_keys() == {"a0", "a1", "a2", "a3"}


def test_missing_contents_are_counted(shards):
    write(shards, "a1")
    with pytest.raises(StorageError, match="2 of 3 vectors are not in .*, first of content a5; run again"):
        shards.collect(["a1", "a5", "a6"])
    assert shards.keys_of(shard_name(["a5"])) == []


def test_equal_work_writes_the_same_file(shards, tmp_path):
    write(shards, "a1", "a2")
    (path,) = tmp_path.glob("shards-*/*.parquet")
    before = path.read_bytes()
    write(shards, "a1", "a2")
    assert [path.read_bytes() for path in tmp_path.glob("shards-*/*.parquet")] == [before]


def test_shards_are_separate_for_each_maker(shards, tmp_path):
    write(shards, "a1")
    assert Shards(str(tmp_path), maker="n" * 64, dim=DIM).all_keys() == set()


@pytest.mark.parametrize("damage", ["cut", "vector"])
def test_a_damaged_shard_is_removed_and_its_contents_count_as_missing(shards, tmp_path, caplog, damage):
    name = write(shards, "a1", "a2")
    write(shards, "a3")
    path = next(tmp_path.glob("shards-*")) / name
    content = path.read_bytes()
    at = content.index(np.float32(0.1).tobytes())
    path.write_bytes(content[:-20] if damage == "cut" else content[:at] + b"\1" + content[at + 1 :])
    with caplog.at_level(logging.WARNING), pytest.raises(StorageError, match="2 of 3 vectors .* run again"):
        shards.collect(["a1", "a2", "a3"])
    assert f"{name} was damaged and is removed" in caplog.text
    assert shards.all_keys() == {"a3"}


def test_a_truncated_shard_counts_as_empty_and_is_written_again(shards, tmp_path, caplog):
    name = write(shards, "a1", "a2")
    path = next(tmp_path.glob("shards-*")) / name
    path.write_bytes(path.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        assert shards.keys_of(name) == []
    assert "is made again" in caplog.text
    write(shards, "a1", "a2")
    assert shards.keys_of(name) == ["a1", "a2"]


def test_an_unusable_shard_location_gives_a_one_line_error(tmp_path):
    with pytest.raises(StorageError, match="nosuch://bucket/shards-m+: no file system for the shards"):
        Shards("nosuch://bucket", maker="m" * 64, dim=DIM)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write .*file/shards"):
        write(Shards(str(tmp_path / "file"), maker="m" * 64, dim=DIM), "a1")
