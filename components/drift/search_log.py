"""Search logs: of `image-finder serve`'s JSON lines, how many text queries nothing matched well, by day.

Only whether something matched is read; what was asked is neither needed nor in the log unless --log-queries put it there.
A page that searches while a person types asks several times for one search, with halves of words too: the shares are for
comparing one period with another, and their limits are for one's own gallery to choose.
"""

import glob
import gzip
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from image_finder.components.drift.divisions import Values
from image_finder.components.errors import DataError

_MARK = '"matches_well"'  # other lines, most of a log, are not parsed


@dataclass(frozen=True)
class SearchLog:
    """Text queries by day, in order. days: by the log's own clock; unmatched, queries: (days,) each."""

    days: tuple[date, ...]
    unmatched: Values
    queries: Values
    broken_lines: int


def find_logs(patterns: Sequence[str]) -> list[Path]:
    """Files by name or pattern (* and ?), each once. Raises DataError for one that finds nothing."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        named = [Path(name) for name in sorted(glob.glob(pattern))] or [Path(pattern)]  # noqa: PTH207 - may be absolute
        if missing := [path for path in named if not path.is_file()]:
            raise DataError(f"no search log at {missing[0]}: name the files that 'image-finder serve' wrote on stderr")
        found.update(dict.fromkeys(named))
    return list(found)


def read_log(paths: Sequence[Path]) -> SearchLog:
    """Read logs, .gz ones too, line by line. Lines of others and cut ones are passed over. Raises DataError.

    A line counts when it tells a search that was answered and whether anything matched its texts well. O(lines).
    """
    unmatched: defaultdict[date, int] = defaultdict(int)
    queries: defaultdict[date, int] = defaultdict(int)
    broken = 0
    for path in paths:
        for line in _lines(path):
            if _MARK not in line:
                continue
            try:
                day, matched = _query(line)
            except (ValueError, KeyError, TypeError):
                broken += 1
                continue
            queries[day] += 1
            unmatched[day] += not matched
    days = sorted(queries)
    return SearchLog(
        days=tuple(days),
        unmatched=np.array([unmatched[day] for day in days], np.float64),
        queries=np.array([queries[day] for day in days], np.float64),
        broken_lines=broken,
    )


def _lines(path: Path) -> Iterator[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", errors="replace") as stream:
            yield from stream
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"search log {path} cannot be read: {reason}; check the file or leave it out") from error


def _query(line: str) -> tuple[date, bool]:
    """Day and whether something matched well. Raises ValueError, KeyError, TypeError for any other line."""
    facts = json.loads(line)
    if facts["message"] != "request" or facts["status"] != 200 or not isinstance(facts["matches_well"], bool):
        raise ValueError("not an answered search")
    return date.fromisoformat(facts["time"][:10]), facts["matches_well"]
