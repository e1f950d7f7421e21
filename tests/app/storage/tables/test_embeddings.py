from __future__ import annotations

import pytest

from app.core.types import EmbeddingSpace, Target
from app.storage.database import Database
from app.storage.tables import collections, embeddings
from tests.support.makers import FINGERPRINT, SPACE, restore_log, save_log

ONE, TWO = b"\1" * 16, b"\2" * 16


@pytest.fixture
def log(database: Database) -> Database:
    database.write(lambda c: embeddings.save_space(c, SPACE))
    return database


def add(log: Database, key: int, vector: bytes = ONE, target: Target = "images") -> int:
    return log.write(lambda c: embeddings.add(c, "default", FINGERPRINT, target, key, vector))


def remove(log: Database, key: int) -> int | None:
    return log.write(lambda c: embeddings.remove(c, "images", key))


def entries(log: Database, after: int = 0, limit: int = 100, target: Target = "images") -> list[embeddings.LogEntry]:
    return log.read(lambda c: embeddings.list_after(c, "default", FINGERPRINT, target, after, limit))


def head(log: Database, target: Target = "images") -> int:
    return log.read(lambda c: embeddings.get_last_seq(c, "default", FINGERPRINT, target))


def test_entries_come_in_the_order_in_which_they_were_added(log: Database) -> None:
    numbers = [add(log, key) for key in (7, 3, 5)]
    assert numbers == sorted(numbers)
    assert entries(log) == [(seq, "add", key, ONE) for seq, key in zip(numbers, (7, 3, 5), strict=True)]
    assert head(log) == numbers[-1]


def test_after_gives_what_is_past_a_number_and_no_more_than_its_limit(log: Database) -> None:
    numbers = [add(log, key) for key in range(5)]
    assert [entry[0] for entry in entries(log, after=numbers[1], limit=2)] == numbers[2:4]
    assert entries(log, after=numbers[-1]) == []


def test_a_log_without_entries_has_head_0(log: Database) -> None:
    assert head(log) == 0


def test_adding_a_key_again_replaces_its_entry_under_a_new_number(log: Database) -> None:
    first = add(log, 1, ONE)
    second = add(log, 1, TWO)
    assert second > first
    assert entries(log) == [(second, "add", 1, TWO)]


def test_removing_leaves_a_note_in_place_of_the_vector(log: Database) -> None:
    added = add(log, 1)
    removed = remove(log, 1)
    assert removed is not None
    assert removed > added
    assert entries(log) == [(removed, "remove", 1, None)]
    assert head(log) == removed
    assert log.read(lambda c: embeddings.get_vectors(c, "images", [1])) == {}


def test_removing_what_has_no_vector_leaves_no_note(log: Database) -> None:
    assert remove(log, 1) is None
    add(log, 1)
    remove(log, 1)
    assert remove(log, 1) is None
    assert len(entries(log)) == 1


def test_a_key_may_come_back_after_it_was_removed(log: Database) -> None:
    add(log, 1, ONE)
    remove(log, 1)
    again = add(log, 1, TWO)
    assert entries(log) == [(again, "add", 1, TWO)]


def test_numbers_are_never_used_twice(log: Database) -> None:
    last = add(log, 1)
    log.write(embeddings.delete_all)
    assert add(log, 1) > last


def test_targets_do_not_mix(log: Database) -> None:
    image, text = add(log, 1, ONE), add(log, 1, TWO, "texts")
    assert entries(log) == [(image, "add", 1, ONE)]
    assert entries(log, target="texts") == [(text, "add", 1, TWO)]
    assert head(log, "texts") == text
    assert log.read(lambda c: embeddings.get_vectors(c, "texts", [1])) == {1: TWO}
    remove(log, 1)
    assert entries(log, target="texts") == [(text, "add", 1, TWO)]


def test_vectors_are_found_by_key_and_missing_ones_are_absent(log: Database) -> None:
    add(log, 1, ONE)
    add(log, 2, TWO)
    assert log.read(lambda c: embeddings.get_vectors(c, "images", [2, 1, 3])) == {1: ONE, 2: TWO}
    assert log.read(lambda c: embeddings.get_vectors(c, "images", [])) == {}


def test_count_is_of_keys_that_have_a_vector(log: Database) -> None:
    add(log, 1)
    add(log, 2)
    remove(log, 1)
    assert log.read(lambda c: embeddings.count_vectors(c, "default", FINGERPRINT, "images")) == 1
    assert log.read(lambda c: embeddings.count_vectors(c, "default", "another", "images")) == 0


def test_a_space_can_be_read_back_by_its_fingerprint(log: Database) -> None:
    log.write(lambda c: embeddings.save_space(c, SPACE))  # again: nothing happens
    assert log.read(lambda c: embeddings.get_space(c, FINGERPRINT)) == SPACE
    assert log.read(lambda c: embeddings.get_space(c, "another")) is None


def test_a_vector_of_a_space_that_nobody_wrote_down_is_refused(database: Database) -> None:
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        add(database, 1)


def test_forget_drops_vectors_and_stamps(log: Database) -> None:
    add(log, 1)
    log.write(lambda c: collections.assign_space(c, "default", FINGERPRINT))
    log.write(embeddings.delete_all)
    assert entries(log) == []
    assert [one.space for one in log.read(collections.list_all)] == [None]


def test_the_space_that_is_served_is_known_and_in_an_empty_directory_the_last_counts(log: Database) -> None:
    other = EmbeddingSpace("other", "f" * 64, SPACE.d, SPACE.preprocessing)

    def serve(space: EmbeddingSpace) -> EmbeddingSpace | None:
        log.write(lambda c: embeddings.mark_served(c, space))
        before = log.read(lambda c: embeddings.get_other_served(c, space.fingerprint))
        log.write(lambda c: embeddings.save_golden(c, space.fingerprint, ONE))
        return before

    assert [serve(SPACE), serve(other), serve(SPACE)] == [None, None, None]
    assert log.read(lambda c: embeddings.get_other_served(c, other.fingerprint)) == SPACE
    log.write(lambda c: collections.assign_space(c, "default", FINGERPRINT))
    log.write(lambda c: embeddings.mark_served(c, other))
    assert log.read(lambda c: embeddings.get_golden(c, FINGERPRINT)) == ONE


def test_what_lies_ahead_is_counted_for_one_index(log: Database) -> None:
    first = add(log, 1)
    add(log, 2)
    remove(log, 2)
    add(log, 3, target="texts")

    def count_ahead(seq: int) -> int:
        return log.read(lambda c: embeddings.count_after(c, "default", FINGERPRINT, "images", seq))

    assert (count_ahead(0), count_ahead(first), count_ahead(head(log))) == (2, 1, 0)


def find_mark(log: Database, known: str = "") -> str | None:
    return log.read(lambda c: embeddings.find_newest_mark(c, known))


def test_a_log_has_its_marks_until_it_loses_its_end(log: Database) -> None:
    assert find_mark(log) == ""
    marks = []
    for key in (1, 2, 1):  # the third replaces the row of the first, not its mark
        seq = add(log, key)
        marks.append(find_mark(log) or "")
        assert marks[-1].startswith(f"{seq}:")
    saved = save_log(log)
    assert remove(log, 2) == seq + 1
    lost = find_mark(log) or ""
    assert lost.startswith(f"{seq + 1}:")
    assert [find_mark(log, mark) for mark in ("", *marks, lost)] == [lost] * 5
    restore_log(log, saved)
    assert [find_mark(log, mark) for mark in (*marks, lost)] == [marks[-1]] * 3 + [None]
    assert remove(log, 2) == seq + 1  # the same number, another mark
    assert [find_mark(log, mark) for mark in (*marks, lost)] == [find_mark(log)] * 3 + [None]
