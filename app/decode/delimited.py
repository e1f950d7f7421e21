"""Tables of text, row by row: CSV and TSV with a header, JSONL. Runs in a decode child.

Each row is found by where it lies in the file, so that its picture can be read later; one that is bad fails alone.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from app.core.errors import ArchiveCorrupt, Validation
from app.core.files import open_nofollow

MAX_ROW_BYTES = 48 << 20  # the largest picture in base64, and words
DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")

# Where a row lies (offset, size), and what is in it or what is wrong with it.
Row = tuple[int, int, dict[str, Any] | Validation]


class RowTooLong(Exception):
    """A row past MAX_ROW_BYTES: where it would end is not to be found out."""


def iter_rows(path: Path, suffix: str) -> Iterator[Row]:
    """Every row of a table. Raises Validation for a header that cannot be, ArchiveCorrupt for a row without end."""
    csv.field_size_limit(MAX_ROW_BYTES)
    with open(path, "rb", opener=open_nofollow) as file:
        try:
            yield from (
                _objects(file)
                if suffix in JSON_LINES
                else _records(file, read_column_names(path, suffix), DELIMITERS[suffix])
            )
        except RowTooLong:
            raise ArchiveCorrupt(f"a row has more than {MAX_ROW_BYTES:,} bytes; what comes after is not read") from None


def read_row(path: Path, suffix: str, offset: int, size: int, names: list[str]) -> Mapping[str, Any]:
    """The row that lies there. Raises Validation when it has changed."""
    csv.field_size_limit(MAX_ROW_BYTES)
    with open(path, "rb", opener=open_nofollow) as file:
        file.seek(offset)
        text = file.read(min(size, MAX_ROW_BYTES))
    if suffix in JSON_LINES:
        found = _object(text)
    else:
        found = _record(next(csv.reader(_text(text), delimiter=DELIMITERS[suffix], strict=True), []), names)
    if isinstance(found, Validation):
        raise found
    return found


def read_column_names(path: Path, suffix: str) -> list[str]:
    """The names of the columns. Raises Validation for none, and for names that are empty or come twice."""
    csv.field_size_limit(MAX_ROW_BYTES)
    with open(path, "rb", opener=open_nofollow) as file:
        lines = _Lines(file)
        try:
            names = next(csv.reader(lines, delimiter=DELIMITERS[suffix], strict=True), [])
        except (csv.Error, RowTooLong):
            raise Validation("its first line is no header") from None
    if not any(names) or "" in names or len(set(names)) < len(names) or any(map(_odd, names)):
        raise Validation("its first line is no header: names of columns, in UTF-8, each once")
    return names


class _Lines:
    """The lines of a file as text, and how many bytes they took."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.at = 0
        self.row = 0  # where the row began

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


def _records(file: BinaryIO, names: list[str], delimiter: str) -> Iterator[Row]:
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
            yield lines.row, lines.at - lines.row, _record(cells, names)


def _record(cells: list[str], names: list[str]) -> dict[str, Any] | Validation:
    if len(cells) != len(names):
        return Validation(f"the row has {len(cells)} cells, the header {len(names)}")
    if any(map(_odd, cells)):
        return Validation("the row is not UTF-8")
    return dict(zip(names, cells, strict=True))


def _objects(file: BinaryIO) -> Iterator[Row]:
    at = 0
    while line := file.readline(MAX_ROW_BYTES + 1):
        if len(line) > MAX_ROW_BYTES:
            raise RowTooLong
        if line.strip(b" \t\r\n\xef\xbb\xbf"):
            yield at, len(line), _object(line)
        at += len(line)


def _object(line: bytes) -> dict[str, Any] | Validation:
    try:
        found = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return Validation("the row is not JSON in UTF-8")
    return found if isinstance(found, dict) else Validation("the row is not a JSON object")


def _text(data: bytes) -> list[str]:
    return [line.decode("utf-8", "surrogateescape") for line in data.splitlines(keepends=True)]


def _odd(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
