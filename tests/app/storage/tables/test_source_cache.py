from __future__ import annotations

from app.storage.database import Database
from app.storage.tables import images, source_cache
from app.storage.tables.source_cache import CacheEntry
from tests.support.makers import insert


def test_the_cache_keeps_the_last_entry_of_a_url(database: Database) -> None:
    first, second = CacheEntry('"1"', "0" * 64), CacheEntry('"2"', "1" * 64)
    database.write(lambda c: source_cache.store(c, "http://a/", first))
    database.write(lambda c: source_cache.store(c, "http://b/", first))
    database.write(lambda c: source_cache.store(c, "http://b/", second))
    found = database.read(lambda c: source_cache.find_entries(c, ["http://a/", "http://b/", "http://c/"]))
    assert found == {"http://a/": first, "http://b/": second}
    assert database.read(lambda c: source_cache.find_entries(c, [])) == {}


def test_only_origins_whose_bytes_are_in_the_collection_are_held(database: Database) -> None:
    image = insert(database, 1)
    database.write(lambda c: source_cache.store(c, "file:/a", CacheEntry("1-2", image.sha256)))
    database.write(lambda c: source_cache.store(c, "file:/b", CacheEntry("3-4", "0" * 64)))

    def find_tags(collection: str = "default") -> dict[str, str]:
        return database.read(lambda c: source_cache.find_held_tags(c, collection, ["file:/a", "file:/b", "file:/c"]))

    assert find_tags() == {"file:/a": "1-2"}
    assert find_tags("other") == {}
    database.write(lambda c: images.delete(c, image.key))
    assert find_tags() == {}
