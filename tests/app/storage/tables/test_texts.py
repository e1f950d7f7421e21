from __future__ import annotations

from app.core.types import Text
from app.storage.database import Database
from app.storage.tables import texts


def put(database: Database, id: str, text: str = "a red car", **metadata: object) -> Text:
    return database.write(lambda c: texts.put(c, "default", id, text, metadata))


def test_a_text_is_kept_with_its_metadata(database: Database) -> None:
    stored = put(database, "one", "笑脸", page=3, tags=["é"])
    assert (stored.text, stored.metadata) == ("笑脸", {"page": 3, "tags": ["é"]})
    assert database.read(lambda c: texts.get(c, "default", "one")) == stored
    assert database.read(lambda c: texts.get(c, "default", "two")) is None
    assert database.read(lambda c: texts.get(c, "other", "one")) is None


def test_a_known_id_gets_the_new_words_and_keeps_its_key(database: Database) -> None:
    first = put(database, "one", "a red car", page=1)
    second = put(database, "one", "a blue car")
    assert (second.key, second.text, second.metadata) == (first.key, "a blue car", {})
    assert database.read(lambda c: texts.count(c, "default")) == 1


def test_deleted_texts_are_absent_and_their_keys_never_come_again(database: Database) -> None:
    one, two = put(database, "one"), put(database, "two")
    database.write(lambda c: texts.delete(c, two.key))
    three = put(database, "three")
    assert three.key > two.key
    assert database.read(lambda c: texts.get_by_keys(c, [one.key, two.key, three.key])) == {
        one.key: one,
        three.key: three,
    }
    assert database.read(texts.list_all) == [one, three]
    assert database.read(lambda c: texts.count(c, "default")) == 2
    assert database.read(lambda c: texts.count(c, "other")) == 0


def test_pages_are_of_one_collection_newest_first_below_a_key(database: Database) -> None:
    one, two, three = (put(database, id) for id in ("one", "two", "three"))
    put(database, "one", "changed")
    assert [text.id for text in database.read(lambda c: texts.list_page(c, "default", 2, None))] == ["three", "two"]
    assert database.read(lambda c: texts.list_page(c, "default", 9, two.key)) == [
        database.read(lambda c: texts.get(c, "default", "one"))
    ]
    assert database.read(lambda c: texts.list_page(c, "other", 9, None)) == []
    assert one.key < two.key < three.key


def test_whether_a_text_was_truncated_is_kept_and_may_be_unknown(database: Database) -> None:
    assert put(database, "old").truncated is None
    stored = database.write(lambda c: texts.put(c, "default", "one", "a red car", {}, True))
    assert stored.truncated is True
    assert database.read(lambda c: texts.get(c, "default", "one")) == stored
    database.write(lambda c: texts.set_truncated(c, stored.key, False))
    assert database.read(texts.list_all)[1].truncated is False
    assert put(database, "one").truncated is None  # other words
