"""Pictures in JSON, tables and data URIs: base64 as the many programs write it."""

from __future__ import annotations

import binascii
from urllib.parse import unquote

URL_SAFE = bytes.maketrans(b"-_", b"+/")
WHITE_SPACE = b" \t\r\n\v\f"


def decode_base64(text: str | bytes) -> bytes:
    """The bytes of base64 or of a data URI. White space, the URL-safe alphabet and missing padding are taken.

    Raises ValueError with a sentence.
    """
    if isinstance(text, bytes):
        text = text.decode("ascii", "replace")
    if text[:64].lstrip()[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.rstrip().lower().endswith(";base64"):
            raise ValueError("a data URI must be base64: data:image/png;base64,...")
        text = unquote(text) if "%" in text else text
    try:
        digits = text.encode("ascii").translate(URL_SAFE, WHITE_SPACE).rstrip(b"=")
        return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("image is not valid base64") from None
