"""Tables of this machine in parcels that can be sent: lists of URLs, archives of pictures with what is said of them."""

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

from app.decode.column_mapping import Line
from app.decode.limits import PictureLimits
from app.decode.metadata_jsonl import METADATA_FILE
from app.decode.table import PARQUET_SUFFIXES, TABLE_SUFFIXES, extract_pictures, list_table

MAX_ROWS = 1_000_000
URLS, PICTURES = 10_000, 200  # rows of a parcel
WINDOW_BYTES = 64 << 20
ITEM_FIELDS = ("id", "caption", "tags", "metadata")
ROW_MISSING = ("archive_corrupt", "the table has fewer rows than it says")


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Some rows of one sort: `url`, `place` (pictures in the rows), or `error` (nothing to send)."""

    sort: str
    lines: Sequence[Line]


class TableUpload:
    """The rows of a table, listed in a file of `folder`."""

    def __init__(self, table: Path, folder: Path, columns: Mapping[str, str]) -> None:
        self._table = table
        self._suffix = table.suffix.lower()
        self._folder = folder
        self._list = folder / "rows.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self.count = list_table(table, self._suffix, self._list, columns, MAX_ROWS)

    def __iter__(self) -> Iterator[RowBatch]:
        with open(self._list, encoding="ascii") as file:
            for sort, lines in groupby((json.loads(line) for line in file), row_kind):
                while part := list(islice(lines, PICTURES if sort == "place" else URLS)):
                    yield RowBatch(sort, part)

    def name(self, line: Line) -> str:
        """What a row is called in a report."""
        return f"{self._table.name}:{line['row']}"

    @contextmanager
    def archive(self, parcel: RowBatch) -> Iterator[tuple[Path | None, list[dict[str, Any]]]]:
        """A zip of the pictures of a parcel (None: there are none), and the rows without one, as failed items."""
        with tempfile.TemporaryDirectory(dir=self._folder) as made:
            path = Path(made, f"{self._table.name}.zip")
            failed: list[dict[str, Any]] = []
            said: list[dict[str, Any]] = []
            with zipfile.ZipFile(path, "w") as archive:
                for line, picture, failure in self._pictures(parcel.lines, Path(made)):
                    name = self.name(line)
                    if failure is not None:
                        failed.append({"name": name, "error": {"code": failure[0], "detail": failure[1]}})
                        continue
                    archive.write(picture, name)
                    picture.unlink()
                    said.append({"file": name, **{word: line[word] for word in ITEM_FIELDS if word in line}})
                archive.writestr(METADATA_FILE, "".join(json.dumps(one) + "\n" for one in said))
            yield (path if said else None), failed

    def _pictures(self, lines: Sequence[Line], folder: Path) -> Iterator[tuple[Line, Path, tuple[str, str] | None]]:
        """Each row with the file of its picture, or with why there is none."""
        most = PictureLimits().max_bytes
        group: int | None = None
        done: dict[int, tuple[str, str] | None] = {}
        for line in lines:
            place = line["place"]
            row = place[1] if self._suffix in PARQUET_SUFFIXES else 0
            if self._suffix not in PARQUET_SUFFIXES or place[0] != group or row not in done:
                done = extract_pictures(self._table, self._suffix, line["column"], [place], folder, most, WINDOW_BYTES)
                group = place[0]
            yield line, folder / str(row), done.get(row, ROW_MISSING)


def row_kind(line: Line) -> str:
    """What a row holds."""
    return next(sort for sort in ("error", "url", "place") if sort in line)


def is_table(path: Path) -> bool:
    """Whether a file is called like a table."""
    return path.suffix.lower() in TABLE_SUFFIXES and path.is_file()
