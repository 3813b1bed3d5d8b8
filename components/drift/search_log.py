"""Search logs: counts by day the text queries without a good match in the JSON lines of `image-finder serve`.

Only the outcome is read; the queries themselves are logged only with --log-queries. The page searches while a person
types and sends several queries per search, incomplete words included. So shares serve to compare periods, and their
limits depend on the library.
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

from image_finder.components.drift.permutation import Values
from image_finder.components.errors import DataError

_MARK = '"matches_well"'  # lines without it, most of a log, are not parsed


@dataclass(frozen=True)
class SearchLog:
    """Text queries by day, ascending.

    days: by the clock of the server; unmatched, queries: (days,) each.
    """

    days: tuple[date, ...]
    unmatched: Values
    queries: Values
    broken_lines: int


def find_logs(patterns: Sequence[str]) -> list[Path]:
    """Files by name or pattern (* and ?), each once. Raises DataError for a pattern without a match."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        named = [Path(name) for name in sorted(glob.glob(pattern))] or [Path(pattern)]  # noqa: PTH207 - patterns can be absolute
        if missing := [path for path in named if not path.is_file()]:
            raise DataError(f"no search log at {missing[0]}: name files with the stderr output of 'image-finder serve'")
        found.update(dict.fromkeys(named))
    return list(found)


def read_log(paths: Sequence[Path]) -> SearchLog:
    """Read logs, also .gz: searches that state whether a hit matched well, and broken lines. Raises DataError."""
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
        raise DataError(f"search log {path} cannot be read: {reason}; check the file or omit it") from error


def _query(line: str) -> tuple[date, bool]:
    """Day, and whether a hit matched well. Raises ValueError, KeyError, TypeError for other lines."""
    facts = json.loads(line)
    if facts["message"] != "request" or facts["status"] != 200 or not isinstance(facts["matches_well"], bool):
        raise ValueError("not an answered search")
    return date.fromisoformat(facts["time"][:10]), facts["matches_well"]
