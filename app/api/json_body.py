"""JSON bodies: bounded while they come, then parsed.

`JsonScan` looks at each part of a body before a parser does: it counts what the parser would have to make, and how deep
it would have to go. The base64 of pictures goes to files as it comes, so that what is parsed is never longer than a
body without pictures may be.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from app.core.errors import PayloadTooLarge, Validation, map_os_errors
from app.core.strict_json import load_json

MAX_MARKS = 100_000  # brackets, commas and colons: as many as 1 MiB of vectors has, and parsed within 30 ms
MAX_DEPTH = 64
LONG = 4096  # characters of base64; those of a longer picture go to a file
PICTURE = b"image"  # the name of the fields that hold pictures
DATA_URI = re.compile(rb"\s*data:[\w.+\\/;=-]*;base64,", re.IGNORECASE)  # as JSON may write it
BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=\\"  # with the escapes of JSON
ALL_BYTES = bytes(range(256))
NOT_MARKS = bytes(set(ALL_BYTES) - set(b"[]{},:"))
NOT_BRACKETS = bytes(set(ALL_BYTES) - set(b"[]{}"))
STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}

# The files with the base64 of this request's pictures, by the text that the parsed body has in their places.
STORED_PICTURES: ContextVar[Mapping[str, Path]] = ContextVar("stored_pictures", default=MappingProxyType({}))


class JsonScan:
    """The text of a body as it comes. `make_folder` makes the folder for pictures; None where a body has none.

    Pictures are the long strings of fields called `image`, or with `anywhere` all long strings of base64 alone, but for
    those of the field `texts`.

    `feed` raises PayloadTooLarge and Validation at the first part that passes a limit.
    """

    def __init__(
        self,
        most: int,
        make_folder: Callable[[], Path] | None = None,
        *,
        anywhere: bool = False,
        texts: bytes | None = None,
    ) -> None:
        self.text = bytearray()
        self.marks = 0
        self.pictures: dict[str, Path] = {}
        self._most = most
        self._make_folder = make_folder
        self._anywhere = anywhere
        self._texts = texts
        self._folder: Path | None = None
        self._file: BinaryIO | None = None
        self._token = secrets.token_hex(16)  # no client can guess it
        self._depth = 0
        self._rest = b""  # a backslash whose other half has not come
        self._is_inside = False  # of a string
        self._start = 0  # of the present string in `text`, after its quote
        self._last = b""  # the string before it, and what came between
        self._between = b""
        self._field = b""  # that the present string is of, or the list around it

    def feed(self, part: bytes) -> None:
        """Take the next part."""
        part = self._rest + part
        cut = (len(part) - len(part.rstrip(b"\\"))) % 2
        part, self._rest = part[: len(part) - cut], part[len(part) - cut :]
        if self._file is not None and b'"' not in part:  # the middle of a picture
            with map_os_errors():
                self._file.write(part)
            return
        # Quotes that end no string are covered, so that those left are the ends of strings.
        pieces = part.replace(b"\\\\", b"__").replace(b'\\"', b"__").split(b'"')
        self._count(b"".join(pieces[self._is_inside :: 2]))
        if self._make_folder is None:
            self.text += part
            self._is_inside ^= len(pieces) % 2 == 0
        else:
            self._take_pieces(part, list(map(len, pieces)))
        if len(self.text) > self._most:
            what = "a JSON body, pictures not counted," if self._make_folder else "a JSON body"
            raise PayloadTooLarge(f"{what} may have {self._most} bytes")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def load(self) -> Any:
        """The value of the whole text. Raises Validation."""
        return load_json(self.text + self._rest)

    def _count(self, outside: bytes) -> None:
        """Count what is outside of strings."""
        marks = outside.translate(None, NOT_MARKS)
        self.marks += len(marks)
        brackets = marks[:MAX_MARKS].translate(None, b",:")
        depths = list(accumulate(map(STEPS.__getitem__, brackets), initial=self._depth))
        self._depth = depths[-1]
        if max(depths) > MAX_DEPTH:
            raise Validation(f"the body is nested too deeply: {MAX_DEPTH} levels are the limit")
        if self.marks > MAX_MARKS:
            raise PayloadTooLarge(f"a JSON body may have {MAX_MARKS} brackets, commas and colons")

    def _take_pieces(self, part: bytes, lengths: list[int]) -> None:
        """Add the pieces between quotes to the text; those of long pictures to files."""
        at = 0
        for n, length in enumerate(lengths):
            piece = part[at : at + length]
            at += length + 1
            if self._is_inside:
                self._take_string(piece)
            else:
                self._between += piece[: LONG - len(self._between)]
                self.text += piece
            if n < len(lengths) - 1:
                self._take_quote()

    def _take_string(self, piece: bytes) -> None:
        if self._file is None:
            self.text += piece
            if len(self.text) - self._start <= LONG or not self._is_picture():
                return
            piece = bytes(self.text[self._start :])
            del self.text[self._start :]
            self._open_file()
        assert self._file is not None
        with map_os_errors():
            self._file.write(piece)

    def _take_quote(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self.text += b'"'
        if self._is_inside:
            self._last = bytes(self.text[self._start : -1][: len(PICTURE) + 1])
            self._between = b""
        elif self._between.lstrip().startswith(b":"):
            self._field = self._last
        self._is_inside = not self._is_inside
        self._start = len(self.text)

    def _is_picture(self) -> bool:
        if self._anywhere:
            if self._field == self._texts:
                return False
            head = bytes(self.text[self._start : self._start + LONG])
            return DATA_URI.match(head) is not None or not head.translate(None, BASE64)
        return self._last == PICTURE and self._between.strip() == b":"

    def _open_file(self) -> None:
        """Begin the file of a picture; its name stands in the text."""
        assert self._make_folder is not None
        if self._folder is None:
            self._folder = self._make_folder()
        name = f"{self._token}-{len(self.pictures)}"
        self.pictures[name] = path = self._folder / f"{len(self.pictures)}.base64"
        with map_os_errors():
            self._file = open(path, "xb")  # noqa: SIM115 (closed at the end of the string)
        self.text += name.encode()
