from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.types import Target
from app.search.filter_cache import FilterCache
from app.storage.address import open_database
from app.storage.database import Database
from app.storage.filters.model import Filter
from app.storage.filters.parser import parse_filter
from app.storage.sql import Connection
from app.storage.tables import images, texts
from index.idset import IdSet
from tests.support.makers import insert, new
from tests.support.oracle import matches_filter

ASKED: tuple[tuple[Target, dict[str, Any]], ...] = (
    ("images", {"key": "tags", "match": {"value": "red"}}),
    ("images", {"must_not": [{"key": "tags", "match": {"value": "red"}}]}),
    ("images", {"key": "caption", "match": {"text": "car"}}),
    ("images", {"key": "metadata.n", "range": {"gte": 2}}),
    ("images", {"has_id": ["id-1", "id-2"]}),
    ("images", {}),
    ("texts", {"key": "metadata.n", "range": {"gte": 2}}),
    ("texts", {"key": "text", "match": {"text": "car"}}),
)
steps = st.tuples(
    st.sampled_from(["add", "add", "change", "replace", "delete", "text", "delete text", "ask", "ask", "move"]),
    st.integers(0, 9),
    st.sampled_from([(), ("red",), ("red", "blue")]),
    st.sampled_from(["a car", "a house"]),
    st.integers(0, 4),
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def rows_of(database: Database, target: Target) -> list[Any]:
    if target == "texts":
        return [row for row in database.read(texts.list_all) if row.collection == "default"]
    return database.read(lambda c: images.list_page(c, "default", 1000, None))


@settings(max_examples=120, deadline=None)
@given(steps=st.lists(steps, min_size=3, max_size=25))
def test_a_kept_set_is_that_of_the_rows_as_they_are(folder: Path, steps: list[Any]) -> None:
    """Through any changes, made by another process's connection; whichever filters were asked in between."""
    ours, theirs = open_database(folder / "sightline.db"), open_database(folder / "sightline.db")
    try:
        theirs.write(lambda c: list(c.execute("DELETE FROM images; DELETE FROM texts")))
        selections = FilterCache(ours)
        for n, step in enumerate(steps):
            if step[0] != "ask":
                theirs.write(partial(change, n, *step))
                continue
            for target, asked in (ASKED[step[1] % len(ASKED)], ASKED[step[4]]):
                held = selections.allowed_ids("default", parse_filter(asked, target))
                expected = {row.key for row in rows_of(ours, target) if matches_filter(asked, row)}
                assert set(held) == expected, asked
    finally:
        theirs.close()
        ours.close()


def change(n: int, kind: str, number: int, tags: tuple[str, ...], words: str, value: int, c: Connection) -> None:
    id = f"id-{number}"
    said: dict[str, Any] = {"tags": tags, "caption": words, "metadata": {"n": value}}
    image = images.get(c, "default", id)
    text = texts.get(c, "default", id)
    if kind == "add" and image is None:
        images.add(c, "default", new(n, id, **said), None, False)
    elif kind == "replace":
        images.add(c, "default", new(n, id, **said), None, True)
    elif kind == "change" and image is not None:
        images.update(c, image.key, words, tags, {"n": value})
    elif kind == "delete" and image is not None:
        images.delete(c, image.key)
    elif kind == "text":
        texts.put(c, "default", id, words, {"n": value})
    elif kind == "delete text" and text is not None:
        texts.delete(c, text.key)
    elif kind == "move" and image is not None:  # nothing does so today; a set must not be wrong if something will
        c.execute("INSERT OR IGNORE INTO collections (label, name, created_at) VALUES ('other', 'other', '')")
        moved = (f"{n}{id}", f"{n}-{id}", image.key)
        c.execute("UPDATE images SET collection = 'other', sha256 = ?, id = ? WHERE key = ?", moved)


def make_filter(asked: dict[str, Any], target: Target = "images") -> Filter:
    return parse_filter(asked, target)


def remove_tags_silently(database: Database, key: int) -> None:
    """Take the tags of a picture away without a note of the change: who finds that out has asked the row again."""

    def work(c: Any) -> None:
        (sql,) = c.execute("SELECT sql FROM sqlite_schema WHERE name = 'images_changed'").fetchone()
        c.execute("DROP TRIGGER images_changed")
        c.execute("UPDATE images SET tags = '[]' WHERE key = ?", (key,))
        c.execute(sql)

    database.write(work)


def untag(key: int, c: Connection) -> None:
    images.update(c, key, None, [], {})


RED = {"key": "tags", "match": {"value": "red"}}


@pytest.mark.sqlite
def test_a_filter_that_comes_again_asks_only_what_has_changed(database: Database) -> None:
    quiet = insert(database, 0, tags=("red",)).key
    key = insert(database, 1, tags=("red",)).key
    selections = FilterCache(database)
    first = selections.allowed_ids("default", make_filter(RED))
    assert list(first) == [quiet, key]
    assert selections.allowed_ids("default", make_filter(dict(RED))) is first
    remove_tags_silently(database, quiet)
    added = insert(database, 2, tags=("red",)).key
    assert list(selections.allowed_ids("default", make_filter(RED))) == [quiet, key, added]
    database.write(lambda c: images.update(c, key, None, [], {}))
    assert list(selections.allowed_ids("default", make_filter(RED))) == [quiet, added]
    assert list(first) == [quiet, key]  # who searches with it meanwhile is not disturbed
    assert list(FilterCache(database).allowed_ids("default", make_filter(RED))) == [added]


@pytest.mark.sqlite
def test_after_too_many_changes_and_forgotten_ones_every_row_is_asked(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.search.filter_cache.MAX_CHANGES", 2)
    keys = [insert(database, n, tags=("red",)).key for n in range(6)]
    selections = FilterCache(database)
    assert list(selections.allowed_ids("default", make_filter(RED))) == keys
    remove_tags_silently(database, keys[0])
    for key in keys[1:4]:
        database.write(partial(untag, key))
    assert list(selections.allowed_ids("default", make_filter(RED))) == keys[4:]
    remove_tags_silently(database, keys[4])
    database.write(lambda c: list(c.execute("INSERT INTO changes VALUES (200000, 'images', 0)")))
    assert list(selections.allowed_ids("default", make_filter(RED))) == keys[5:]


def test_what_was_not_used_for_longest_is_let_go(database: Database) -> None:
    insert(database, 0, tags=("red",))
    selections = FilterCache(database, max_bytes=5_000)
    for n in range(50):
        selections.allowed_ids("default", make_filter({"has_id": [f"id-{n}"]}))
        selections.allowed_ids("default", make_filter({"has_id": ["kept"]}))
        assert selections.nbytes <= 5_000
    assert 2 <= len(selections) <= 4
    before = selections.allowed_ids("default", make_filter({"has_id": ["kept"]}))
    assert selections.allowed_ids("default", make_filter({"has_id": ["kept"]})) is before
    tiny = FilterCache(database, max_bytes=0)
    assert len(tiny.allowed_ids("default", make_filter({"key": "tags", "match": {"value": "red"}}))) == 1
    assert (len(tiny), tiny.nbytes) == (0, 0)


def test_many_at_once_share_one_look_at_the_rows(database: Database) -> None:
    key = insert(database, 0, tags=("red",)).key
    go = threading.Barrier(8)
    selections = FilterCache(database)

    def ask(_: int) -> IdSet:
        go.wait(60)
        return selections.allowed_ids("default", make_filter(RED))

    with ThreadPoolExecutor(8) as threads:
        first, *others = threads.map(ask, range(8))
    assert list(first) == [key]
    assert all(other is first for other in others)
