"""Browsing: images by time, page by page, without a query."""

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from image_finder.components.arrays import Rows
from image_finder.components.errors import QueryError
from image_finder.components.index.arrow import numbers

TimeOrder = Literal["newest", "oldest"]
_CURSOR = re.compile(r"(-?\d{1,15}):([0-9a-f]{1,64})")


class Cursor(NamedTuple):
    """The last image of a page: its time in seconds since 1970, and its id."""

    time_s: int
    identity: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` has written. Raises QueryError."""
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise QueryError(f"cursor {text[:80]!r} is not one of an earlier answer")
        return cls(int(found[1]), found[2])

    def __str__(self) -> str:
        return f"{self.time_s}:{self.identity}"


@dataclass(frozen=True)
class Timeline:
    """Rows of an index by time, newest first; rows of equal time by id. times_s, identities: in that order."""

    rows: Rows
    times_s: NDArray[np.int64]
    identities: NDArray[np.str_]

    @classmethod
    def of_items(cls, items: pa.Table) -> Self:
        """Capture times (camera's local time), else modification times."""
        moments = pc.coalesce(items["taken_at"], items["modified_at"]).cast(pa.timestamp("s")).cast(pa.int64())
        times_s = numbers(pc.fill_null(moments, 0), np.dtype(np.int64))
        identities = np.array(items["id"].to_pylist(), dtype=np.str_)
        rows = np.lexsort((identities, -times_s)).astype(np.int64)
        return cls(rows, times_s[rows], identities[rows])

    def sorted(self, rows: Rows, order: TimeOrder) -> NDArray[np.int64]:
        """Order of some rows by time, as positions in `rows`: (n,) int64."""
        positions = np.empty(len(self.rows), np.int64)
        positions[self.rows] = np.arange(len(self.rows))
        newest_first = np.argsort(positions[rows])
        return newest_first if order == "newest" else newest_first[::-1]

    def after(self, cursor: Cursor | None, order: TimeOrder) -> Rows:
        """Rows after those of the page that ended with cursor, in the given order; None: all.

        The image of the cursor may have been removed since.
        """
        if cursor is None:
            return self.rows if order == "newest" else self.rows[::-1]
        n_newer = int(np.searchsorted(-self.times_s, -cursor.time_s, side="left"))
        n_until = int(np.searchsorted(-self.times_s, -cursor.time_s, side="right"))
        of_time = self.identities[n_newer:n_until]
        if order == "newest":
            return self.rows[n_newer + int(np.searchsorted(of_time, cursor.identity, side="right")) :]
        return self.rows[: n_newer + int(np.searchsorted(of_time, cursor.identity, side="left"))][::-1]

    def cursor_at(self, row: int) -> Cursor:
        position = int(np.flatnonzero(self.rows == row)[0])
        return Cursor(int(self.times_s[position]), str(self.identities[position]))


def page_of(
    timeline: Timeline, allowed: NDArray[np.bool_] | None, cursor: Cursor | None, order: TimeOrder, k: int
) -> Rows:
    """The next k + 1 allowed rows at most; one more than shown, to know whether there is a next page."""
    rows = timeline.after(cursor, order)
    if allowed is None:
        return rows[: k + 1]
    return rows[allowed[rows]][: k + 1]
