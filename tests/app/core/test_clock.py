from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from app.core.clock import follow_clock, now_rfc3339, seconds_between, seconds_since, unix_now


def test_now_is_rfc_3339_in_utc_with_milliseconds() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    told = now_rfc3339()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told)
    assert before <= datetime.fromisoformat(told) <= datetime.now(UTC)


def test_times_sort_as_text() -> None:
    assert now_rfc3339() >= "2026-01-01T00:00:00.000Z"


def test_seconds_between_two_moments() -> None:
    assert seconds_between("2026-01-01T00:00:00.500Z", "2026-01-01T00:01:02.750Z") == 62.25


def test_a_clock_that_was_set_back_gives_no_negative_times() -> None:
    assert seconds_between("2026-01-02T00:00:00.000Z", "2026-01-01T00:00:00.000Z") == 0.0
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert seconds_since(tomorrow) == 0.0


def test_seconds_since_counts_up_to_now() -> None:
    hour = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    assert 3600 <= seconds_since(hour) < 3660


def test_a_process_follows_the_clock_of_its_database() -> None:
    here = datetime.now(UTC).timestamp()
    try:
        follow_clock(here + 3600)
        assert 3590 < unix_now() - here < 3700
        assert seconds_since(now_rfc3339()) < 60
        follow_clock(datetime.now(UTC).timestamp() + 0.01)  # the way to the database is no difference
        assert abs(unix_now() - datetime.now(UTC).timestamp()) < 1
    finally:
        follow_clock(datetime.now(UTC).timestamp())
