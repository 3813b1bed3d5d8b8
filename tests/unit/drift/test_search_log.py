"""Search logs: lines of the server are read, other lines are skipped."""

import gzip
import io
import json
import logging
from datetime import date, timedelta

import numpy as np
import pytest

from image_finder.components.app.api.server_logs import configure_logging
from image_finder.components.configs import DriftConfig
from image_finder.components.drift.drift import report_drift
from image_finder.components.drift.search_log import find_logs, read_log
from image_finder.components.errors import DataError

TODAY = date(2026, 11, 24)


def line(day, matched, **changes):
    facts = {
        "time": f"{day} 09:30:00,123",
        "level": "INFO",
        "logger": "image_finder.components.app.api.server_logs",
        "message": "request",
        "request_id": "0123456789abcdef",
        "method": "GET",
        "route": "/api/v1/search",
        "status": 200,
        "ms": 12.5,
        "matches_well": matched,
    }
    return json.dumps({**facts, **changes})


def write_days(path, shares, *, queries=100):
    """A log whose newest day is TODAY: shares[i] of the queries of day i found nothing."""
    lines = [
        line(TODAY - timedelta(days=len(shares) - 1 - number_of_day), bool(number >= share * queries))
        for number_of_day, share in enumerate(shares)
        for number in range(queries)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def log_stream():
    """Captures the server's log; restores the loggers afterwards."""
    names = ("image_finder", "uvicorn.error", "asyncio", "py.warnings")
    before = [(logging.getLogger(name), vars(logging.getLogger(name)).copy()) for name in names]
    stream = io.StringIO()
    configure_logging(stream)
    yield stream
    logging.captureWarnings(False)
    for named, state in before:
        named.handlers, named.propagate = state["handlers"], state["propagate"]
        named.setLevel(state["level"])


def test_a_search_is_logged_with_whether_it_matched_and_never_with_its_words(album_tools, album, log_stream, tmp_path):
    with album_tools.serving(album / "index") as client:
        client.get("/api/v1/search?q=red")
        client.get("/api/v1/search?q=red&k=2&offset=2")  # the next page of the same search
        client.get("/api/v1/search?q=secretive&until=1990-01-01")
        client.post("/api/v1/search", json={"terms": [{"text": "blue"}]})
        client.get("/api/v1/search?q=")
        client.get("/health/live")
    logged = log_stream.getvalue()
    assert "secretive" not in logged
    path = tmp_path / "serve.log"
    path.write_text(logged, encoding="utf-8")
    log = read_log([path])
    assert (log.queries.tolist(), log.unmatched.tolist(), log.broken_lines) == ([3], [1], 0)


def test_other_lines_are_skipped_and_truncated_ones_counted(tmp_path):
    path = tmp_path / "serve.log"
    lines = [
        "indexing 12 of 40 images",
        line(TODAY, True),
        line(TODAY, False)[:-2],
        line(TODAY, None),
        line(TODAY, True, status=503),
        line(TODAY, False, time="yesterday"),
        line(TODAY, False),
        '["matches_well"]',
        line(TODAY, True)[:40],
    ]
    path.write_bytes("\n".join(lines).encode() + b'\n\xff\xfe "matches_well"\n')
    log = read_log([path])
    assert (log.days, log.queries.tolist(), log.unmatched.tolist()) == ((TODAY,), [2], [1])
    assert log.broken_lines == 6


def test_rotated_logs_are_found_by_pattern_each_once_and_read_compressed(tmp_path):
    write_days(tmp_path / "serve.log", [0.5])
    (tmp_path / "serve.log.1.gz").write_bytes(gzip.compress((line(TODAY - timedelta(days=3), True) + "\n").encode()))
    files = find_logs([str(tmp_path / "serve.log*"), str(tmp_path / "serve.log")])
    assert [path.name for path in files] == ["serve.log", "serve.log.1.gz"]
    log = read_log(files)
    assert log.days == (TODAY - timedelta(days=3), TODAY)
    assert (log.queries.tolist(), log.unmatched.tolist()) == ([1, 100], [0, 50])


def test_a_missing_or_damaged_log_is_a_one_line_error(tmp_path):
    with pytest.raises(DataError, match=r"no search log at .*nowhere.log"):
        find_logs([str(tmp_path / "nowhere.log")])
    (tmp_path / "cut.log.gz").write_bytes(gzip.compress(b"x" * 1000)[:20])
    with pytest.raises(DataError, match=r"cut.log.gz cannot be read"):
        read_log([tmp_path / "cut.log.gz"])


def rows_of(path, **values):
    report = report_drift(None, read_log([path]), DriftConfig.parse(values))
    return {row.name: row for row in report.rows}, report


def test_a_rise_of_unmatched_queries_drifts(tmp_path):
    """Two weeks at about 20 %, then one at about 45 %: below the limit of 50 %, but 25 points up."""
    rng = np.random.default_rng(0)
    shares = [*rng.uniform(0.15, 0.25, 14), *rng.uniform(0.4, 0.5, 7)]
    rows, report = rows_of(write_days(tmp_path / "serve.log", shares))
    assert report.drifted == ("rise of unmatched queries",)
    assert rows["unmatched queries"].measured == pytest.approx(np.mean(shares[14:]), abs=0.01)
    assert rows["rise of unmatched queries"].measured == pytest.approx(
        np.mean(shares[14:]) - np.mean(shares[:14]), abs=0.01
    )
    assert report.reference is None


def test_days_that_differ_among_themselves_are_no_drift(tmp_path):
    rng = np.random.default_rng(1)
    _, report = rows_of(write_days(tmp_path / "serve.log", rng.uniform(0, 0.6, 21)))
    assert report.drifted == ()


def test_one_earlier_day_is_too_little_to_distinguish_a_rise_from_chance(tmp_path):
    rows, report = rows_of(write_days(tmp_path / "serve.log", [0.1, 0.45, 0.45, 0.45]), recent_days=3)
    assert rows["rise of unmatched queries"].measured == pytest.approx(0.35)
    assert rows["rise of unmatched queries"].p_value > 0.1
    assert report.drifted == ()


@pytest.mark.parametrize(("share", "drifted"), [(0.5, False), (0.58, False), (0.62, True)])
def test_a_share_drifts_only_clearly_above_its_limit(tmp_path, share, drifted):
    """At 0.01 / 9 and 300 queries chance reaches 0.5 + 3.06 x 0.029 = 0.588."""
    rows, _ = rows_of(write_days(tmp_path / "serve.log", [share, share, share]))
    assert rows["unmatched queries"].drifted == drifted
    assert rows["unmatched queries"].threshold == pytest.approx(0.588, abs=0.001)


def test_too_few_queries_are_not_judged(tmp_path):
    rows, report = rows_of(write_days(tmp_path / "serve.log", [1.0], queries=99))
    assert report.drifted == ()
    assert "99 text queries" in rows["unmatched queries"].detail
    (tmp_path / "empty.log").touch()
    rows, _ = rows_of(tmp_path / "empty.log")
    assert rows["unmatched queries"].detail == "the log contains no answered text query"
