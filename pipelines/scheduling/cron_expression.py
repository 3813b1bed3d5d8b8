"""Cron expressions: five fields that Debian's cron and Kubernetes read alike, their next times, and systemd's form.

cron implementations differ in details. An expression that they would read differently is refused or rewritten to a
portable form: names become numbers, Sunday is 0, steps become lists.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

from image_finder.components.errors import ConfigError
from image_finder.components.text import counted

MissingTime = Literal["skipped", "moved"]
"""A local time that the clocks leave out: systemd and Kubernetes skip the run, cron starts it right afterwards."""

_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_NAMES = {
    "month": "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC",
    "day of week": "SUN|MON|TUE|WED|THU|FRI|SAT",
}
_SYSTEMD_DAYS = {1: "Mon", 2: "Tue", 3: "Wed", 4: "Thu", 5: "Fri", 6: "Sat", 0: "Sun"}
_RANGES = {
    "minute": range(60),
    "hour": range(24),
    "day of month": range(1, 32),
    "month": range(1, 13),
    "day of week": range(7),
}
_ALL_DAYS, _ALL_WEEKDAYS = frozenset(_RANGES["day of month"]), frozenset(_RANGES["day of week"])
_WARNED_DAYS = 366
_EXAMPLE = "write five fields 'minute hour day-of-month month day-of-week', e.g. '30 3 * * 1' for Mondays at 03:30"


@dataclass(frozen=True)
class CronExpression:
    """A schedule; `text` is its portable form. Weekdays are 0 (Sunday) to 6.

    either_day: a day matches if its date or its weekday does (cron's rule if both fields name days), not both.
    """

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read five fields, or @hourly, @daily, @weekly, @monthly or @yearly. Raises ConfigError."""
        fields = _MACROS.get(text.strip().lower(), text).upper().split()
        if len(fields) != len(_RANGES):
            raise ConfigError(f"cron expression '{text}' has {counted(len(fields), 'field')}, not five; {_EXAMPLE}")
        for name, field in zip(_RANGES, fields, strict=True):
            _require_portable(text, name, field)
        try:
            read = CronSim(" ".join(fields), datetime(2000, 1, 1))  # noqa: DTZ001 - only parsed
        except CronSimError as error:
            reason = f"{str(error).lower().removeprefix('bad ')} is out of range or never comes"
            raise ConfigError(f"cron expression '{text}': {reason}; {_EXAMPLE}") from error
        days, weekdays = frozenset(read.days), frozenset(int(day) % 7 for day in read.weekdays if isinstance(day, int))
        either = not {"*", "*/1"} & {fields[2], fields[4]}
        if either:
            if starred := next((field for field in (fields[2], fields[4]) if field.startswith("*")), ""):
                raise ConfigError(
                    f"cron expression '{text}' names days of the month and of the week, one as '{starred}': cron would "
                    "require both to match, Kubernetes only one; write the days as a list"
                )
            if days == _ALL_DAYS or weekdays == _ALL_WEEKDAYS:  # joined by "or", so every day matches
                days, weekdays, either = _ALL_DAYS, _ALL_WEEKDAYS, False
        sets = (frozenset(read.minutes), frozenset(read.hours), days, frozenset(read.months), weekdays)
        portable = " ".join(_compress(values, _RANGES[name]) for name, values in zip(_RANGES, sets, strict=True))
        if next(CronSim(portable, datetime(2000, 1, 1)), None) is None:  # noqa: DTZ001 - a calendar without a zone
            raise ConfigError(f"cron expression '{text}' never comes: there is no such date")
        return cls(portable, *sets, either_day=either)

    def next_runs(self, zone: ZoneInfo, after: datetime, *, count: int, missing: MissingTime) -> list[datetime]:
        """The next `count` times after an instant (aware), in the zone."""
        if missing == "moved":
            moved = CronSim(self.text, after.astimezone(zone))
            return list(islice((each.astimezone(zone) for each in moved), count))
        local = CronSim(self.text, after.astimezone(zone).replace(tzinfo=None))
        found = (each.replace(tzinfo=zone) for each in local)
        return list(islice((each for each in found if each > after and not _is_missing(each)), count))

    def on_calendar(self, zone: ZoneInfo) -> tuple[str, ...]:
        """OnCalendar= values of systemd for the same times.

        With either_day there are two: systemd joins weekday and date by "and", several OnCalendar= lines by "or".
        """
        if self.either_day:
            return self._calendar(zone, self.days, _ALL_WEEKDAYS), self._calendar(zone, _ALL_DAYS, self.weekdays)
        return (self._calendar(zone, self.days, self.weekdays),)

    def clock_changes(self, zone: ZoneInfo, after: datetime) -> list[str]:
        """Warnings of the next year's first run at a skipped and at a repeated local time."""
        if len(self.hours) == len(_RANGES["hour"]):  # one hour more or less does not matter to an hourly run
            return []
        warnings: dict[str, str] = {}
        for each in self._runs_on_change_days(zone, after):
            local = each.replace(tzinfo=zone)
            if _is_missing(local):
                warnings.setdefault("missing", f"{each:%Y-%m-%d %H:%M} does not exist in {zone}: clocks go forward")
            elif local.utcoffset() != local.replace(fold=1).utcoffset():
                warnings.setdefault("twice", f"{each:%Y-%m-%d %H:%M} comes twice in {zone}: clocks go back")
        return list(warnings.values())

    def _calendar(self, zone: ZoneInfo, days: frozenset[int], weekdays: frozenset[int]) -> str:
        hour, minute, month, day = (
            _compress(values, _RANGES[name], dots=True, width=2)
            for name, values in (
                ("hour", self.hours),
                ("minute", self.minutes),
                ("month", self.months),
                ("day of month", days),
            )
        )
        names = ",".join(name for number, name in _SYSTEMD_DAYS.items() if number in weekdays)
        prefix = "" if weekdays == _ALL_WEEKDAYS else f"{names} "
        return f"{prefix}*-{month}-{day} {hour}:{minute}:00 {zone.key}"

    def _runs_on_change_days(self, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
        midnight = after.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        for day in (midnight + timedelta(days=number) for number in range(_WARNED_DAYS)):
            end = day + timedelta(days=1)
            if day.replace(tzinfo=zone).utcoffset() != end.replace(tzinfo=zone).utcoffset():
                runs = CronSim(self.text, day - timedelta(minutes=1))
                yield from (each for each in islice(runs, 24 * 60) if each < end)


def parse_zone(name: str) -> ZoneInfo:
    """The time zone with that IANA name. Raises ConfigError with similar names."""
    known = available_timezones() - {"localtime", "posixrules", "Factory"}
    if name in known:
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    near = near or sorted(each for each in known if name and name.lower() in each.lower())[:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "use a name such as UTC or Europe/Zurich"
    raise ConfigError(f"unknown time zone '{name}': {hint}")


def _require_portable(text: str, name: str, field: str) -> None:
    """Allow *, numbers, ranges, and steps over * or a range; not L, W, # and ?."""
    value = f"(?:[0-9]{{1,2}}|{_NAMES[name]})" if name in _NAMES else "[0-9]{1,2}"
    item = rf"{value}(?:-{value}(?:/[0-9]+)?)?"
    if not re.fullmatch(rf"\*(?:/[0-9]+)?|{item}(?:,{item})*", field):
        raise ConfigError(
            f"cron expression '{text}': {name} '{field}' is not portable; use numbers, lists (1,15), ranges (1-5) and "
            "steps over them (*/15, 8-18/2)"
        )


def _compress(values: frozenset[int], full: range, *, dots: bool = False, width: int = 1) -> str:
    """Numbers as * or as a list of ranges: 1-5,7 for cron, 01..05,07 for systemd."""
    if values == frozenset(full):
        return "*"
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    between = ".." if dots else "-"
    return ",".join(between.join(f"{end:0{width}d}" for end in dict.fromkeys((run[0], run[-1]))) for run in runs)


def _is_missing(local: datetime) -> bool:
    return local.replace(tzinfo=None) != local.astimezone(UTC).astimezone(local.tzinfo).replace(tzinfo=None)
