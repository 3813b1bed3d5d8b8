"""Moments: file times in the range that every format holds, and days of this machine's time zone; reads no files.

An image's time is what its EXIF says, in the camera's local time, else its file's modification time in the time zone of
this machine. Modification times are kept in UTC, since the zone may change; both are compared with the same local days.
"""

import os
from datetime import UTC, date, datetime, time

_FIRST_NS, _LAST_NS = -(1 << 63), (1 << 63) - 1  # what SQLite and Arrow hold: the years 1677 to 2262
FIRST_S, LAST_S = -62_135_596_800, 253_402_300_799  # what a datetime holds: the years 1 to 9999


def modified_ns(status: os.stat_result) -> int:
    """Modification time of a file, nanoseconds since 1970; the nearest one of 64 bits if it is out of their range."""
    return min(max(status.st_mtime_ns, _FIRST_NS), _LAST_NS)


def is_exact(modified_ns: int) -> bool:
    """Whether a stored modification time is exact: those at the ends of the range were clamped."""
    return _FIRST_NS < modified_ns < _LAST_NS


def modified_s(status: os.stat_result) -> int:
    """Modification time of a file, whole seconds since 1970, within the years 1 to 9999."""
    return clipped_s(status.st_mtime_ns // 1_000_000_000)


def clipped_s(seconds: int) -> int:
    """Seconds since 1970 within the years 1 to 9999."""
    return min(max(seconds, FIRST_S), LAST_S)


def utc(seconds: int) -> datetime:
    """Seconds since 1970 as a time in UTC without zone, as an index keeps it."""
    return datetime.fromtimestamp(clipped_s(seconds), UTC).replace(tzinfo=None)


def local(moment: datetime) -> datetime:
    """A time in UTC without zone as one of this machine's time zone, with its offset; UTC at the ends of the calendar."""
    aware = moment.replace(tzinfo=UTC)
    try:
        return aware.astimezone()
    except (OverflowError, ValueError, OSError):
        return aware


def start_of_day(day: date) -> datetime:
    """The instant at which a day of this machine's time zone begins, in UTC without zone."""
    midnight = datetime.combine(day, time.min)
    try:
        return utc(int(midnight.timestamp()))  # astimezone is an hour early where clocks skip midnight
    except (OverflowError, ValueError, OSError):
        return midnight
