"""Uploads the rows of a table on this machine: lists of URLs, and archives of pictures with their attributes."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from app.cli.local_files import is_folder, is_missing
from app.core.errors import UnsupportedMediaType, Validation
from app.decode import delimited
from app.decode.column_mapping import USUAL_NAMES, Line, is_url
from app.decode.headers import detect_format
from app.decode.limits import PictureLimits
from app.decode.metadata_files import METADATA_FILE
from app.decode.table import PARQUET_SUFFIXES, TABLE_SUFFIXES, Failure, extract_pictures, list_table

MAX_ROWS = 1_000_000
MAX_URLS, MAX_PICTURES = 10_000, 200  # rows of a batch
WINDOW_BYTES = 64 << 20
ITEM_FIELDS = ("id", "caption", "tags", "metadata")
OTHER_SUFFIXES = {".txt": ".csv", ".json": ".jsonl"}  # of files that may be tables, and what these are read as
ROW_MISSING = ("archive_corrupt", "the table has fewer rows than it says")


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Some rows of one kind: with a `url`, a `path`, the `place` of a picture in the row, or an `error`."""

    kind: str
    lines: Sequence[Line]


class TableUpload:
    """The rows of a table, in batches that one request can carry; it lists them in a file of `folder`."""

    def __init__(self, table: Path, folder: Path, columns: Mapping[str, str]) -> None:
        self.folder = table.parent  # where its paths begin
        self.label = table.name
        self._table = table.resolve()  # the reader follows no link
        self._suffix = OTHER_SUFFIXES.get(table.suffix.lower(), table.suffix.lower())
        self._work = folder
        self._list = folder / "rows.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self.count = list_table(self._table, self._suffix, self._list, columns, MAX_ROWS)

    def __iter__(self) -> Iterator[RowBatch]:
        with open(self._list, encoding="ascii") as file:
            for kind, lines in groupby((json.loads(line) for line in file), row_kind):
                while batch := list(islice(lines, MAX_PICTURES if kind in ("place", "path") else MAX_URLS)):
                    yield RowBatch(kind, batch)

    def name(self, line: Line) -> str:
        """The name of a row in a report."""
        return f"{self.label}:{line['row']}"

    @contextmanager
    def make_archive(self, batch: RowBatch) -> Iterator[tuple[Path | None, list[dict[str, Any]]]]:
        """A zip of the pictures of a batch (None if there are none), and the rows without one, as failed items."""
        with tempfile.TemporaryDirectory(dir=self._work) as temporary:
            path = Path(temporary, f"{self.label}.zip")
            failed: list[dict[str, Any]] = []
            metadata: list[dict[str, Any]] = []
            with zipfile.ZipFile(path, "w") as archive:
                for line, picture, failure in self._extract(batch.lines, Path(temporary)):
                    name = self.name(line)
                    if failure is None:
                        failure = find_fault(picture)
                    if failure is not None:
                        failed.append({"name": name, "error": {"code": failure[0], "detail": failure[1]}})
                        continue
                    archive.write(picture, name)
                    picture.unlink()
                    metadata.append({"file": name, **{field: line[field] for field in ITEM_FIELDS if field in line}})
                archive.writestr(METADATA_FILE, "".join(json.dumps(entry) + "\n" for entry in metadata))
            yield (path if metadata else None), failed

    def _extract(self, lines: Sequence[Line], folder: Path) -> Iterator[tuple[Line, Path, Failure | None]]:
        """Each row with the file of its picture, or with the reason why there is none."""
        max_bytes = PictureLimits().max_bytes
        group: int | None = None
        extracted: dict[int, Failure | None] = {}
        for line in lines:
            place = line["place"]
            row = place[1] if self._suffix in PARQUET_SUFFIXES else 0
            if self._suffix not in PARQUET_SUFFIXES or place[0] != group or row not in extracted:
                extracted = extract_pictures(
                    self._table, self._suffix, line["column"], [place], folder, max_bytes, WINDOW_BYTES
                )
                group = place[0]
            yield line, folder / str(row), extracted.get(row, ROW_MISSING)


def find_fault(picture: Path) -> Failure | None:
    """Why what came out of a row is no picture; in an archive it would only be counted as left out."""
    try:
        with open(picture, "rb") as file:
            detect_format(file.read(64))
    except UnsupportedMediaType as error:
        return error.code, error.detail
    return None


def row_kind(line: Line) -> str:
    return next(kind for kind in ("error", "url", "path", "place") if kind in line)


def is_table(path: Path) -> bool:
    """Whether this is a file with the suffix of a table, or a `.txt` or `.json` that begins like one."""
    if is_folder(path) or is_missing(path):
        return False
    return path.suffix.lower() in TABLE_SUFFIXES or _begins_like_table(path)


def _begins_like_table(path: Path) -> bool:
    """Whether a header names a column of pictures, or holds a URL as a list of URLs does; or a JSON list begins."""
    suffix = OTHER_SUFFIXES.get(path.suffix.lower())
    if suffix is None or not path.is_file():
        return False
    try:
        layout = delimited.read_layout(path.resolve(), suffix)
    except OSError:
        return False
    except Validation:
        return suffix == ".jsonl"
    names = layout.names if layout else []
    usual = {name for role in ("image", "url", "path") for name in USUAL_NAMES[role]}
    return any(name.casefold() in usual or is_url(name) for name in names)
