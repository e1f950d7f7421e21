"""Read tables of text row by row: CSV and TSV with a header, JSONL. Runs in a decode child.

Each row comes with its offset in the file, so that its picture can be read later. A bad row fails alone.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from app.core.errors import ArchiveCorrupt, Validation
from app.core.files import open_nofollow

MAX_ROW_BYTES = 48 << 20  # the largest picture in base64, and some text
DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")

# Offset and size of a row, and its values or what is wrong with it.
Row = tuple[int, int, dict[str, Any] | Validation]


class RowTooLong(Exception):
    """A row has more than MAX_ROW_BYTES; nobody looks for its end."""


def iter_rows(path: Path, suffix: str) -> Iterator[Row]:
    """Every row of a table. Raises Validation for a bad header, ArchiveCorrupt for a row that is too long."""
    csv.field_size_limit(MAX_ROW_BYTES)
    with open(path, "rb", opener=open_nofollow) as file:
        try:
            yield from (
                _iter_json_rows(file)
                if suffix in JSON_LINES
                else _iter_delimited_rows(file, read_column_names(path, suffix), DELIMITERS[suffix])
            )
        except RowTooLong:
            raise ArchiveCorrupt(f"a row has more than {MAX_ROW_BYTES:,} bytes; the rest is not read") from None


def read_row(path: Path, suffix: str, offset: int, size: int, names: list[str]) -> Mapping[str, Any]:
    """The row at this place. Raises Validation if it has changed."""
    csv.field_size_limit(MAX_ROW_BYTES)
    with open(path, "rb", opener=open_nofollow) as file:
        file.seek(offset)
        text = file.read(min(size, MAX_ROW_BYTES))
    if suffix in JSON_LINES:
        row = _parse_object(text)
    else:
        row = _parse_cells(next(csv.reader(_decode_lines(text), delimiter=DELIMITERS[suffix], strict=True), []), names)
    if isinstance(row, Validation):
        raise row
    return row


def read_column_names(path: Path, suffix: str) -> list[str]:
    """The header of a table. Raises Validation for none, and for names that are empty or occur twice."""
    csv.field_size_limit(MAX_ROW_BYTES)
    with open(path, "rb", opener=open_nofollow) as file:
        lines = _Lines(file)
        try:
            names = next(csv.reader(lines, delimiter=DELIMITERS[suffix], strict=True), [])
        except (csv.Error, RowTooLong):
            raise Validation("its first line is no header") from None
    if not any(names) or "" in names or len(set(names)) < len(names) or not all(map(_is_utf8, names)):
        raise Validation("its first line is no header: names of columns, in UTF-8, each once")
    return names


class _Lines:
    """The lines of a file as text; `at` is the offset after the last one."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.at = 0
        self.row = 0  # offset of the current row

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_ROW_BYTES + 1)
        if not line:
            raise StopIteration
        self.at += len(line)
        if self.at - self.row > MAX_ROW_BYTES:
            raise RowTooLong
        if self.at == len(line):
            line = line.removeprefix(b"\xef\xbb\xbf")
        return line.decode("utf-8", "surrogateescape")


def _iter_delimited_rows(file: BinaryIO, names: list[str], delimiter: str) -> Iterator[Row]:
    lines = _Lines(file)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    next(reader, None)
    while True:
        lines.row = lines.at
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield lines.row, lines.at - lines.row, Validation(f"the row cannot be read: {error}")
            continue
        if cells:
            yield lines.row, lines.at - lines.row, _parse_cells(cells, names)


def _parse_cells(cells: list[str], names: list[str]) -> dict[str, Any] | Validation:
    if len(cells) != len(names):
        return Validation(f"the row has {len(cells)} cells, the header {len(names)}")
    if not all(map(_is_utf8, cells)):
        return Validation("the row is not UTF-8")
    return dict(zip(names, cells, strict=True))


def _iter_json_rows(file: BinaryIO) -> Iterator[Row]:
    at = 0
    while line := file.readline(MAX_ROW_BYTES + 1):
        if len(line) > MAX_ROW_BYTES:
            raise RowTooLong
        if line.strip(b" \t\r\n\xef\xbb\xbf"):
            yield at, len(line), _parse_object(line)
        at += len(line)


def _parse_object(line: bytes) -> dict[str, Any] | Validation:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return Validation("the row is not JSON in UTF-8")
    return row if isinstance(row, dict) else Validation("the row is not a JSON object")


def _decode_lines(data: bytes) -> list[str]:
    return [line.decode("utf-8", "surrogateescape") for line in data.splitlines(keepends=True)]


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
