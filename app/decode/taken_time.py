"""The time at which a picture was taken, as cameras, programs and Google Takeout write it.

A time is what the camera's clock showed (`2019-07-04T12:00:00.000`) and, where it is known, by how many minutes that
clock was ahead of UTC. The time of a file is never taken for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

MIN_YEAR, MAX_YEAR = 1000, 2999  # museums date pictures of the 17th century; 0000 and 9999 mean "unknown"
MAX_OFFSET = 14 * 60  # minutes
QUARTER = timedelta(minutes=15)  # every zone is whole quarters of an hour from UTC
SLACK = timedelta(seconds=2)  # by which two programs round the same moment differently
MAX_CHARS = 64
_DATE = r"\s*(\d{4})[-:/.](\d\d?)[-:/.](\d\d?)"
_CLOCK = r"[T ]\s*(\d\d?)[:.](\d\d)(?:[:.](\d\d)(?:[.,](\d*))?)?\s*(Z|UTC|[+-]\d\d:?\d\d)?"
_TIME = re.compile(rf"{_DATE}(?:{_CLOCK})?\s*", re.ASCII | re.IGNORECASE)
_OFFSET = re.compile(r"\s*([+-])(\d\d):?(\d\d)\s*", re.ASCII)
_IPTC_DATE = re.compile(r"\s*(\d{4})(\d\d)(\d\d)\s*", re.ASCII)
_IPTC_TIME = re.compile(r"\s*(\d\d)(\d\d)(\d\d)([+-]\d{4})?\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class TakenTime:
    """`wall` is the time of the camera's clock (`YYYY-MM-DDTHH:MM:SS.mmm`), `offset` by how many minutes it is ahead of
    UTC, None if unknown."""

    wall: str
    offset: int | None = None


def parse_taken_time(text: Any, offset: Any = None, fraction: Any = None) -> TakenTime | None:
    """Read `2019:07:04 12:00:00`, ISO 8601 or a date alone; `offset` (`+02:00`) and `fraction` (of a second, its digits
    behind the point) hold if the text has none."""
    match = _TIME.fullmatch(text[:MAX_CHARS]) if isinstance(text, str) else None
    if match is None:
        return None
    year, month, day, hour, minute, second, digits, zone = match.groups()
    if hour is None:
        return make_taken_time((year, month, day))
    digits = digits or (fraction.strip() if isinstance(fraction, str) else "")
    micros = digits[:3].ljust(3, "0") + "000" if digits.isdecimal() and digits.isascii() else 0
    return make_taken_time((year, month, day, hour, minute, second or 0, micros), parse_offset(zone or offset))


def parse_iptc_time(date: Any, time: Any) -> TakenTime | None:
    """Read the date (`20190704`) and the time (`120000+0200`) of IPTC; the time may be missing."""
    day = _IPTC_DATE.fullmatch(date) if isinstance(date, str) else None
    if day is None:
        return None
    clock = _IPTC_TIME.fullmatch(time) if isinstance(time, str) else None
    if clock is None:
        return make_taken_time(day.groups())
    return make_taken_time((*day.groups(), *clock.groups()[:3]), parse_offset(clock[4]))


def parse_mail_time(text: Any) -> TakenTime | None:
    """Read the time of a mail (RFC 1123), as the specification of PNG has it for `Creation Time`."""
    try:
        moment = parsedate_to_datetime(text[:MAX_CHARS])
    except (TypeError, ValueError, IndexError):
        return None
    offset = moment.utcoffset()
    return make_taken_time(moment.timetuple()[:6], None if offset is None else int(offset.total_seconds()) // 60)


def parse_epoch(seconds: Any) -> TakenTime | None:
    """The time of so many seconds since 1970, in UTC."""
    try:
        moment = datetime.fromtimestamp(int(seconds), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return make_taken_time(moment.timetuple()[:6], 0)


def parse_offset(text: Any) -> int | None:
    """Minutes east of UTC; None for what is no offset."""
    if not isinstance(text, str):
        return None
    if text.strip().upper() in ("Z", "UTC"):
        return 0
    if (match := _OFFSET.fullmatch(text)) is None:
        return None
    sign, hours, minutes = match.groups()
    offset = int(hours) * 60 + int(minutes)
    return (offset if sign == "+" else -offset) if offset <= MAX_OFFSET and int(minutes) < 60 else None


def make_taken_time(parts: Any, offset: int | None = None) -> TakenTime | None:
    """The time of a year, month, day and perhaps hour, minute, second; None if there is no such time."""
    try:
        moment = datetime(*map(int, parts))  # type: ignore[arg-type]
    except ValueError:
        return None
    return TakenTime(moment.isoformat(timespec="milliseconds"), offset) if MIN_YEAR <= moment.year <= MAX_YEAR else None


def join_taken_times(said: TakenTime | None, camera: TakenTime | None) -> TakenTime | None:
    """The time that a sidecar (or an earlier reading) says, with the clock of the camera where both mean one moment.

    A sidecar may be corrected by a person, so that its time wins. But Google Takeout tells times in UTC: a time of the
    camera that is whole quarters of an hour away is the same moment on another clock, and that tells its offset.
    """
    if said is None or camera is None:
        return said or camera
    if said.offset is None:
        is_same = abs(datetime.fromisoformat(said.wall) - datetime.fromisoformat(camera.wall)) <= SLACK
        return camera if is_same else said
    ahead = datetime.fromisoformat(camera.wall) - datetime.fromisoformat(said.wall) + timedelta(minutes=said.offset)
    offset = round(ahead / QUARTER) * 15 if camera.offset is None else camera.offset
    if abs(offset) > MAX_OFFSET or abs(ahead - timedelta(minutes=offset)) > SLACK:
        return said
    return TakenTime(camera.wall, offset)
