from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.base64_text import decode_base64


@given(st.binary(max_size=400))
def test_every_way_to_write_base64_is_read(raw: bytes) -> None:
    plain = base64.b64encode(raw).decode()
    for text in (
        plain,
        plain.rstrip("="),
        base64.encodebytes(raw).decode(),
        base64.urlsafe_b64encode(raw).decode(),
        plain.replace("A", "A\r\n "),
        f"data:image/jpeg;base64,{plain}",
        f" DATA:IMAGE/JPEG;charset=utf-8;name=a.jpg;BASE64,\n{base64.encodebytes(raw).decode()}",
        "data:;base64," + plain.replace("+", "%2B").replace("=", "%3D"),
    ):
        assert decode_base64(text) == raw
    assert decode_base64(plain.encode()) == raw


@pytest.mark.parametrize(
    "text", ["A", "A===", "AAAA=AAA", "!", "é", "data:image/png,AAAA", "data:image/png;base64", "a,b"]
)
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="base64"):
        decode_base64(text)
