"""What PostgreSQL gets of a statement."""

from __future__ import annotations

import re

import pytest

from app.storage.postgresql.dialect import FRAGMENTS, bind, parse


@pytest.mark.parametrize(
    ("sql", "values", "text", "bound"),
    [
        ("SELECT 1 WHERE a = ? AND b = ?", (1, "x"), "SELECT 1 WHERE a = $1 AND b = $2", [1, "x"]),
        ("SELECT ?2, ?1, ?2", ("a", "b"), "SELECT $1, $2, $1", ["b", "a"]),
        ("SELECT ?, ?", (None, 2), "SELECT NULL, $1", [2]),
        ("WHERE a IS ?", ("x",), "WHERE a = $1", ["x"]),
        ("WHERE a IS ? AND b = ?", (None, 3), "WHERE a IS NULL AND b = $1", [3]),
        ("WHERE a IN (SELECT value FROM json_each(?))", ("[1, 2]",), "WHERE a = ANY($1)", [[1, 2]]),
        ("WHERE a NOT IN (SELECT value FROM json_each(?1))", ('["x"]',), "WHERE a <> ALL($1)", [["x"]]),
        ("WHERE a IN (SELECT value FROM json_each(?))", ("[1, 2.5, null]",), "WHERE a = ANY($1)", [[1.0, 2.5]]),
        ("WHERE atom IN (SELECT value FROM json_each(?))", ("[]",), None, ["[]"]),
        ("SELECT '?' || a LIKE ?", ("%",), "SELECT '?' || a ILIKE $1", ["%"]),
        ("FROM jobs INDEXED BY jobs_tasks WHERE a", (), "FROM jobs WHERE a", []),
        ("WHERE options ->> '$.video.sha256' = ?", ("a",), "WHERE (json_of(options) #>> '{video,sha256}') = $1", ["a"]),
        ("SET a = ?", (True,), "SET a = $1", [1]),
        ("SET a = ?", ("nul\0nul",), "SET a = $1", ["nulnul"]),
    ],
)
def test_a_statement_and_its_values_are_written_for_postgresql(
    sql: str, values: tuple[object, ...], text: str | None, bound: list[object]
) -> None:
    _, written, given = bind(sql, values)
    assert (written, given) == (text or sql.replace("?", "$1"), bound)


def test_what_has_no_form_for_both_is_replaced_with_as_many_values() -> None:
    for fragment, other in FRAGMENTS.items():
        places = re.sub("'[^']*'", "", fragment).count("?")
        assert other.count("?") == places
        _, text, _ = bind(fragment, ["a"] * places)
        assert text.partition("(")[0] == other.partition("(")[0]


@pytest.mark.parametrize(
    ("sql", "is_change", "has_words"),
    [
        ("SELECT caption FROM images", False, False),
        ("UPDATE images SET caption = ?", True, True),
        ("INSERT INTO images (key, tags) VALUES (?, ?)", True, True),
        ("UPDATE images SET status = 'ready', auto_tags = ?", True, False),
        ("DELETE FROM images WHERE key = ?", True, False),
    ],
)
def test_what_a_statement_changes_is_known(sql: str, is_change: bool, has_words: bool) -> None:
    statement = parse(sql)
    assert (statement.is_change, statement.has_words) == (is_change, has_words)
