"""Read tables of text row by row: CSV and TSV with a header, JSONL. Runs in a decode child.

Each row comes with its offset in the file, so that its picture can be read later. A bad row fails alone. Tables come
from many programs: the header says what separates the cells (`,` `;` tab `|`), cells that are not UTF-8 are read as
Windows-1252, and cells without a name in the header are ignored.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

from app.core.errors import ArchiveCorrupt, Validation
from app.core.files import open_nofollow
from app.decode.sidecars import LEGACY_ENCODING

MAX_ROW_BYTES = 48 << 20  # the largest picture in base64, and some text
DELIMITERS = {".csv": ",", ".tsv": "\t"}
OTHER_DELIMITERS = (",", ";", "\t", "|")
JSON_LINES = (".jsonl", ".ndjson")
BOM = b"\xef\xbb\xbf"
_SEP_LINE = re.compile(rb"\A(?:\xef\xbb\xbf)?\"?sep=(.)\"?[\r\n]+\Z", re.IGNORECASE)  # which Excel reads and writes
_JSON_LIST = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*\[\s*\{")
NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,30})?(?:[eE][+-]?\d{1,2})?")  # leading zeros are no number

SWAP_MARKS = str.maketrans(".,", ",.")

# Offset and size of a row, and its values or what is wrong with it.
Row = tuple[int, int, dict[str, Any] | Validation]


class RowTooLong(Exception):
    """A row has more than MAX_ROW_BYTES; nobody looks for its end."""


@dataclass(slots=True)
class Layout:
    """What the beginning of a table says of its rows. `names` are those of the cells; '' for one that is ignored."""

    names: list[str]
    delimiter: str
    start: int  # offset of the first row
    legacy_rows: int = 0  # rows so far that were not UTF-8

    @property
    def has_decimal_comma(self) -> bool:
        """Whether numbers may have a comma, as where spreadsheets separate cells by `;`."""
        return self.delimiter == ";"

    def parse(self, cells: list[str]) -> dict[str, Any] | Validation:
        """The values of a row by their names. Cells past the header must be empty; cells at its end may be missing."""
        if any(map(_is_not_utf8, cells)):
            try:
                cells = [_decode_legacy(cell) for cell in cells]
            except UnicodeDecodeError:
                return Validation("the row is neither UTF-8 nor Windows-1252")
            self.legacy_rows += 1
        count = len(self.names)
        if any(cell.strip() for cell in cells[count:]):
            return Validation(f"the row has {len(cells)} cells, the header {count}")
        return {name: cell for name, cell in zip_longest(self.names, cells[:count], fillvalue="") if name}


def iter_rows(path: Path, suffix: str, layout: Layout | None = None) -> Iterator[Row]:
    """Every row of a table; of CSV and TSV with its `layout`. Raises ArchiveCorrupt for a row that is too long."""
    csv.field_size_limit(MAX_ROW_BYTES)
    with open(path, "rb", opener=open_nofollow) as file:
        try:
            yield from _iter_json_rows(file) if layout is None else _iter_delimited_rows(file, layout)
        except RowTooLong:
            raise ArchiveCorrupt(f"a row has more than {MAX_ROW_BYTES:,} bytes; the rest is not read") from None


def read_row(path: Path, suffix: str, offset: int, size: int, layout: Layout | None) -> Mapping[str, Any]:
    """The row at this place. Raises Validation if it has changed."""
    csv.field_size_limit(MAX_ROW_BYTES)
    with open(path, "rb", opener=open_nofollow) as file:
        file.seek(offset)
        text = file.read(min(size, MAX_ROW_BYTES))
    if layout is None:
        row = _parse_object(text)
    else:
        try:
            row = layout.parse(next(csv.reader(_decode_lines(text), delimiter=layout.delimiter, strict=True), []))
        except csv.Error as error:
            row = Validation(f"the row cannot be read: {error}")
    if isinstance(row, Validation):
        raise row
    return row


def read_layout(path: Path, suffix: str) -> Layout | None:
    """The layout of a table; None for JSONL. Raises Validation for no header, for a name twice, and for UTF-16."""
    with open(path, "rb", opener=open_nofollow) as file:
        return _read_layout(file, suffix)


def parse_table(data: bytes, suffix: str) -> list[dict[str, Any] | Validation]:
    """All rows of a small table, the columns of numbers as numbers. Raises Validation as `read_layout` does."""
    layout = _read_layout(io.BytesIO(data), suffix)
    rows = _iter_json_rows(io.BytesIO(data)) if layout is None else _iter_delimited_rows(io.BytesIO(data), layout)
    try:
        found = [row for _, _, row in rows]
    except RowTooLong:
        raise Validation("a row is too long") from None
    if layout is None:
        return found
    numbers = find_number_columns((row for row in found if isinstance(row, dict)), layout.has_decimal_comma)
    return [row if isinstance(row, Validation) else read_numbers(row, numbers) for row in found]


def find_number_columns(rows: Iterator[Mapping[str, Any]], decimal_comma: bool = False) -> dict[str, str]:
    """The columns of a table of text that hold only numbers, and at least one, each with its decimal mark.

    `decimal_comma`: the mark may be a comma, all through a column.
    """
    marks: dict[str, set[str]] = {}
    for row in rows:
        for name, cell in row.items():
            if text := cell.strip():
                fits = {mark for mark in (".,"[: 1 + decimal_comma]) if _is_number(text, mark)}
                marks[name] = marks.get(name, fits) & fits
    return {name: "." if "." in fits else "," for name, fits in marks.items() if fits}


def read_numbers(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row with the cells of these columns, by their decimal marks, as numbers."""
    return {name: _to_number(cell, columns[name]) if name in columns else cell for name, cell in row.items()}


def _is_number(text: str, mark: str) -> bool:
    return NUMBER.fullmatch(text if mark == "." else text.translate(SWAP_MARKS)) is not None


def _to_number(text: str, mark: str) -> int | float | str:
    text = text.strip() if mark == "." else text.strip().replace(",", ".")
    if not text:
        return ""
    return int(text) if text.lstrip("-").isdigit() else float(text)


def _read_layout(file: BinaryIO, suffix: str) -> Layout | None:
    csv.field_size_limit(MAX_ROW_BYTES)
    head = file.read(64)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head[:4]:
        raise Validation("it is UTF-16; save it as UTF-8 (in Excel: CSV UTF-8)")
    if suffix in JSON_LINES:
        if _JSON_LIST.match(head):
            raise Validation("it is one JSON list; write one object on each line, as `jq -c '.[]'` does")
        return None
    file.seek(0)
    first = file.readline(MAX_ROW_BYTES)
    said = _SEP_LINE.match(first)
    if said is None:
        file.seek(0)
    position, line = file.tell(), file.readline(MAX_ROW_BYTES)
    while line and not line.strip():  # empty lines come before the header
        position, line = file.tell(), file.readline(MAX_ROW_BYTES)
    file.seek(position)
    lines = _Lines(file, position)
    header = line.removeprefix(BOM).decode("utf-8", "surrogateescape")
    delimiter = said[1].decode("latin-1") if said else _find_delimiter(header, DELIMITERS[suffix])
    try:
        cells = next(csv.reader(lines, delimiter=delimiter, strict=True), [])
        names = [(_decode_legacy(cell) if _is_not_utf8(cell) else cell).strip() for cell in cells]
    except (csv.Error, RowTooLong, UnicodeDecodeError, TypeError):
        raise Validation("its first line is no header") from None
    while names and not names[-1]:
        names.pop()
    if not names:
        raise Validation("its first line is no header: the names of its columns")
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise Validation(f"its header has the column {twice[0][:50]!r} more than once")
    return Layout(names, delimiter, lines.at)


def _find_delimiter(header: str, usual: str) -> str:
    """What separates the cells of a header: what makes the most of them, by default the usual one."""

    def count_cells(delimiter: str) -> tuple[int, bool]:
        try:
            return len(next(csv.reader([header], delimiter=delimiter), [])), delimiter == usual
        except csv.Error:
            return 0, False

    return max(OTHER_DELIMITERS, key=count_cells)


class _Lines:
    """The lines of a file as text; `at` is the offset after the last one."""

    def __init__(self, file: BinaryIO, start: int = 0) -> None:
        self._file = file
        self.at = start
        self.row = start  # offset of the current row

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
            line = line.removeprefix(BOM)
        return line.decode("utf-8", "surrogateescape")


def _iter_delimited_rows(file: BinaryIO, layout: Layout) -> Iterator[Row]:
    file.seek(layout.start)
    lines = _Lines(file, layout.start)
    reader = csv.reader(lines, delimiter=layout.delimiter, strict=True)
    while True:
        lines.row = lines.at
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield lines.row, lines.at - lines.row, Validation(f"the row cannot be read: {error}")
            continue
        if any(cells):
            yield lines.row, lines.at - lines.row, layout.parse(cells)


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


def _is_not_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _decode_legacy(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode(LEGACY_ENCODING)
