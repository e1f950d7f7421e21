"""Wall-clock time as text for people and rows. Timeouts use `time.monotonic` instead, leases the database's clock.

The processes of a cluster follow the clock of their database, so that an hour between two machines changes nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

IGNORED_OFFSET = timedelta(milliseconds=200)  # less than this may be the way to the database


_offset = timedelta()  # of the database's clock from that of this machine


def follow_clock(unix_seconds: float) -> None:
    """Let the clock of this process be that of which `unix_seconds` is the present time."""
    global _offset
    offset = datetime.fromtimestamp(unix_seconds, UTC) - datetime.now(UTC)
    _offset = offset if abs(offset) >= IGNORED_OFFSET else timedelta()


def utc_now() -> datetime:
    return datetime.now(UTC) + _offset


def unix_now() -> float:
    """Seconds since 1970."""
    return utc_now().timestamp()


def now_rfc3339() -> str:
    """The time as RFC 3339 in UTC, with milliseconds."""
    return format_rfc3339(utc_now())


def days_from_now(days: float) -> str:
    """The time in so many days (before now if negative), as `now_rfc3339` gives it."""
    return format_rfc3339(utc_now() + timedelta(days=days))


def format_rfc3339(moment: datetime) -> str:
    """A time in UTC as RFC 3339 with milliseconds; such texts sort as the times do."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_wall_time(wall: str, offset: int | None) -> str:
    """A wall time (`YYYY-MM-DDTHH:MM:SS.mmm`) as RFC 3339, without an offset from UTC (minutes) if none is known."""
    time = wall.removesuffix(".000")
    if offset is None:
        return time
    hours, minutes = divmod(abs(offset), 60)
    return f"{time}{'-' if offset < 0 else '+'}{hours:02}:{minutes:02}"


def format_time(seconds: float) -> str:
    """A time in a video for people: 0:07, 12:34, 1:02:03."""
    whole = int(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def seconds_since(moment: str) -> float:
    """Seconds from `moment` (RFC 3339) to now, never negative."""
    return max(0.0, (utc_now() - datetime.fromisoformat(moment)).total_seconds())


def seconds_between(start: str, end: str) -> float:
    """Seconds from `start` to `end` (RFC 3339), never negative."""
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())
