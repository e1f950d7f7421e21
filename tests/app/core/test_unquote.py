from __future__ import annotations

from urllib.parse import unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st

from app.core.unquote import unquote_bytes

ESCAPES = st.integers(0, 255).map(lambda n: b"%%%02X" % n) | st.sampled_from([b"%e9", b"%c3%A9"])
PLAIN = st.sampled_from([b"=", b"&", b"a", b"_", b"+", b".", b"4", b"F", b"\xc3\xa9"])
WRONG = st.sampled_from([b"%", b"%%", b"%zz", b"%4"])


@given(st.lists(ESCAPES | PLAIN).map(b"".join))
def test_escapes_are_resolved(text: bytes) -> None:
    assert unquote_bytes(text) == unquote_to_bytes(text)


@given(st.lists(ESCAPES | PLAIN | WRONG).map(b"".join))
def test_what_is_no_escape_changes_nothing_else(text: bytes) -> None:
    assert unquote_bytes(text).translate(None, b"%=") == unquote_to_bytes(text).translate(None, b"%=")
