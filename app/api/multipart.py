"""Multipart bodies, streamed: each file goes straight to an incoming folder, never to memory.

Starlette's own form parser keeps files up to 1 MiB in memory and writes larger ones to a second temporary folder: too
much memory and too much copying for a bulk of ten thousand pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import anyio.to_thread
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.core.errors import BadRequest, PayloadTooLarge, UnsupportedMediaType, Validation, map_os_errors

MAX_FIELDS = 2_000
MAX_FIELD_BYTES = 1 << 20
MAX_TEXT_BYTES = 8 << 20  # of all fields together: they are kept in memory


@dataclass(frozen=True, slots=True)
class FormFile:
    """One received file: the field it was sent as, the sender's name for it, where it lies."""

    field: str
    filename: str
    path: Path
    bytes: int


@dataclass(slots=True)
class Form:
    """A received form: text fields in order of arrival, and files."""

    fields: list[tuple[str, str]] = field(default_factory=list)
    files: list[FormFile] = field(default_factory=list)

    def one(self, name: str) -> str | None:
        """The only value of a field, or None. Raises Validation when it was sent twice."""
        values = self.all(name)
        if len(values) > 1:
            raise Validation(f"{name} was sent {len(values)} times, expected once")
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        """Every value of a field."""
        return [value for key, value in self.fields if key == name]

    def file(self, name: str = "file") -> FormFile:
        """The only file of a field. Raises Validation unless there is exactly one."""
        found = [file for file in self.files if file.field == name]
        if len(found) != 1:
            raise Validation(f"expected one file in the field {name!r}, got {len(found)}")
        return found[0]


async def receive_form(request: Request, folder: Path, max_files: int) -> Form:
    """Read a multipart request; its files are written to `folder` as they arrive.

    Raises UnsupportedMediaType for other bodies, BadRequest for broken ones, PayloadTooLarge past the
    limits, StorageFull when the disk is.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise UnsupportedMediaType("expected a multipart/form-data body with a boundary")
    reader = _Reader(folder, max_files)
    try:
        parser = MultipartParser(boundary, reader.callbacks())  # type: ignore[arg-type]
        async for chunk in request.stream():
            parser.write(chunk)
            if reader.pending:
                await anyio.to_thread.run_sync(reader.flush)
        parser.finalize()
        await anyio.to_thread.run_sync(reader.flush)
    except FormParserError as error:
        raise BadRequest(f"the multipart body is broken: {error}") from error
    finally:
        reader.close()
    if not reader.ended:
        raise BadRequest("the multipart body ends before its closing boundary")
    return reader.form


class _Reader:
    """Collects what the parser calls back; `flush` does the writing, off the event loop."""

    def __init__(self, folder: Path, max_files: int) -> None:
        self.form = Form()
        self.pending: list[tuple[BinaryIO, bytes]] = []  # what is to be written; no bytes close the file
        self.ended = False
        self._folder = folder
        self._max_files = max_files
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        self._field = ""
        self._filename = ""
        self._data = bytearray()
        self._file: BinaryIO | None = None
        self._count = 0
        self._size = 0
        self._text_size = 0

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def flush(self) -> None:
        """Write what has arrived."""
        with map_os_errors():
            for file, data in self._take_pending():
                if data:
                    file.write(data)
                else:
                    file.close()

    def close(self) -> None:
        for file, _ in self._take_pending():
            file.close()
        if self._file is not None:
            self._file.close()

    def _take_pending(self) -> list[tuple[BinaryIO, bytes]]:
        taken, self.pending = self.pending, []
        return taken

    def _begin(self) -> None:
        self._headers = {}
        self._data = bytearray()
        self._filename = ""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"name" not in options:
            raise BadRequest("a part of the multipart body has no name")
        self._field = _decode_text(options[b"name"])
        if b"filename" not in options:
            if len(self.form.fields) >= MAX_FIELDS:
                raise PayloadTooLarge(f"a form may have {MAX_FIELDS} fields")
            return
        self._filename = _decode_text(options[b"filename"])
        self._count += 1
        if self._count > self._max_files:
            raise PayloadTooLarge(f"a request may have {self._max_files} files")
        self._size = 0
        with map_os_errors():
            self._file = open(self._folder / f"{self._count:06d}", "xb")  # noqa: SIM115 (closed at its end)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self.pending.append((self._file, data[start:end]))
            self._size += end - start
            return
        self._data += data[start:end]
        self._text_size += end - start
        if len(self._data) > MAX_FIELD_BYTES or self._text_size > MAX_TEXT_BYTES:
            raise PayloadTooLarge("the text fields of the form are too long")

    def _part_end(self) -> None:
        if self._file is None:
            self.form.fields.append((self._field, _decode_text(bytes(self._data))))
            return
        path = Path(self._file.name)
        self.form.files.append(FormFile(self._field, self._filename, path, self._size))
        self.pending.append((self._file, b""))
        self._file = None

    def _end(self) -> None:
        self.ended = True


def _decode_text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest("the form holds text that is not UTF-8") from None
