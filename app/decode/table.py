"""Tables of pictures: listed as lines, and their pictures written to files. Runs in a decode child."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from app.core.errors import ArchiveCorrupt, ImageTooLarge, SightlineError, Validation
from app.decode import column_mapping as names
from app.decode import delimited as texts
from app.decode.column_mapping import ColumnMapping, Line

PARQUET_SUFFIXES = (".parquet",)
TABLE_SUFFIXES = (*PARQUET_SUFFIXES, *texts.DELIMITERS, *texts.JSON_LINES)
Failure = tuple[str, str]  # code and detail
PASSES = 16  # over a large row group, whose rows can only be read from the first on
LARGEST = 16 << 30  # bytes of a row group that are believed


def list_table(path: Path, suffix: str, out: Path, given: Mapping[str, str], most: int) -> int:
    """Write a line for each row of a table to `out`, `most` at most; returns how many there are.

    A line has its `row`, what is said of its picture, and a `url` or, for bytes, a `place` to find them by and their
    `column`; or an `error`. Raises Validation for a table without pictures, ArchiveCorrupt for what is none.
    """
    count = 0
    with out.open("w", encoding="ascii") as lines:
        try:
            for line in islice(_lines(path, suffix.lower(), given), most):
                lines.write(json.dumps(line) + "\n")
                count += 1
        except ArchiveCorrupt as error:
            if not count:
                raise
            lines.write(json.dumps({"row": count + 1, **_failed(error)}) + "\n")
    return count


def extract_pictures(
    path: Path, suffix: str, column: str, places: Sequence[Sequence[int]], folder: Path, most_bytes: int, window: int
) -> dict[int, Failure | None]:
    """Write the pictures of rows to `folder`, each by its number in `places`; returns what became of each.

    Of a row group, what stands from the first place on is written until `window` bytes are, each picture by its number
    in the group. Raises ArchiveCorrupt for what is damaged.
    """
    if suffix in PARQUET_SUFFIXES:
        return _take_group(path, column, places[0], folder, most_bytes, window)
    header = [] if suffix in texts.JSON_LINES else texts.read_column_names(path, suffix)
    done: dict[int, Failure | None] = {}
    for n, (offset, size) in enumerate(places):
        try:
            done[n] = _write(
                names.read_picture_cell(texts.read_row(path, suffix, offset, size, header).get(column)),
                folder / str(n),
                most_bytes,
            )
        except SightlineError as error:
            done[n] = error.code, error.detail
    return done


def _lines(path: Path, suffix: str, given: Mapping[str, str]) -> Iterator[Line]:
    found = _parquet_lines(path, given) if suffix in PARQUET_SUFFIXES else _text_lines(path, suffix, given)
    for n, line in enumerate(found, start=1):
        yield {"row": n, **line}


def _text_lines(path: Path, suffix: str, given: Mapping[str, str]) -> Iterator[Line]:
    free = suffix in texts.JSON_LINES  # each row has columns of its own
    columns = None if free else names.map_columns(texts.read_column_names(path, suffix), given)
    for offset, size, row in texts.iter_rows(path, suffix):
        try:
            if isinstance(row, Validation):
                raise row
            if columns is None or free:
                columns = names.map_columns(row, {role: name for role, name in given.items() if name in row})
            yield _line(row, columns, [offset, size])
        except Validation as error:
            yield _failed(error)


def _parquet_lines(path: Path, given: Mapping[str, str]) -> Iterator[Line]:
    from app.decode.parquet import ParquetTable  # loads pyarrow, which only children do

    file = ParquetTable(path)
    try:
        columns = file.columns(given)
        hidden = not file.holds_text(columns.picture)
        for group, n, row in file.said(columns):
            yield _failed(row) if isinstance(row, Validation) else _line(row, columns, [group, n], hidden)
    finally:
        file.close()


def _line(row: dict[str, Any], columns: ColumnMapping, place: list[int], hidden: bool = False) -> Line:
    """The line of a row; its picture is `hidden` when it was not read with the rest."""
    said = names.read_attributes(row, columns)
    value = row.get(columns.picture)
    if not value and not hidden and columns.url:
        value = row.get(columns.url)
    if names.is_url(value):
        return {"url": str(value).strip(), **said}
    if columns.image and (hidden or value):
        return {"place": place, "column": columns.image, **said}
    return _failed(Validation(f"the row has no {'picture' if columns.image else 'URL'} in {columns.picture[:50]!r}"))


def _failed(error: SightlineError) -> Line:
    return {"error": {"code": error.code, "detail": error.detail}}


def _take_group(
    path: Path, column: str, place: Sequence[int], folder: Path, most_bytes: int, window: int
) -> dict[int, Failure | None]:
    from app.decode.parquet import ParquetTable

    group, first = place
    file = ParquetTable(path)
    done: dict[int, Failure | None] = {}
    written = 0
    try:
        window = max(window, min(file.size(group), LARGEST) // PASSES)
        for n, value in file.pictures(column, group, first):
            if isinstance(value, Validation):
                done[n] = value.code, value.detail
                continue
            done[n] = _write(value, folder / str(n), most_bytes)
            written += len(value)
            if written >= window:
                break
    finally:
        file.close()
    return done


def _write(content: bytes, target: Path, most: int) -> Failure | None:
    if len(content) > most:
        error: SightlineError = ImageTooLarge(f"a picture may have {most} bytes")
        return error.code, error.detail
    if not content:
        error = Validation("the row holds no picture")
        return error.code, error.detail
    target.write_bytes(content)
    return None
