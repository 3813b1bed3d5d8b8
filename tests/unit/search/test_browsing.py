"""Browsing: every image once, by time, also while the index changes."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_finder.components.errors import QueryError
from image_finder.components.search.browsing import Cursor, Timeline, page_of


def timeline(times, identities):
    stamps = pa.array(times, pa.timestamp("s"))
    missing = pa.nulls(len(times), pa.timestamp("s"))
    return Timeline.of_items(pa.table({"id": identities, "taken_at": missing, "modified_at": stamps}))


def pages(line, allowed, order, k):
    """Rows of all pages."""
    cursor, found = None, []
    while True:
        rows = page_of(line, allowed, cursor, order, k)
        found += rows[:k].tolist()
        if len(rows) <= k:
            return found
        cursor = Cursor.parse(str(line.cursor_at(int(rows[k - 1]))))


def test_the_capture_time_comes_before_the_time_of_the_file():
    items = pa.table(
        {
            "id": ["a", "b", "c", "d"],
            "taken_at": pa.array([None, 900, None, 100], pa.timestamp("s")),
            "modified_at": pa.array([500, 1, None, 950], pa.timestamp("s")),
        }
    )
    assert Timeline.of_items(items).rows.tolist() == [1, 0, 3, 2]


@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=40),
    st.integers(1, 12),
    st.sampled_from(["newest", "oldest"]),
    st.randoms(use_true_random=False),
)
def test_pages_hold_each_allowed_image_once_in_order(times, k, order, chance):
    identities = [f"{number:016x}" for number in range(len(times))]
    chance.shuffle(identities)
    allowed = np.array([chance.random() < 0.7 for _ in times])
    line = timeline(times, identities)
    expected = sorted(np.flatnonzero(allowed).tolist(), key=lambda row: (-times[row], identities[row]))
    assert pages(line, allowed, order, k) == (expected if order == "newest" else expected[::-1])


def test_a_page_continues_after_an_image_that_was_removed():
    line = timeline([50, 40, 40, 30], ["a1", "b1", "b3", "c1"])
    assert line.after(Cursor(40, "b2"), "newest").tolist() == [2, 3]
    assert line.after(Cursor(40, "b2"), "oldest").tolist() == [1, 0]
    assert line.after(Cursor(45, "00"), "newest").tolist() == [1, 2, 3]


@pytest.mark.parametrize("text", ["", "1", "x:ab", "1:", "9" * 20 + ":ab", "1:ab\n"])
def test_a_cursor_that_was_not_given_is_refused(text):
    with pytest.raises(QueryError, match="is not one of an earlier answer"):
        Cursor.parse(text)


def test_rows_of_a_search_are_sorted_by_time():
    line = timeline([50, 40, 60, 40], ["a1", "b3", "c1", "b1"])
    rows = np.array([3, 0, 1])
    assert rows[line.sorted(rows, "newest")].tolist() == [0, 3, 1]
    assert rows[line.sorted(rows, "oldest")].tolist() == [1, 3, 0]
