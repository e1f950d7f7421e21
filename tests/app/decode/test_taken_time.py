from __future__ import annotations

from typing import Any

import pytest

from app.decode.taken_time import (
    TakenTime,
    join_taken_times,
    parse_epoch,
    parse_iptc_time,
    parse_mail_time,
    parse_offset,
    parse_taken_time,
)


@pytest.mark.parametrize(
    ("text", "wall", "offset"),
    [
        ("2019:07:04 12:00:00", "2019-07-04T12:00:00.000", None),
        ("2019:07:04 12:00:00.5", "2019-07-04T12:00:00.500", None),
        ("2019-07-04T12:00:00.123456Z", "2019-07-04T12:00:00.123", 0),
        ("2019-07-04T12:00+0530", "2019-07-04T12:00:00.000", 330),
        ("2019-07-04 12:00:00 -03:00", "2019-07-04T12:00:00.000", -180),
        ("2019/7/4 9:05", "2019-07-04T09:05:00.000", None),
        (" 1650-01-01 ", "1650-01-01T00:00:00.000", None),
        ("2016:12:31 23:59:60", None, None),
        ("0000:00:00 00:00:00", None, None),
        ("    :  :     :  :  ", None, None),
        ("0001:01:01 00:00:00", None, None),
        ("9999:12:31 23:59:59", None, None),
        ("2019:13:04 12:00:00", None, None),
        ("2019:02:30 12:00:00", None, None),
        ("2019", None, None),
        ("²019:07:04 12:00:00", None, None),
        ("2019:07:04 12:00:00" + "." * 1000, None, None),
        (20190704, None, None),
        (None, None, None),
    ],
)
def test_times_are_read_as_cameras_and_programs_write_them(text: Any, wall: str | None, offset: int | None) -> None:
    assert parse_taken_time(text) == (None if wall is None else TakenTime(wall, offset))


def test_the_offset_and_the_fraction_of_other_entries_hold_where_the_text_has_none() -> None:
    assert parse_taken_time("2019:07:04 12:00:00", "+02:00", "07") == TakenTime("2019-07-04T12:00:00.070", 120)
    assert parse_taken_time("2019-07-04T12:00:00.5Z", "+02:00", "07") == TakenTime("2019-07-04T12:00:00.500", 0)
    assert parse_taken_time("2019:07:04 12:00:00", "abc", "x") == TakenTime("2019-07-04T12:00:00.000")
    assert [parse_offset(text) for text in ("+14:00", "-1400", "+15:00", "+01:60", "", 5)] == [840, -840, *[None] * 4]


def test_iptc_mail_and_epoch_times_are_read() -> None:
    assert parse_iptc_time("20190704", "120000+0200") == TakenTime("2019-07-04T12:00:00.000", 120)
    assert parse_iptc_time("20190704", "noon") == TakenTime("2019-07-04T00:00:00.000")
    assert parse_iptc_time("00000000", "000000") is None
    assert parse_iptc_time("yesterday", None) is None
    assert parse_mail_time("Thu, 04 Jul 2019 12:00:00 +0200") == TakenTime("2019-07-04T12:00:00.000", 120)
    assert parse_mail_time("Thu, 04 Jul 2019 12:00:00 -0000") == TakenTime("2019-07-04T12:00:00.000")
    assert [parse_mail_time(text) for text in ("noon", None, 5)] == [None, None, None]
    assert parse_epoch("1258375918") == TakenTime("2009-11-16T12:51:58.000", 0)
    assert [parse_epoch(one) for one in (None, "x", 1 << 70, float("inf"), -(1 << 40))] == [None] * 5


@pytest.mark.parametrize(
    ("said", "camera", "joined"),
    [
        (("2019-07-04T10:00:00.000", 0), ("2019-07-04T12:00:01.000", None), ("2019-07-04T12:00:01.000", 120)),
        (("2019-07-04T10:00:00.000", 0), ("2019-07-04T12:00:00.000", 120), ("2019-07-04T12:00:00.000", 120)),
        (("2019-07-04T12:00:00.000", 120), ("2019-07-04T12:00:00.000", None), ("2019-07-04T12:00:00.000", 120)),
        (("2019-07-04T10:00:00.000", 0), ("2019-07-04T15:45:00.000", None), ("2019-07-04T15:45:00.000", 345)),
        (("2020-01-01T10:00:00.000", 0), ("2019-07-04T12:00:00.000", None), ("2020-01-01T10:00:00.000", 0)),
        (("2019-07-04T10:07:00.000", 0), ("2019-07-04T12:00:00.000", None), ("2019-07-04T10:07:00.000", 0)),
        (("2019-07-04T10:00:00.000", 0), ("2019-07-04T12:00:00.000", 60), ("2019-07-04T10:00:00.000", 0)),
        (("2019-07-04T12:00:00.000", None), ("2019-07-04T12:00:00.040", 120), ("2019-07-04T12:00:00.040", 120)),
        (("2019-07-04T12:30:00.000", None), ("2019-07-04T12:00:00.000", 120), ("2019-07-04T12:30:00.000", None)),
    ],
)
def test_a_sidecar_wins_on_the_clock_of_the_camera(
    said: tuple[str, int | None], camera: tuple[str, int | None], joined: tuple[str, int | None]
) -> None:
    assert join_taken_times(TakenTime(*said), TakenTime(*camera)) == TakenTime(*joined)
    assert join_taken_times(TakenTime(*joined), TakenTime(*camera)) == TakenTime(*joined)  # when it is read again
    assert join_taken_times(None, TakenTime(*camera)) == TakenTime(*camera)
    assert join_taken_times(TakenTime(*said), None) == TakenTime(*said)
