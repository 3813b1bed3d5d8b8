"""Days of --since and --until: EXIF times are the camera's, file times are converted to this machine's time zone."""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from PIL import Image

from image_finder.components.index.format import ITEM_SCHEMA
from image_finder.components.moments import local, start_of_day
from image_finder.components.records.search import Facets
from image_finder.components.search.filters import allowed_rows, facets
from image_finder.components.search.query import Filters
from tests.support.checkout import CHECKOUT

pytestmark = pytest.mark.posix


@pytest.fixture
def zone(monkeypatch):
    """zone(name): makes it the time zone of this process until the test ends."""

    def change(name):
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield change
    monkeypatch.undo()
    time.tzset()


def items(*times):
    """Items of (EXIF time or None, modification time in UTC), both as text."""
    parsed = [[datetime.fromisoformat(each) if each else None for each in pair] for pair in times]
    table = ITEM_SCHEMA.empty_table().to_pydict()
    columns: dict[str, list[datetime | None]] = {name: [None] * len(times) for name in table}
    columns |= {"taken_at": [pair[0] for pair in parsed], "modified_at": [pair[1] for pair in parsed]}
    return pa.table(columns, schema=ITEM_SCHEMA)


def rows_on(table, since=None, until=None):
    passed = allowed_rows(table, Filters(since=since, until=until))
    return [row for row, is_in in enumerate(passed) if is_in]


@pytest.mark.parametrize(
    ("name", "days"),
    [
        ("UTC", {"2024-06-30": [1], "2024-07-01": [0, 2]}),
        ("Asia/Tokyo", {"2024-06-30": [], "2024-07-01": [0, 1, 2]}),
        ("America/Los_Angeles", {"2024-06-30": [1, 2], "2024-07-01": [0]}),
    ],
)
def test_file_times_belong_to_the_day_of_this_machine_and_exif_times_to_that_of_the_camera(zone, name, days):
    zone(name)
    table = items(
        ("2024-07-01T00:30:00", "2030-01-01T00:00:00"), ("", "2024-06-30T15:30:00"), ("", "2024-07-01T06:59:59")
    )
    for day, expected in days.items():
        assert rows_on(table, since=day, until=day) == expected
    assert rows_on(table, since="2024-06-30", until="2024-07-01") == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "day", "first_utc", "last_utc"),
    [
        ("Europe/Berlin", "2024-03-31", "2024-03-30T23:00:00", "2024-03-31T21:59:59"),  # 23 hours
        ("Europe/Berlin", "2024-10-27", "2024-10-26T22:00:00", "2024-10-27T22:59:59"),  # 25 hours
        ("America/Havana", "2024-11-03", "2024-11-03T04:00:00", "2024-11-04T04:59:59"),  # 00:00 to 01:00 comes twice
        ("Asia/Beirut", "2024-03-31", "2024-03-30T22:00:00", "2024-03-31T20:59:59"),  # begins at 01:00
    ],
)
def test_a_day_on_which_clocks_change_holds_all_its_hours_and_no_other(zone, name, day, first_utc, last_utc):
    zone(name)
    before, after = (
        datetime.fromtimestamp(datetime.fromisoformat(each).replace(tzinfo=UTC).timestamp() + step, UTC).isoformat()[
            :19
        ]
        for each, step in ((first_utc, -1), (last_utc, 1))
    )
    table = items(*(("", each) for each in (before, first_utc, last_utc, after)))
    assert rows_on(table, since=day, until=day) == [1, 2]


def test_first_and_last_day_follow_the_same_rule(zone):
    table = items(
        ("2024-07-01T00:30:00", "2030-01-01T00:00:00"), ("", "2024-07-01T15:30:00"), ("", "2024-07-01T06:59:59")
    )
    for name, first, last in [("Asia/Tokyo", 1, 2), ("America/Los_Angeles", 30, 1), ("UTC", 1, 1)]:
        zone(name)
        found = facets(table)
        assert (found.first_day.day, found.last_day.day) == (first, last)
        assert rows_on(table, since=found.first_day, until=found.last_day) == [0, 1, 2]
    assert facets(items()) == Facets(folders=(), cameras=(), first_day=None, last_day=None, with_gps=0, images=0)


@pytest.mark.parametrize("name", ["Asia/Tokyo", "America/Los_Angeles"])
def test_the_first_and_the_last_day_of_the_calendar_can_be_searched(zone, name):
    zone(name)
    table = items(("", "0001-01-01T00:00:00"), ("", "9999-12-31T23:59:59"), ("", "2024-01-01T00:00:00"))
    assert rows_on(table, since=date.min, until=date.max) == [0, 1, 2]
    assert rows_on(table, until="2000-01-01") == [0]
    assert rows_on(table, since="3000-01-01") == [1]
    assert facets(table).images == 3
    for moment in (datetime.min, datetime.max):  # noqa: DTZ901
        assert abs(local(moment).utcoffset().total_seconds()) <= 12 * 3600
    assert start_of_day(date.min).year == 1


def test_search_and_the_api_answer_by_the_time_zone_of_the_machine(tmp_path, colour_bundle, paint):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2024:07:01 00:30:00"
    Image.new("RGB", (16, 12), "red").save(paint(tmp_path / "images" / "camera.jpg", "red"), exif=exif)
    paint(tmp_path / "images" / "file.png", "red")
    for path in (tmp_path / "images").iterdir():
        os.utime(path, (1_719_761_400, 1_719_761_400))  # 2024-06-30 15:30 UTC
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "IMAGE_FINDER_HOME": str(tmp_path / "home")}

    def run(*arguments, zone="UTC"):
        command = [sys.executable, "-m", "image_finder", *map(str, arguments)]
        done = subprocess.run(
            command,
            cwd=CHECKOUT,
            env={**environment, "TZ": zone},
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return json.loads(done.stdout)

    run("index", tmp_path / "images", "--bundle", colour_bundle.path, "--json", zone="America/Los_Angeles")
    for zone, names, modified_at in [
        ("Asia/Tokyo", {"camera.jpg", "file.png"}, "2024-07-01T00:30:00+09:00"),
        ("America/Los_Angeles", {"camera.jpg"}, "2024-06-30T08:30:00-07:00"),
    ]:
        found = run("search", "red", "--since", "2024-07-01", "--duplicates", "show", "--json", zone=zone)["hits"]
        assert {hit["name"] for hit in found} == names
        assert {hit["modified_at"] for hit in found} == {modified_at}
