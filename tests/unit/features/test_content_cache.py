"""Content cache: what was appended comes back, whatever killed the writer."""

import json
import threading

import numpy as np
import pytest

from image_finder.components.errors import StorageError
from image_finder.components.features.content_cache import ContentCache


def opened(folder, width=5, maker="m"):
    return ContentCache(folder, width=width, dtype="float32", maker=maker)


def entry(i):
    return np.full((1 + i % 3, 5), i, dtype=np.float32)


def fill(cache, numbers):
    with cache:
        cache.append([f"key-{i}" for i in numbers], [entry(i) for i in numbers])


def assert_sound(cache, n):
    assert len(cache) == n
    starts, counts = cache.spans([f"key-{i}" for i in range(n)])
    for i in range(n):
        np.testing.assert_array_equal(cache.rows[starts[i] : starts[i] + counts[i]], entry(i))
    assert len(cache.rows) == counts.sum()


def test_entries_come_back_in_this_process_and_in_the_next(tmp_path):
    cache = opened(tmp_path)
    fill(cache, range(3))
    fill(cache, range(3, 7))
    assert_sound(cache, 7)
    assert_sound(opened(tmp_path), 7)
    assert "key-6" in cache
    assert "key-7" not in cache


def test_a_reader_sees_what_another_appended_once_it_refreshes(tmp_path):
    reader, writer = opened(tmp_path), opened(tmp_path)
    fill(writer, range(4))
    assert len(reader) == 0
    reader.refresh()
    assert_sound(reader, 4)


@pytest.mark.parametrize(
    "damage",
    [
        lambda keys, _: keys.write_bytes(keys.read_bytes()[:-1]),  # the line's end is missing: "3" may have been "30"
        lambda keys, _: keys.write_bytes(keys.read_bytes()[:-4]),
        lambda keys, _: keys.write_bytes(keys.read_bytes() + b"key-9\t2"),
        lambda keys, _: keys.write_bytes(keys.read_bytes() + b"key-9\t2\n"),  # a key without its data
        lambda keys, _: keys.write_bytes(keys.read_bytes() + b"\0" * 30 + b"\n"),
        lambda keys, _: keys.write_bytes(keys.read_bytes() + "key-9\t²\n".encode()),
        lambda _, rows: rows.write_bytes(rows.read_bytes() + b"x" * 47),  # data without a key
        lambda _, rows: rows.write_bytes(rows.read_bytes()[:-3]),
    ],
)
def test_after_any_half_write_the_whole_entries_are_kept_and_new_ones_follow(tmp_path, damage):
    fill(opened(tmp_path), range(6))
    damage(tmp_path / "keys.tsv", tmp_path / "rows.bin")
    cache = opened(tmp_path)
    n = len(cache)
    assert n in (5, 6)
    assert_sound(cache, n)
    fill(cache, range(n, 9))
    assert_sound(cache, 9)
    assert_sound(opened(tmp_path), 9)


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_a_sound_cache(tmp_path, run_children):
    moments = [{"do": "append", "cache": str(tmp_path), "seconds": s / 1000, "kill": {}} for s in range(30, 400, 37)]
    run_children(moments)
    cache = opened(tmp_path)
    assert len(cache) > 40
    assert_sound(cache, len(cache))
    fill(cache, range(len(cache), len(cache) + 5))
    assert_sound(opened(tmp_path), len(cache))


def test_two_writers_take_turns(tmp_path):
    first, second = opened(tmp_path), opened(tmp_path)
    inside = threading.Event()

    def write():
        with second:
            inside.set()
            second.append(["key-1"], [entry(1)])

    with first:
        thread = threading.Thread(target=write)
        thread.start()
        assert not inside.wait(0.3), "the second writer waits for the lock"
        first.append(["key-0"], [entry(0)])
    thread.join(20)
    assert inside.is_set()
    assert_sound(second, 2)
    assert_sound(opened(tmp_path), 2)


def test_appending_needs_the_lock(tmp_path):
    with pytest.raises(StorageError, match="not locked for writing"):
        opened(tmp_path).append(["a"], [entry(0)])


def test_an_entry_of_another_width_is_refused_and_nothing_is_added(tmp_path):
    cache = opened(tmp_path)
    fill(cache, range(2))
    with cache, pytest.raises(StorageError, match=r"holds entries of shape \(rows, 5\), got \(2, 4\)"):
        cache.append(["a", "b"], [entry(0), np.zeros((2, 4), np.float32)])
    assert_sound(opened(tmp_path), 2)


def test_an_append_that_fails_midway_does_not_shift_the_next_one(tmp_path):
    cache = opened(tmp_path)
    fill(cache, range(2))
    with cache:
        (tmp_path / "keys.tsv").rename(tmp_path / "aside")
        (tmp_path / "keys.tsv").mkdir()  # data are written, then their keys cannot be
        with pytest.raises(StorageError, match="cannot write"):
            cache.append(["key-2"], [entry(2)])
        (tmp_path / "keys.tsv").rmdir()
        (tmp_path / "aside").rename(tmp_path / "keys.tsv")
        cache.append(["key-2"], [entry(2)])
    assert_sound(cache, 3)
    assert_sound(opened(tmp_path), 3)


def test_missing_keys_are_counted_and_the_first_is_named(tmp_path):
    cache = opened(tmp_path)
    fill(cache, range(2))
    with pytest.raises(StorageError, match=r"^2 of 3 entries are not in .*, first key-8; run again$"):
        cache.spans(["key-0", "key-8", "key-9"])


def test_a_cache_of_another_maker_or_width_is_refused(tmp_path):
    fill(opened(tmp_path), range(2))
    with pytest.raises(StorageError, match=r"width 5, expected 6; maker 'm', expected 'other'; remove the directory$"):
        opened(tmp_path, width=6, maker="other")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[1]", b""])
def test_a_damaged_layout_is_named(tmp_path, content):
    opened(tmp_path)
    (tmp_path / "layout.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"layout.json is damaged: [^\n]*; remove the directory"):
        opened(tmp_path)


def test_the_layout_is_written_once(tmp_path):
    opened(tmp_path)
    layout = {"format_version": 2, "width": 5, "dtype": "float32", "maker": "m"}
    assert json.loads((tmp_path / "layout.json").read_text()) == layout


def test_an_entry_whose_bytes_changed_is_found_and_computed_again(tmp_path):
    fill(opened(tmp_path), range(9))
    content = bytearray((tmp_path / "rows.bin").read_bytes())
    keys = [f"key-{i}" for i in range(9)]
    assert opened(tmp_path).damaged(keys) == []
    starts, _ = opened(tmp_path).spans(keys)
    content[starts[4] * 20 + 7] ^= 1
    (tmp_path / "rows.bin").write_bytes(content)
    cache = opened(tmp_path)
    assert cache.damaged(keys) == ["key-4"]
    assert cache.damaged(["key-3", "key-5"]) == []
    cache.forget(["key-4"])
    assert "key-4" not in cache
    fill(cache, [4])
    assert cache.damaged(keys) == []
    for again in (cache, opened(tmp_path)):
        assert again.damaged(keys) == []
        start, n = (each[0] for each in again.spans(["key-4"]))
        np.testing.assert_array_equal(again.rows[start : start + n], entry(4))


def test_what_was_forgotten_stays_forgotten_when_it_is_entered(tmp_path):
    cache = opened(tmp_path)
    fill(cache, range(3))
    cache.forget(["key-1"])
    with cache:
        assert "key-1" not in cache


def test_a_cache_of_the_first_version_is_read_appended_to_and_raised(tmp_path):
    fill(opened(tmp_path), range(4))
    keys = (tmp_path / "keys.tsv").read_text().splitlines()
    (tmp_path / "keys.tsv").write_text("".join(line.rpartition("\t")[0] + "\n" for line in keys))
    layout = (tmp_path / "layout.json").read_text()
    (tmp_path / "layout.json").write_text(layout.replace('"format_version": 2', '"format_version": 1'))
    cache = opened(tmp_path)
    assert_sound(cache, 4)
    assert (tmp_path / "layout.json").read_text() != layout
    fill(cache, range(4, 6))
    assert_sound(opened(tmp_path), 6)
    assert (tmp_path / "layout.json").read_text() == layout
    assert opened(tmp_path).damaged([f"key-{i}" for i in range(6)]) == []
