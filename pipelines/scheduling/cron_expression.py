"""Cron expressions: five fields as Debian's cron and Kubernetes both read them, their next times, and systemd's form.

Programs that read cron expressions differ in details; what they would read differently is refused or rewritten to a form
that they read alike: names become numbers, Sunday is 0, steps become lists.
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

MissingTime = Literal["skipped", "moved"]
"""What becomes of a local time that clocks leave out: systemd and Kubernetes skip the run, cron starts it right after."""

_FIELDS = ("minute", "hour", "day of month", "month", "day of week")
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
_SYSTEMD_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_RANGES = {
    "minute": range(60),
    "hour": range(24),
    "day of month": range(1, 32),
    "month": range(1, 13),
    "day of week": range(7),
}
_LOOKED_AHEAD_DAYS = 366
_EXAMPLE = "write five fields 'minute hour day-of-month month day-of-week', e.g. '30 3 * * 1' for Mondays at 03:30"


@dataclass(frozen=True)
class CronExpression:
    """A schedule; `text` is its portable form. Weekdays are 0 (Sunday) to 6.

    either_day: a day fits when its date or its weekday does (cron's rule when both fields name days), not both.
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
        """Read an expression of five fields, or one of @hourly, @daily, @weekly, @monthly, @yearly. Raises ConfigError."""
        fields = _MACROS.get(text.strip().lower(), text).upper().split()
        if len(fields) != len(_FIELDS):
            raise ConfigError(f"cron expression '{text}' has {len(fields)} fields, not five; {_EXAMPLE}")
        for name, field in zip(_FIELDS, fields, strict=True):
            _require_plain(text, name, field)
        try:
            read = CronSim(" ".join(fields), datetime(2000, 1, 1))  # noqa: DTZ001 - only parsed
        except CronSimError as error:
            reason = f"{str(error).lower().removeprefix('bad ')} is out of range or never comes"
            raise ConfigError(f"cron expression '{text}': {reason}; {_EXAMPLE}") from error
        days, weekdays = frozenset(read.days), frozenset(int(day) % 7 for day in read.weekdays if isinstance(day, int))
        either = not {"*", "*/1"} & {fields[2], fields[4]}
        if either:
            _require_no_starred_step(text, fields)
            if len(days) == 31 or len(weekdays) == 7:  # one of two fields that are joined by "or" names every day
                days, weekdays, either = frozenset(range(1, 32)), frozenset(range(7)), False
        sets = (frozenset(read.minutes), frozenset(read.hours), days, frozenset(read.months), weekdays)
        written = " ".join(_compress(values, _RANGES[name]) for name, values in zip(_FIELDS, sets, strict=True))
        made = cls(written, *sets, either_day=either)
        if next(made._local_runs(datetime(2000, 1, 1)), None) is None:  # noqa: DTZ001 - a calendar without a zone
            raise ConfigError(f"cron expression '{text}' never comes: there is no such date")
        return made

    def next_runs(self, zone: ZoneInfo, after: datetime, *, count: int, missing: MissingTime) -> list[datetime]:
        """The next `count` times after an instant (aware), in the zone, as the program that `missing` tells would start."""
        if missing == "moved":
            runs = CronSim(self.text, after.astimezone(zone))
            return list(islice((each.astimezone(zone) for each in runs), count))
        found = (each.replace(tzinfo=zone) for each in self._local_runs(after.astimezone(zone).replace(tzinfo=None)))
        return list(islice((each for each in found if each > after and not _is_missing(each)), count))

    def on_calendar(self, zone: ZoneInfo) -> tuple[str, ...]:
        """OnCalendar= values of systemd for the same times; two when a day may fit by its date or by its weekday.

        There, weekday and date are joined by "and", several OnCalendar= lines by "or".
        """
        if self.either_day:
            return (
                self._calendar(zone, days=self.days, weekdays=frozenset(range(7))),
                self._calendar(zone, days=frozenset(range(1, 32)), weekdays=self.weekdays),
            )
        return (self._calendar(zone, days=self.days, weekdays=self.weekdays),)

    def clock_changes(self, zone: ZoneInfo, after: datetime) -> list[str]:
        """Warnings: runs of the next year whose local time the zone's clocks leave out or show twice, one of each kind."""
        if len(self.hours) == len(_RANGES["hour"]):  # an hour more or less does not matter to an hourly run
            return []
        warnings: dict[str, str] = {}
        for each in self._around_clock_changes(zone, after):
            local = each.replace(tzinfo=zone)
            if _is_missing(local):
                warnings.setdefault("missing", f"{each:%Y-%m-%d %H:%M} does not exist in {zone}: clocks go forward")
            elif local.utcoffset() != local.replace(fold=1).utcoffset():
                warnings.setdefault("twice", f"{each:%Y-%m-%d %H:%M} comes twice in {zone}: clocks go back")
        return list(warnings.values())

    def _calendar(self, zone: ZoneInfo, *, days: frozenset[int], weekdays: frozenset[int]) -> str:
        clock = ":".join(
            _compress(values, _RANGES[name], dots=True, width=2)
            for name, values in (("hour", self.hours), ("minute", self.minutes))
        )
        date = "-".join(
            _compress(values, _RANGES[name], dots=True, width=2)
            for name, values in (("month", self.months), ("day of month", days))
        )
        names = [_SYSTEMD_DAYS[day] for day in (1, 2, 3, 4, 5, 6, 0) if day in weekdays]
        prefix = "" if len(names) == len(_SYSTEMD_DAYS) else ",".join(names) + " "
        return f"{prefix}*-{date} {clock}:00 {zone.key}"

    def _local_runs(self, after: datetime) -> Iterator[datetime]:
        """Times on a calendar without a zone; ends when none comes within 50 years."""
        yield from CronSim(self.text, after)

    def _around_clock_changes(self, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
        midnight = after.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        for day in (midnight + timedelta(days=number) for number in range(_LOOKED_AHEAD_DAYS)):
            end = day + timedelta(days=1)
            if day.replace(tzinfo=zone).utcoffset() != end.replace(tzinfo=zone).utcoffset():
                runs = self._local_runs(day - timedelta(minutes=1))
                yield from (each for each in islice(runs, 24 * 60) if each < end)


def parse_zone(name: str) -> ZoneInfo:
    """The time zone of that IANA name. Raises ConfigError with those that look like it."""
    known = available_timezones() - {"localtime", "posixrules", "Factory"}
    if name in known:
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    near = near or sorted(each for each in known if name and name.lower() in each.lower())[:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "name one such as UTC or Europe/Zurich"
    raise ConfigError(f"unknown time zone '{name}': {hint}")


def _require_plain(text: str, name: str, field: str) -> None:
    """Each item is *, a number, a range, or a step over * or a range; nothing that only some programs know (L, W, #, ?)."""
    value = f"(?:[0-9]{{1,2}}|{_NAMES[name]})" if name in _NAMES else "[0-9]{1,2}"
    item = rf"{value}(?:-{value}(?:/[0-9]+)?)?"
    if not re.fullmatch(rf"\*(?:/[0-9]+)?|{item}(?:,{item})*", field):
        raise ConfigError(
            f"cron expression '{text}': {name} '{field}' is not understood by every program that runs it; use numbers, "
            "lists (1,15), ranges (1-5) and steps over them (*/15, 8-18/2)"
        )


def _require_no_starred_step(text: str, fields: list[str]) -> None:
    for field in (fields[2], fields[4]):
        if field.startswith("*"):
            raise ConfigError(
                f"cron expression '{text}' names days of the month and of the week, one as '{field}': cron wants both to "
                "fit, Kubernetes either; write the days as a list"
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
    return ",".join(
        between.join(f"{end:0{width}d}" for end in ((run[0], run[-1]) if len(run) > 1 else (run[0],))) for run in runs
    )


def _is_missing(local: datetime) -> bool:
    return local.replace(tzinfo=None) != local.astimezone(UTC).astimezone(local.tzinfo).replace(tzinfo=None)
