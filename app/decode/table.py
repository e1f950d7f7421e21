"""Tables of pictures: list their rows, and write their pictures to files. Runs in a decode child."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from app.core.errors import ArchiveCorrupt, ImageTooLarge, SightlineError, Validation
from app.core.types import AnswerWarning
from app.decode import column_mapping, delimited
from app.decode.column_mapping import ColumnMapping, Line

PARQUET_SUFFIXES = (".parquet",)
TABLE_SUFFIXES = (*PARQUET_SUFFIXES, *delimited.DELIMITERS, *delimited.JSON_LINES)
Failure = tuple[str, str]  # code and detail
PASSES = 16  # at most, over a large row group, which can be read from its first row only
LEGACY_WARNING = AnswerWarning("encoding", "the table is not UTF-8; its other letters were read as Windows-1252")
MAX_GROUP_BYTES = 16 << 30  # a larger size in the footer is not believed


def list_table(path: Path, suffix: str, out: Path, requested: Mapping[str, str], max_lines: int) -> int:
    """Write a line for each row of a table to `out`, at most `max_lines`; returns their number.

    A line has the number of the `row`, its caption, id, tags and metadata, and the `url` or the `path` of its picture
    or the `place` and `column` of its bytes; or an `error`. Of a table of text, the metadata of a column that holds
    only numbers are numbers. Raises Validation for a table without pictures, ArchiveCorrupt for a
    file that is no table.
    """
    count = 0
    with out.open("w", encoding="ascii") as lines:
        try:
            for line in islice(_iter_lines(path, suffix.lower(), requested), max_lines):
                lines.write(json.dumps(line) + "\n")
                count += 1
        except ArchiveCorrupt as error:
            if not count:
                raise
            lines.write(json.dumps({"row": count + 1, **_error_line(error)}) + "\n")
    return count


def extract_pictures(
    path: Path, suffix: str, column: str, places: Sequence[Sequence[int]], folder: Path, max_bytes: int, window: int
) -> list[tuple[int, Failure | None]]:
    """Write the pictures of the rows at `places` to `folder`, each under its number in `places`.

    From a Parquet file, it writes a row group from the first place on until `window` bytes are written, each under
    its number in the group. Returns each number with its failure, or None. Raises ArchiveCorrupt for damage.
    """
    if suffix in PARQUET_SUFFIXES:
        return list(_extract_group(path, column, places[0], folder, max_bytes, window).items())
    layout = delimited.read_layout(path, suffix)
    done: dict[int, Failure | None] = {}
    for n, (offset, size) in enumerate(places):
        try:
            cell = delimited.read_row(path, suffix, offset, size, layout).get(column)
            done[n] = _write_picture(column_mapping.read_picture_cell(cell), folder / str(n), max_bytes)
        except SightlineError as error:
            done[n] = error.code, error.detail
    return list(done.items())


def _iter_lines(path: Path, suffix: str, requested: Mapping[str, str]) -> Iterator[Line]:
    lines = _parquet_lines(path, requested) if suffix in PARQUET_SUFFIXES else _text_lines(path, suffix, requested)
    for n, line in enumerate(lines, start=1):
        yield {"row": n, **line}


def _text_lines(path: Path, suffix: str, requested: Mapping[str, str]) -> Iterator[Line]:
    layout = delimited.read_layout(path, suffix)  # None for JSONL, where each row has its own columns
    columns = numbers = None
    if layout is not None:
        columns = column_mapping.map_columns((name for name in layout.names if name), requested)
        numbers = _find_numbers(path, suffix, layout, columns.rest)
    has_warned = False
    for offset, size, row in delimited.iter_rows(path, suffix, layout):
        try:
            if isinstance(row, Validation):
                raise row
            if layout is None or columns is None or numbers is None:
                columns = column_mapping.map_columns(
                    row, {role: name for role, name in requested.items() if not name or name in row}
                )
            else:
                row = delimited.read_numbers(row, numbers)
            line = _line(row, columns, [offset, size])
        except Validation as error:
            line = _error_line(error)
        if layout is not None and layout.legacy_rows and not has_warned:
            has_warned = True
            line["warnings"] = [asdict(LEGACY_WARNING)]
        yield line


def _find_numbers(path: Path, suffix: str, layout: delimited.Layout, names: Sequence[str]) -> dict[str, str]:
    """Which of these columns hold only numbers, by all rows of the table, with their decimal marks."""
    if not names:
        return {}
    rows = (row for _, _, row in delimited.iter_rows(path, suffix, layout) if not isinstance(row, Validation))
    numbers = delimited.find_number_columns(
        ({name: row[name] for name in names} for row in rows), layout.has_decimal_comma
    )
    layout.legacy_rows = 0
    return numbers


def _parquet_lines(path: Path, requested: Mapping[str, str]) -> Iterator[Line]:
    from app.decode.parquet import ParquetTable  # here, because it imports pyarrow, which only children need

    file = ParquetTable(path)
    try:
        columns = file.map_columns(requested)
        unread = not file.holds_text(columns.picture)
        for group, n, row in file.iter_attributes(columns):
            yield _error_line(row) if isinstance(row, Validation) else _line(row, columns, [group, n], unread)
    finally:
        file.close()


def _line(row: dict[str, Any], columns: ColumnMapping, place: list[int], unread: bool = False) -> Line:
    """The line of a row; `unread` if its picture was not read with the rest."""
    fields = column_mapping.read_attributes(row, columns)
    value = row.get(columns.picture)
    for other in (columns.url, columns.path):
        if not value and not unread and other:
            value = row.get(other)
    if column_mapping.is_url(value):
        return {"url": str(value).strip(), **fields}
    if (found := column_mapping.read_path(value)) is not None:
        return {"path": found, **fields}
    if columns.image and (unread or value):
        return {"place": place, "column": columns.image, **fields}
    what = "picture" if columns.image else "URL" if columns.url else "path of a picture"
    return _error_line(Validation(f"the row has no {what} in {columns.picture[:50]!r}"))


def _error_line(error: SightlineError) -> Line:
    return {"error": {"code": error.code, "detail": error.detail}}


def _extract_group(
    path: Path, column: str, place: Sequence[int], folder: Path, max_bytes: int, window: int
) -> dict[int, Failure | None]:
    from app.decode.parquet import ParquetTable

    group, first = place
    file = ParquetTable(path)
    done: dict[int, Failure | None] = {}
    written = 0
    try:
        window = max(window, min(file.group_bytes(group), MAX_GROUP_BYTES) // PASSES)
        for n, value in file.iter_pictures(column, group, first):
            if isinstance(value, Validation):
                done[n] = value.code, value.detail
                continue
            done[n] = _write_picture(value, folder / str(n), max_bytes)
            written += len(value)
            if written >= window:
                break
    finally:
        file.close()
    return done


def _write_picture(content: bytes, target: Path, max_bytes: int) -> Failure | None:
    if len(content) > max_bytes:
        return ImageTooLarge.code, f"the picture has more than {max_bytes:,} bytes"
    if not content:
        return Validation.code, "the row holds no picture"
    target.write_bytes(content)
    return None
