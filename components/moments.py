"""Times: file times in the range that every format holds, and days of the local time zone; reads no files.

The time of an image is its EXIF time, in the camera's local time, else the modification time of its file in the local
time zone. Modification times are stored in UTC, since the zone may change; filters compare both with local days.
"""

import os
from datetime import UTC, date, datetime, time, timedelta

_FIRST_NS, _LAST_NS = -(1 << 63), (1 << 63) - 1  # what SQLite and Arrow hold: the years 1677 to 2262
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - in UTC, without zone, as stored
FIRST_S, LAST_S = -62_135_596_800, 253_402_300_799  # what a datetime holds: the years 1 to 9999


def modified_ns(status: os.stat_result) -> int:
    """Modification time of a file in ns since 1970, clamped to 64 bits."""
    return min(max(status.st_mtime_ns, _FIRST_NS), _LAST_NS)


def is_exact(modified_ns: int) -> bool:
    """Whether a stored modification time is exact, not clamped."""
    return _FIRST_NS < modified_ns < _LAST_NS


def modified_s(status: os.stat_result) -> int:
    """Modification time of a file in whole seconds since 1970, clamped to the years 1 to 9999."""
    return clipped_s(status.st_mtime_ns // 1_000_000_000)


def clipped_s(seconds: int) -> int:
    """Seconds since 1970, clamped to the years 1 to 9999."""
    return min(max(seconds, FIRST_S), LAST_S)


def utc(seconds: int) -> datetime:
    """Seconds since 1970 as a UTC time without zone, the form that an index stores."""
    return _EPOCH + timedelta(seconds=clipped_s(seconds))  # fromtimestamp of Windows begins in 1970


def local(moment: datetime) -> datetime:
    """A UTC time without zone in the local time zone; in UTC at the ends of the calendar."""
    aware = moment.replace(tzinfo=UTC)
    try:
        return aware.astimezone()
    except (OverflowError, ValueError, OSError):
        return aware


def start_of_day(day: date) -> datetime:
    """The UTC time, without zone, at which a local day begins."""
    midnight = datetime.combine(day, time.min)
    try:
        return utc(int(midnight.timestamp()))  # astimezone is an hour early where clocks skip midnight
    except (OverflowError, ValueError, OSError):
        return midnight
