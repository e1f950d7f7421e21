"""Tables of pictures on this machine: URLs, or bytes in their rows, in Parquet, CSV, TSV and JSONL.

Tables are listed by decode children without their pictures. Those in the rows come later, a part at a time: of a
Parquet row group as much as a window holds, because its rows can only be read one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.core.errors import Rejected, UnsupportedMediaType, UrlUnreachable, Validation, map_os_errors
from app.core.types import SourceSpec
from app.decode.column_mapping import ROLES
from app.decode.table import PARQUET_SUFFIXES, TABLE_SUFFIXES, Failure, extract_pictures, list_table
from app.sources import glob
from app.sources.base import (
    ShouldStop,
    Source,
    SourceItem,
    SourcePolicy,
    limit_items,
    path_in_job,
    raise_if_stopping,
    with_error,
)
from app.sources.changed import skip_unchanged
from app.sources.local_files import file_tag, path_to_text, tag_from_stat
from app.sources.urls import UrlSource
from app.sources.webdataset import FILE_CHANGED
from app.storage.blobs import remove_path

WINDOW = "window"
WINDOW_BYTES = 64 << 20


class TableSource(Source):
    """Lines with a `url`, or with the `table`, its `at` (time and size), `place` and `column` of a picture in it."""

    FORM = "table:PATH"
    TAKES = frozenset({"columns"})

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._group: tuple[str, int] | None = None  # whose pictures lie in the window
        self._window: dict[int, Failure | None] = {}

    @classmethod
    def checked(cls, asked: SourceSpec, allowed: SourcePolicy) -> SourceSpec:
        """The place with its folder without links."""
        if wrong := sorted(asked.options.get("columns", {}).keys() - ROLES):
            raise Validation(f"columns: there is no {wrong[0]!r}, only {', '.join(sorted(ROLES))}")
        return SourceSpec(asked.kind, glob.resolve_pattern(asked.place, allowed.roots), asked.options)

    def scan(self, folder: Path, collection: str, stopping: ShouldStop) -> Iterator[SourceItem]:
        """The rows of every table, but those whose pictures were taken from it before; bad rows are lines, too."""
        lines = limit_items(self._listed(folder, stopping), self.tools.allowed.most_items)
        return skip_unchanged(self.tools.database, collection, lines, stopping)

    def _listed(self, folder: Path, stopping: ShouldStop) -> Iterator[SourceItem]:
        allowed, columns = self.tools.allowed, self.asked.options.get("columns", {})
        out = folder / "listed"
        for path in glob.match_files(self.asked.place, allowed.roots, TABLE_SUFFIXES):
            raise_if_stopping(stopping)
            name = path_to_text(Path(path.name))
            try:
                if path.suffix.lower() not in TABLE_SUFFIXES:
                    raise UnsupportedMediaType(f"a table is one of {', '.join(TABLE_SUFFIXES)}")
                table = allowed.roots.file(str(path))
                at = tag_from_stat(table.stat())
                self.tools.read(stopping, list_table, table, path.suffix, out, columns, allowed.most_items + 1)
            except (Rejected, Validation) as error:
                yield with_error({"name": name}, error)
                continue
            with map_os_errors(), open(out, encoding="ascii") as lines:
                for text in lines:
                    yield parse_row(json.loads(text), name, str(table), path.suffix, at)
        out.unlink(missing_ok=True)

    def bring(self, target: Path, lines: Sequence[SourceItem], stopping: ShouldStop) -> list[SourceItem]:
        """Fetch the URLs, and write the pictures of the rows."""
        came: dict[int, SourceItem] = {}
        urls = {n: line for n, line in enumerate(lines) if "url" in line}
        if urls:
            fetched = UrlSource(self.asked, self.tools).bring(target, list(urls.values()), stopping)
            came.update(zip(urls, fetched, strict=True))
        for n, line in enumerate(lines):
            if n not in urls:
                came[n] = self._taken(line, target / f"row-{n}", stopping)
        return [came[n] for n in range(len(lines))]

    def _taken(self, line: SourceItem, target: Path, stopping: ShouldStop) -> SourceItem:
        try:
            path = self.tools.allowed.roots.file(line["table"])  # once more: a link may have come between
            if str(path) != line["table"] or file_tag(path) != line["at"]:
                raise UrlUnreachable(FILE_CHANGED)
            failure = self._row(line, target, stopping)
        except (Rejected, Validation) as error:
            return with_error(line, error)
        if failure is not None:
            return {**line, "error": {"code": failure[0], "detail": failure[1]}}
        return {**line, "file": path_in_job(target)}

    def _row(self, line: SourceItem, target: Path, stopping: ShouldStop) -> Failure | None:
        """Write the picture of one row to `target`; why not, if it cannot be."""
        window = target.parent.with_name(WINDOW)
        group, row = line["place"]
        if line["suffix"] not in PARQUET_SUFFIXES:
            row = 0
            self._open(line, window, [line["place"]], stopping)
        elif self._group != (line["table"], group) or row not in self._window:
            self._open(line, window, [line["place"]], stopping)
            self._group = line["table"], group
        if row not in self._window:
            raise UrlUnreachable("the table has fewer rows than it says")
        failure = self._window.pop(row)
        if failure is None:
            with map_os_errors():
                (window / str(row)).rename(target)
        return failure

    def _open(self, line: SourceItem, window: Path, places: list[list[int]], stopping: ShouldStop) -> None:
        """Have a child write what comes from a place on."""
        remove_path(window)
        with map_os_errors():
            window.mkdir()
        self._group, self._window = None, {}
        most = self.tools.allowed.most_bytes
        arguments = (Path(line["table"]), line["suffix"], line["column"], places, window, most, WINDOW_BYTES)
        self._window = self.tools.read(stopping, extract_pictures, *arguments)


def parse_row(line: SourceItem, name: str, table: str, suffix: str, at: str) -> SourceItem:
    """A line of the manifest, of one that a child has listed."""
    row = line.pop("row")
    if "error" in line:
        return {"name": f"{name}:{row}", **line}
    if "url" in line:
        return {"name": line["url"], **line}
    where = {"table": table, "suffix": suffix.lower(), "at": at, "tag": at, "origin": f"file:{table}#{row}"}
    return {"name": f"{name}:{row}", **line, **where}
