"""Cron expressions against tables worked out by hand, and against systemd's own reading."""

import os
import shutil
import subprocess
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_finder.components.errors import ConfigError
from image_finder.pipelines.scheduling.cron_expression import CronExpression, parse_zone

ZURICH = ZoneInfo("Europe/Zurich")
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given_text", "portable", "on_calendar"),
    [
        ("30 3 * * 1", "30 3 * * 1", ["Mon *-*-* 03:30:00 UTC"]),
        ("@weekly", "0 0 * * 0", ["Sun *-*-* 00:00:00 UTC"]),
        ("0 0 * * 5-7", "0 0 * * 0,5-6", ["Fri,Sat,Sun *-*-* 00:00:00 UTC"]),
        ("0 4 * jan-mar mon,wed", "0 4 * 1-3 1,3", ["Mon,Wed *-01..03-* 04:00:00 UTC"]),
        ("*/20 8-18/5 1 */6 *", "0,20,40 8,13,18 1 1,7 *", ["*-01,07-01 08,13,18:00,20,40:00 UTC"]),
        # Both kinds of days: cron starts a run if either matches, which takes two lines for systemd.
        ("0 4 13 * 5", "0 4 13 * 5", ["*-*-13 04:00:00 UTC", "Fri *-*-* 04:00:00 UTC"]),
        ("0 4 1-31 * 1", "0 4 * * *", ["*-*-* 04:00:00 UTC"]),
        ("0 4 */1 * MON", "0 4 * * 1", ["Mon *-*-* 04:00:00 UTC"]),
    ],
)
def test_an_expression_is_rewritten_portably_and_for_systemd(given_text, portable, on_calendar):
    read = CronExpression.parse(given_text)
    assert read.text == portable
    assert list(read.on_calendar(ZoneInfo("UTC"))) == on_calendar
    assert CronExpression.parse(portable) == read


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "has 0 fields, not five"),
        ("0 3 * *", "has 4 fields, not five"),
        ("0 0 3 * * 1", "has 6 fields, not five"),
        ("@reboot", "has 1 field, not five"),
        ("60 3 * * *", "minute is out of range"),
        ("0 24 * * *", "hour is out of range"),
        ("0 3 0 * *", "day-of-month is out of range"),
        ("0 3 * 13 *", "month is out of range"),
        ("0 3 * * 8", "day-of-week is out of range"),
        ("0 18-8 * * *", "hour is out of range"),
        ("*/0 3 * * *", "minute is out of range"),
        ("0 3 31 2,4 *", "out of range or never comes"),
        ("0 3 L * *", "day of month 'L' is not portable"),
        ("0 3 * * 1#2", "day of week '1#2' is not portable"),
        ("5/15 * * * *", "minute '5/15' is not portable"),
        ("0 3 ? * 1", "day of month '\\?' is not portable"),
        ("0 3 1,* * 1", "day of month '1,\\*' is not portable"),
        ("-5 3 * * *", "minute '-5' is not portable"),
        ("0 3 * * \u0661", "day of week '\u0661' is not portable"),  # a digit to Python
        ("0 3 */2 * 1", "cron would require both to match, Kubernetes only one"),
        ("0 3 */2 * 0-6", "cron would require both to match, Kubernetes only one"),
        ("0 3 5 * */2", "cron would require both to match, Kubernetes only one"),
    ],
)
def test_a_wrong_or_ambiguous_expression_is_refused_in_one_line(text, fault):
    with pytest.raises(ConfigError, match=fault) as refused:
        CronExpression.parse(text)
    assert "\n" not in str(refused.value)


def test_the_next_runs_are_in_the_given_zone_not_in_the_machines():
    runs = CronExpression.parse("30 0 * * *").next_runs(ZURICH, NOW, count=2, missing="skipped")
    assert [each.isoformat() for each in runs] == ["2026-11-25T00:30:00+01:00", "2026-11-26T00:30:00+01:00"]


def test_a_day_matches_by_date_or_by_weekday():
    runs = CronExpression.parse("0 4 1,15 12 5").next_runs(ZURICH, NOW, count=5, missing="skipped")
    assert [f"{each:%a %d}" for each in runs] == ["Tue 01", "Fri 04", "Fri 11", "Tue 15", "Fri 18"]


def test_leap_days_are_found_years_ahead():
    (run,) = CronExpression.parse("0 4 29 2 *").next_runs(ZURICH, NOW, count=1, missing="skipped")
    assert run.date().isoformat() == "2028-02-29"


def test_a_nonexistent_local_time_is_skipped_by_systemd_and_moved_by_cron():
    nightly, eve = CronExpression.parse("30 2 * * *"), datetime(2027, 3, 27, 12, tzinfo=UTC)
    skipped = nightly.next_runs(ZURICH, eve, count=1, missing="skipped")
    moved = nightly.next_runs(ZURICH, eve, count=1, missing="moved")
    assert [each.isoformat() for each in skipped] == ["2027-03-29T02:30:00+02:00"]
    assert [each.isoformat() for each in moved] == ["2027-03-28T03:00:00+02:00"]


def test_runs_at_clock_changes_cause_warnings():
    warnings = CronExpression.parse("30 2 * * *").clock_changes(ZURICH, NOW)
    assert warnings == [
        "2027-03-28 02:30 does not exist in Europe/Zurich: clocks go forward",
        "2027-10-31 02:30 comes twice in Europe/Zurich: clocks go back",
    ]
    assert CronExpression.parse("30 2 * * *").clock_changes(ZoneInfo("UTC"), NOW) == []
    assert CronExpression.parse("30 4 * * *").clock_changes(ZURICH, NOW) == []
    assert CronExpression.parse("30 * * * *").clock_changes(ZURICH, NOW) == []  # an hour more or less does not matter


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Europe/Zürich", "did you mean Europe/Zurich"),
        ("zurich", "did you mean Europe/Zurich"),
        ("CEST", "unknown time zone 'CEST'"),
        ("", "use a name such as UTC"),
        ("../../etc/passwd", "unknown time zone"),
        ("localtime", "unknown time zone"),
    ],
)
def test_an_unknown_zone_is_refused_with_similar_names(name, hint):
    with pytest.raises(ConfigError, match=hint):
        parse_zone(name)


def fields():
    """Expressions of lists, ranges and steps, with both kinds of days."""

    def field(low, high, *, star):
        number = st.integers(low, high)
        a_range = st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}")
        stepped = st.tuples(a_range, st.integers(1, 9)).map(lambda pair: f"{pair[0]}/{pair[1]}")
        listed = st.lists(st.one_of(number.map(str), a_range, stepped), min_size=1, max_size=3).map(",".join)
        return st.one_of(st.just("*"), listed, *([st.integers(2, 9).map(lambda step: f"*/{step}")] if star else []))

    parts = (field(0, 59, star=True), field(0, 23, star=True), field(1, 28, star=False), field(1, 12, star=True))
    return st.tuples(*parts, field(0, 7, star=False)).map(" ".join)


def systemd_runs(line, after, count):
    """Next times according to systemd, in UTC."""
    printed = subprocess.run(
        ["systemd-analyze", "calendar", f"--iterations={count}", f"--base-time={after:%Y-%m-%d %H:%M:%S} UTC", line],
        env={**os.environ, "TZ": "UTC", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    times = [text.partition(": ")[2] for text in printed.splitlines() if "Next elapse:" in text or "Iter. #" in text]
    return [datetime.strptime(each, "%a %Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC) for each in times]


@pytest.mark.skipif(
    not shutil.which("systemd-analyze") and not os.environ.get("CI"), reason="systemd-analyze is not installed"
)
@settings(max_examples=60, deadline=None)
@given(text=fields(), zone=st.sampled_from(["UTC", "Europe/Zurich", "America/New_York", "Asia/Kolkata"]))
def test_systemd_computes_the_same_times_from_our_translation(text, zone):
    read, after = CronExpression.parse(text), datetime(2027, 1, 10, 9, 30, tzinfo=UTC)  # half a year without changes
    ours = read.next_runs(ZoneInfo(zone), after, count=8, missing="skipped")
    theirs = {each for line in read.on_calendar(ZoneInfo(zone)) for each in systemd_runs(line, after, 8)}
    assert sorted(theirs)[: len(ours)] == [each.astimezone(UTC) for each in ours]
