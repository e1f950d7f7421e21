"""Times as people and programs write them, as the bounds of a comparison in whole milliseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(:\d\d)?(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)?)?", re.ASCII)
MILLISECOND = timedelta(milliseconds=1)


def bound_of(comparison: str, value: Any) -> str:
    """The time `value` (RFC 3339, or a date alone; UTC where no zone is said) as stored times are written.

    Those are whole milliseconds. A finer bound is rounded so that `gt`, `gte`, `lt` and `lte` mean the same
    afterwards. Raises ValueError.
    """
    found = MOMENT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("a time is written 2026-01-31 or 2026-01-31T12:00:00Z")
    day, minute, second, fraction, zone = found.groups()
    digits = (fraction or "").ljust(3, "0")
    if fraction and not second:
        raise ValueError("a time is written 2026-01-31 or 2026-01-31T12:00:00Z")
    try:
        moment = datetime.fromisoformat(f"{day}T{minute or '00:00'}{second or ':00'}{(zone or 'Z').upper()}")
        moment = moment.astimezone(UTC) + int(digits[:3]) * MILLISECOND
        if digits[3:].strip("0") and comparison in ("gte", "lt"):
            moment += MILLISECOND
    except (ValueError, OverflowError):
        raise ValueError(f"there is no time {value[:40]!r}") from None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
