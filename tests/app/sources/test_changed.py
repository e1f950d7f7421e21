from __future__ import annotations

import pytest

from app.core.errors import Overloaded
from app.sources.base import SourceItem
from app.sources.changed import skip_unchanged
from app.storage.library import Library
from app.storage.tables import source_cache
from app.storage.tables.source_cache import CacheEntry
from tests.support.makers import add, never_stop
from tests.support.pictures import picture


def test_lines_that_are_here_unchanged_are_left_out(library: Library) -> None:
    here = add(library, picture("red")).image
    for origin in ("a", "b", "c"):
        library.database.write(lambda c, origin=origin: source_cache.store(c, origin, CacheEntry("1", here.sha256)))  # type: ignore[misc]
    lines: list[SourceItem] = [
        {"name": "same", "origin": "a", "tag": "1"},
        {"name": "changed", "origin": "b", "tag": "2"},
        {"name": "unknown", "origin": "z", "tag": "1"},
        {"name": "without a tag", "origin": "c", "tag": None},
        {"name": "bad", "error": {}},
    ]
    assert [line["name"] for line in skip_unchanged(library.database, "default", lines, never_stop)] == [
        "changed",
        "unknown",
        "without a tag",
        "bad",
    ]
    assert len(list(skip_unchanged(library.database, "other", lines, never_stop))) == 5
    with pytest.raises(Overloaded):
        list(skip_unchanged(library.database, "default", lines, lambda: True))
