"""Pictures in JSON, tables and data URIs: base64 as the many programs write it."""

from __future__ import annotations

import binascii
import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from app.core.unquote import unquote_bytes

URL_SAFE = bytes.maketrans(b"-_", b"+/")
WHITE_SPACE = b" \t\r\n\v\f"
PIECE = 64 << 10  # characters that are decoded in one step, which nothing can interrupt
NOT_BASE64 = "image is not valid base64"
NOT_A_DATA_URI = "a data URI must be base64: data:image/png;base64,..."


def decode_base64(text: str | bytes) -> bytes:
    """The bytes of base64 or of a data URI. White space, the URL-safe alphabet and missing padding are taken.

    Raises ValueError with a sentence.
    """
    if isinstance(text, bytes):
        text = text.decode("ascii", "replace")
    if text[:64].lstrip()[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.rstrip().lower().endswith(";base64"):
            raise ValueError(NOT_A_DATA_URI)
        text = unquote(text) if "%" in text else text
    try:
        digits = text.encode("ascii").translate(URL_SAFE, WHITE_SPACE).rstrip(b"=")
        return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError(NOT_BASE64) from None


def decode_base64_file(source: Path, target: Path) -> None:
    """Like `decode_base64`, for the inside of a JSON string in a file; the bytes are written to another file.

    Raises ValueError with a sentence.
    """
    with open(source, "rb") as reader, open(target, "xb") as writer:
        digits = b""
        for piece in _read_pieces(reader):
            digits += piece.translate(URL_SAFE, WHITE_SPACE)
            whole = 0 if b"=" in digits else len(digits) // 4 * 4
            writer.write(_decode_digits(digits[:whole]))
            digits = digits[whole:]
            if len(digits) > PIECE:  # it goes on after its end
                raise ValueError(NOT_BASE64)
        digits = digits.rstrip(b"=")
        writer.write(_decode_digits(digits + b"=" * (-len(digits) % 4)))


def _decode_digits(digits: bytes) -> bytes:
    try:
        return binascii.a2b_base64(digits, strict_mode=True) if digits else b""
    except binascii.Error:
        raise ValueError(NOT_BASE64) from None


def _read_pieces(reader: BinaryIO) -> Iterator[bytes]:
    """The base64 of a file in pieces, without the head of a data URI and without the escapes of JSON and of URIs."""
    escape = percent = b""  # begun at the end of a piece
    is_uri: bool | None = None
    while read := reader.read(PIECE):
        piece, escape = _split_at_last(escape + read, b"\\", 5)
        piece = _unescape(piece)
        if is_uri is None:
            is_uri, piece = _cut_head(piece)
        if is_uri:
            piece, percent = _split_at_last(percent + piece, b"%", 2)
            piece = unquote_bytes(piece)
        yield piece
    yield unquote_bytes(percent + _unescape(escape)) if is_uri else _unescape(escape)


def _split_at_last(text: bytes, mark: bytes, width: int) -> tuple[bytes, bytes]:
    """Split before a mark that is among the last characters, so that what it begins is not cut."""
    at = text.rfind(mark, max(0, len(text) - width))
    return (text, b"") if at < 0 else (text[:at], text[at:])


def _unescape(text: bytes) -> bytes:
    if b"\\" not in text:
        return text
    try:
        return str(json.loads(b'"' + text + b'"')).encode("ascii")
    except ValueError:
        raise ValueError(NOT_BASE64) from None


def _cut_head(text: bytes) -> tuple[bool, bytes]:
    """Whether this begins a data URI, and what comes after its head."""
    if text[:64].lstrip()[:5].lower() != b"data:":
        return False, text
    head, comma, text = text.partition(b",")
    if not comma or not head.rstrip().lower().endswith(b";base64"):
        raise ValueError(NOT_A_DATA_URI)
    return True, text
