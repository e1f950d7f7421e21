"""PostgreSQL finds the pictures that SQLite finds, in its order."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import StartupError
from app.storage import keywords
from app.storage.address import open_database
from app.storage.database import Database
from app.storage.postgresql.keywords import MAX_STEM, index_words
from app.storage.sql import fetch_number
from app.storage.tables import images
from tests.support.makers import insert
from tests.support.postgresql import PostgresqlServer

WORDS = (
    *("red", "green", "blue", "frog", "frogs", "running", "beach", "Äpfel", "straße", "红色", "青蛙", "東京"),
    *("dog-house", "it's", "photo42"),
)
QUERIES = (
    *("red", "frogs", "green frog", "running beach dog", "apfel", "Strasse", "红色青蛙", "東京", "house", "photo 42"),
    *("eac", "rog", 'a "quoted\\ word', "100%_", "the", "' | !", "blue blue", "nothing here"),
)


@pytest.fixture
def both(postgresql: PostgresqlServer, tmp_path: Path) -> Iterator[tuple[Database, Database]]:
    with (
        postgresql.database() as address,
        closing(open_database(tmp_path / "sightline.db")) as sqlite,
        closing(open_database(address)) as other,
    ):
        yield sqlite, other


def fill(database: Database, count: int) -> None:
    chosen = random.Random(7)
    for n in range(count):
        said: dict[str, Any] = {
            "caption": " ".join(chosen.choices(WORDS, k=chosen.randint(0, 9))),
            "tags": tuple(chosen.choices(WORDS, k=chosen.randint(0, 3))),
            "source": f"my {chosen.choice(WORDS)}/{chosen.choice(WORDS)}_{n}.jpg",
        }
        insert(database, n, **said)
    database.write(lambda c: list(c.execute("UPDATE images SET status = 'ready'")))


def test_the_same_pictures_are_found_in_nearly_the_same_order(both: tuple[Database, Database]) -> None:
    for database in both:
        fill(database, 80)
    for query in QUERIES:
        terms = keywords.split_query(query)
        sqlite, other = (list(dict.fromkeys(one.read(lambda c: [*keywords.find(c, "default", terms)]))) for one in both)  # noqa: B023
        assert set(other) == set(sqlite), query
        best = set(sqlite[:10])
        assert len(best & set(other[: len(best) + 2])) >= 0.8 * len(best), (query, sqlite[:12], other[:12])
        keys = list(range(1, 81, 3))
        having = [one.read(lambda c: keywords.select_having(c, terms, keys)) for one in both]  # noqa: B023
        assert having[0] == having[1], query


def test_words_follow_the_changes_of_a_picture(both: tuple[Database, Database]) -> None:
    _, database = both
    image = insert(database, 1, caption="a red frog")
    database.write(lambda c: list(c.execute("UPDATE images SET status = 'ready'")))

    def find(query: str) -> list[int]:
        return database.read(lambda c: [*keywords.find(c, "default", keywords.split_query(query))])

    assert find("frog") == [image.key]
    database.write(lambda c: images.update(c, image.key, "a blue whale", ["sea"], {}))
    assert (find("frog"), find("whale"), find("sea")) == ([], [image.key], [image.key])
    database.write(lambda c: images.delete(c, image.key))
    assert find("whale") == []
    assert database.read(lambda c: fetch_number(c, "SELECT count(*) FROM image_words")) == 0


def test_pages_of_common_words_come_newest_first(
    both: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.storage.keywords.MAX_MATCHES", 10)
    monkeypatch.setattr("app.storage.postgresql.keywords.MAX_MATCHES", 10)
    monkeypatch.setattr("app.storage.postgresql.keywords.PAGE", 7)
    for database in both:
        for n in range(40):
            insert(database, n, caption=f"common number{n}")
        database.write(lambda c: list(c.execute("UPDATE images SET status = 'ready'")))
    terms = keywords.split_query("common")
    sqlite, other = (one.read(lambda c: [*keywords.find(c, "default", terms)]) for one in both)
    assert other == sqlite
    assert other[:40] == list(range(40, 0, -1))


def test_what_a_tsvector_cannot_hold_is_cut() -> None:
    words, size, parts = index_words(["x" * 5000 + " frog" * 20_000, None, "a'b\\c", None, None])
    assert "x" * MAX_STEM + "'" in words
    assert size == 20_001 + 3 or size > 20_000
    assert "16383" in words
    assert parts.startswith("xxx")


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("psycopg", "app.storage.postgresql"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StartupError, match=r"pip install 'sightline-search\[postgresql\]'"):
        open_database("postgresql://nowhere/db")
