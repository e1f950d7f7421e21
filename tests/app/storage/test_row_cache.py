from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count

import pytest

from app.storage import row_cache
from app.storage.address import open_database
from app.storage.database import Database
from app.storage.row_cache import open_cache
from app.storage.sql import Connection
from app.storage.tables import images
from tests.support.makers import insert


def caption_of(database: Database, key: int) -> tuple[str | None, str | None]:
    """As the texts say, and as the row does."""

    def work(c: Connection) -> tuple[str | None, str | None]:
        cache = open_cache(c)
        rows = cache.get_rows(c, [key, -1])
        assert cache.get_image(key, rows[key]) is cache.get_image(key, rows[key])
        return cache.get_descriptions(c, [key, -1])[key].caption, cache.get_image(key, rows[key]).caption

    return database.read(work)


def test_a_change_is_seen_by_the_next_read(database: Database) -> None:
    key = insert(database, 1, "one").key
    assert caption_of(database, key) == (None, None)
    database.write(lambda c: images.update(c, key, "a red car", [], {}))
    assert caption_of(database, key) == ("a red car", "a red car")


def test_a_deleted_picture_is_gone(database: Database) -> None:
    key = insert(database, 1, "one").key
    assert caption_of(database, key) == (None, None)
    database.write(lambda c: images.delete(c, key))
    assert database.read(lambda c: open_cache(c).get_rows(c, [key])) == {}


def test_the_cache_stays_until_a_commit(database: Database) -> None:
    numbers = count(1)

    def work(c: Connection) -> int:
        return open_cache(c).remember("question", lambda: next(numbers))

    assert [database.read(work) for _ in range(3)] == [1, 1, 1]
    insert(database, 1, "one")
    assert database.read(work) == 2


def test_a_commit_of_another_process_is_seen(database: Database) -> None:
    key = insert(database, 1, "one").key
    with closing(open_database(database.address)) as other:
        assert caption_of(database, key) == caption_of(other, key) == (None, None)
        other.write(lambda c: images.update(c, key, "a red car", [], {}))
        assert caption_of(database, key) == caption_of(other, key) == ("a red car", "a red car")


def test_threads_share_a_cache_that_has_a_bound(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_cache, "MAX_ROWS", 3)
    monkeypatch.setattr(row_cache, "MAX_ANSWERS", 1)
    keys = [insert(database, n, f"p{n}").key for n in range(6)]

    def work(c: Connection, n: int) -> tuple[int, int]:
        cache = open_cache(c)
        wanted = [keys[n % 6], keys[(n + 1) % 6]]
        assert list(cache.get_rows(c, wanted)) == wanted
        return cache.remember(n % 3, lambda: n % 3), n % 3

    with ThreadPoolExecutor(4) as threads:
        for answer, expected in threads.map(lambda n: database.read(lambda c: work(c, n)), range(400)):
            assert answer == expected


def test_a_connection_that_writes_keeps_nothing(database: Database) -> None:
    assert database.write(lambda c: open_cache(c) is open_cache(c)) is False


def test_the_cache_has_a_bound(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_cache, "MAX_ROWS", 2)
    monkeypatch.setattr(row_cache, "MAX_ANSWERS", 2)
    keys = [insert(database, n, f"p{n}").key for n in range(4)]

    def work(c: Connection) -> list[int]:
        cache = open_cache(c)
        found = [len(cache.get_rows(c, keys[: n + 1])) for n in range(4)]
        for key, row in cache.get_rows(c, keys).items():
            assert cache.get_image(key, row).key == key
        assert [cache.remember(n, lambda n=n: n) for n in (1, 2, 3, 1)] == [1, 2, 3, 1]  # type: ignore[misc]
        return found

    assert database.read(work) == [1, 2, 3, 4]
