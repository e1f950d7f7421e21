from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import NotFound
from app.core.types import Image, Text
from app.search import facets
from app.search.facets import FacetCounter
from app.storage.address import open_database
from app.storage.database import Database
from app.storage.filters.parser import parse_filter
from app.storage.filters.values import MAX_CHARS, parse_field, rank_value
from app.storage.tables import collections, images, texts
from index.idset import IdSet
from tests.support.makers import insert, new

FIELDS = [parse_field(name, "images", "facets") for name in ("tags", "format", "year", "metadata.n")]
VALUES = [1, 1.0, True, "1", "", None, [1, 1, "a"], {"a": 1}, 2**70, "x" * (MAX_CHARS + 1)]
steps = st.tuples(
    st.sampled_from(["add", "add", "change", "delete", "text", "ask", "ask", "move", "ready"]),
    st.integers(0, 9),
    st.sampled_from([(), ("red",), ("red", "blue")]),
    st.sampled_from(VALUES),
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def count_slowly(rows: list[Any]) -> list[Counter[Any]]:
    """The counts by reading every row; the entries of a list count once each."""
    counts: list[Counter[Any]] = [Counter() for _ in FIELDS]
    for row in rows:
        entry = row.metadata.get("n")
        found = entry if isinstance(entry, list) else [entry]
        numbers = {
            rank_value(value)
            for value in found
            if isinstance(value, str | int | float) and not (isinstance(value, str) and len(value) > MAX_CHARS)
        }
        year = [rank_value(int(row.created_at[:4]))]
        of_images = (
            ([rank_value(tag) for tag in row.tags], [rank_value(row.format)]) if isinstance(row, Image) else ([], [])
        )
        for counter, values in zip(counts, (*of_images, year, numbers), strict=True):
            counter.update(values)
    return counts


def apply_step(database: Database, step: Any) -> None:
    action, n, tags, value = step
    id = f"id-{n}"
    image = database.read(lambda c: images.get(c, "default", id))
    if action == "text":
        database.write(lambda c: texts.put(c, "default", id, "words", {"n": value}))
    elif action == "add" and image is None:
        insert(database, n, id, tags=tags, metadata={"n": value})
    elif image is None:
        return
    elif action == "change":
        database.write(lambda c: images.update(c, image.key, None, tags, {"n": value}))
    elif action == "delete":
        database.write(lambda c: images.delete(c, image.key))
    elif action == "ready":
        database.write(lambda c: c.execute("UPDATE images SET status = 'ready' WHERE key = ?", (image.key,)))
    elif action == "move":
        database.write(lambda c: c.execute("UPDATE images SET collection = 'other' WHERE key = ?", (image.key,)))


@settings(max_examples=80, deadline=None)
@given(steps=st.lists(steps, min_size=3, max_size=25))
def test_counts_are_those_of_the_rows_as_they_are(folder: Path, steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        database = open_database(Path(scratch) / "sightline.db")
        database.write(
            lambda c: c.execute(
                "INSERT INTO collections (name, description, created_at, label) VALUES ('other', '', '', 'other')"
            )
        )
        counter = FacetCounter(database)
        red = parse_filter({"key": "tags", "match": {"value": "red"}}, "images")
        for step in [*steps, ("ask", 0, (), None)]:
            apply_step(database, step)
            if step[0] != "ask":
                continue
            rows = database.read(lambda c: images.list_page(c, "default", 1000, None))
            ready = [row for row in rows if row.status == "ready"]
            reds = [row for row in rows if "red" in row.tags]
            labels = [row for row in database.read(texts.list_all) if isinstance(row, Text)]
            for kept, filter, is_search in ((rows, None, False), (ready, None, True), (reds, red, False)):
                found = counter.count("default", "images", FIELDS, 1000, filter, is_search=is_search)
                counts = [Counter({rank_value(value): n for value, n in one}) for one in found.values()]
                assert counts == count_slowly(kept)
            of_texts = counter.count("default", "texts", FIELDS[2:], 1000)
            assert [Counter({rank_value(value): n for value, n in one}) for one in of_texts.values()] == count_slowly(
                labels
            )[2:]
        database.close()


def test_the_most_frequent_come_first_and_equal_counts_by_value(database: Database) -> None:
    for n, tags in enumerate([("b", "c"), ("a", "c"), ("c",), ("d", "b")]):
        insert(database, n, tags=tags, metadata={"n": n})
    counter = FacetCounter(database)
    found = counter.count("default", "images", [FIELDS[0], FIELDS[3]], 3, is_search=False)
    assert found == {"tags": [("c", 3), ("b", 2), ("a", 1)], "metadata.n": [(0, 1), (1, 1), (2, 1)]}
    insert(database, 9, tags=("0",))
    found = counter.count("default", "images", FIELDS[:1], 10, is_search=False)
    assert [value for value, _ in found["tags"]] == ["c", "b", "0", "a", "d"]
    assert counter.count(
        "default", "images", FIELDS[:1], 10, matching=IdSet.of(np.array([10**6])), is_search=False
    ) == {"tags": []}


def test_a_collection_of_the_same_name_counts_anew(database: Database) -> None:
    database.write(lambda c: collections.create(c, "trip", ""))
    database.write(lambda c: images.add(c, "trip", new(1, tags=("old",)), None, False))
    counter = FacetCounter(database)
    assert counter.count("trip", "images", FIELDS[:1], 10, is_search=False) == {"tags": [("old", 1)]}
    database.write(lambda c: c.execute("UPDATE collections SET name = NULL WHERE name = 'trip'"))
    with pytest.raises(NotFound):
        counter.count("trip", "images", FIELDS[:1], 10)
    database.write(lambda c: collections.create(c, "trip", ""))
    assert counter.count("trip", "images", FIELDS[:1], 10, is_search=False) == {"tags": []}


def test_the_columns_used_least_recently_leave(database: Database) -> None:
    for n in range(50):
        insert(database, n, tags=(f"tag {n}",))
    counter = FacetCounter(database, max_bytes=4_000)
    for field in FIELDS:
        counter.count("default", "images", [field], 10)
        assert counter.nbytes <= 4_000
    assert counter.count("default", "images", FIELDS[:1], 1, is_search=False) == {"tags": [("tag 0", 1)]}


def test_after_many_changes_every_row_is_read_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facets, "MAX_CHANGES", 2)
    found = [insert(database, n, tags=("a",)) for n in range(4)]
    counter = FacetCounter(database)
    counter.count("default", "images", FIELDS[:1], 10)
    for image in found:
        database.write(lambda c, key=image.key: images.update(c, key, None, ["b"], {}))  # type: ignore[misc]
    assert counter.count("default", "images", FIELDS[:1], 10, is_search=False) == {"tags": [("b", 4)]}
