"""Cursors and names of collections, without a server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.dependencies import decode_cursor, encode_cursor, validate_collection
from app.core.errors import BadRequest, Validation


@given(st.integers(0, (1 << 63) - 1))
def test_a_cursor_says_the_position_it_was_made_of(key: int) -> None:
    assert decode_cursor(encode_cursor(key)) == key


@given(st.text(max_size=40))
def test_any_other_cursor_is_a_position_or_refused(text: str) -> None:
    try:
        key = decode_cursor(text)
    except BadRequest:
        return
    assert key is not None
    assert 0 <= key < 1 << 63


@pytest.mark.parametrize("key", [-1, 1 << 63, 10**30])
def test_a_position_that_the_store_cannot_hold_is_refused(key: int) -> None:
    with pytest.raises(BadRequest):
        decode_cursor(encode_cursor(key))


def test_names_of_collections() -> None:
    assert validate_collection(None) == "default"
    for name in ("a", "a-b_9", "x" * 64):
        assert validate_collection(name) == name
    for name in ("", "A", "a b", "x" * 65, "a\n", "é", "../a", "\ud800"):
        with pytest.raises(Validation):
            validate_collection(name)
