"""JSON without what parsers settle in silence: a name that is there twice, NaN."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from app.core.errors import SightlineError, Validation

MAX_FIELD_MARKS = 20_000  # brackets, commas and colons of JSON in an address or in a field of a form


def load_json(text: str | bytes | bytearray, what: str = "the body", error: type[SightlineError] = Validation) -> Any:
    """The value of a JSON text, in UTF-8. Raises `error` for what is not JSON, Validation for NaN and for a name that
    an object has twice."""
    try:
        if not isinstance(text, str):
            text = text.decode("utf-8-sig", "surrogatepass")
        elif len(text) > MAX_FIELD_MARKS and sum(map(text.count, "[]{},:")) > MAX_FIELD_MARKS:
            raise error(f"{what} may have {MAX_FIELD_MARKS} brackets, commas and colons")
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise error(f"{what} is nested too deeply") from None
    except ValueError as fault:
        where = f": {fault.msg} at character {fault.pos + 1}" if isinstance(fault, json.JSONDecodeError) else ""
        raise error(f"{what} is not JSON{where}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        name = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise Validation(f"{name[:60]!r} is there twice in one JSON object")
    return found


def _refuse_constant(constant: str) -> Any:
    raise Validation(f"{constant} is not JSON")
