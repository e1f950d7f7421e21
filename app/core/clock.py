"""Wall-clock time as text for people and rows. Timeouts and leases use `time.monotonic` instead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def now_rfc3339() -> str:
    """The time as RFC 3339 in UTC, with milliseconds."""
    return format_rfc3339(datetime.now(UTC))


def days_from_now(days: float) -> str:
    """The time in so many days (before now if negative), as `now_rfc3339` gives it."""
    return format_rfc3339(datetime.now(UTC) + timedelta(days=days))


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


def seconds_since(moment: str) -> float:
    """Seconds from `moment` (RFC 3339) to now, never negative."""
    return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())


def seconds_between(start: str, end: str) -> float:
    """Seconds from `start` to `end` (RFC 3339), never negative."""
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())
