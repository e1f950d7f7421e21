from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.storage.filters.parser import parse_time_bound


@pytest.mark.parametrize(
    ("written", "bound"),
    [
        ("2026-01-31", "2026-01-31T00:00:00.000Z"),
        ("2026-01-31 12:30", "2026-01-31T12:30:00.000Z"),
        ("2026-01-31t12:30:15z", "2026-01-31T12:30:15.000Z"),
        ("2026-01-31T12:30:15.5+02:00", "2026-01-31T10:30:15.500Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
        ("2026:01:31 12:30:15", "2026-01-31T12:30:15.000Z"),  # as cameras write it
        ("2026/01/31", "2026-01-31T00:00:00.000Z"),
        ("2026-01-31T12:30:15+0200", "2026-01-31T10:30:15.000Z"),
    ],
)
def test_a_time_is_brought_to_utc_and_milliseconds(written: str, bound: str) -> None:
    assert parse_time_bound("gte", written) == bound


@given(st.integers(0, 999_999_999), st.integers(-2, 2))
def test_a_finer_bound_divides_whole_milliseconds_as_it_was_written(nanoseconds: int, near: int) -> None:
    stored = max(0, min(999, nanoseconds // 1_000_000 + near))
    row = f"2026-01-31T12:00:00.{stored:03d}Z"
    written = f"2026-01-31T12:00:00.{nanoseconds:09d}Z"
    exact = stored * 1_000_000
    assert (row > parse_time_bound("gt", written)) is (exact > nanoseconds)
    assert (row >= parse_time_bound("gte", written)) is (exact >= nanoseconds)
    assert (row < parse_time_bound("lt", written)) is (exact < nanoseconds)
    assert (row <= parse_time_bound("lte", written)) is (exact <= nanoseconds)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "now",
        "2026",
        "2026-02-30",
        "2026-01-31T25:00",
        "2026-01-31T12:00:60Z",
        "2026-W01",
        "20260131",
        5,
        None,
        True,
        "2026-01-31T12:00.5Z",
        "9999-12-31T23:59:59.9999Z",
        "0001-01-01T00:00:00+01:00",
        "٢٠٢٦-01-31",
        "2026-01-31Z",
    ],
)
def test_what_is_no_time_is_refused(written: Any) -> None:
    with pytest.raises(ValueError, match="time"):
        parse_time_bound("gte", written)
