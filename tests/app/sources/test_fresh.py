from __future__ import annotations

import pytest

from app.errors import Overloaded
from app.library import Library
from app.sources.fresh import fresh
from app.sources.kind import Line
from app.store import origins
from app.store.origins import Known
from tests.app.makers import add, never
from tests.pictures import picture


def test_lines_that_are_here_unchanged_are_left_out(library: Library) -> None:
    here = add(library, picture("red")).image
    for origin in ("a", "b", "c"):
        library.database.write(lambda c, origin=origin: origins.keep(c, origin, Known("1", here.sha256)))  # type: ignore[misc]
    lines: list[Line] = [
        {"name": "same", "origin": "a", "tag": "1"},
        {"name": "changed", "origin": "b", "tag": "2"},
        {"name": "unknown", "origin": "z", "tag": "1"},
        {"name": "without a tag", "origin": "c", "tag": None},
        {"name": "bad", "error": {}},
    ]
    assert [line["name"] for line in fresh(library.database, "default", lines, never)] == [
        "changed",
        "unknown",
        "without a tag",
        "bad",
    ]
    assert len(list(fresh(library.database, "other", lines, never))) == 5
    with pytest.raises(Overloaded):
        list(fresh(library.database, "default", lines, lambda: True))
