"""Tables of pictures on this machine: URLs, or bytes in their rows, in Parquet, CSV, TSV and JSONL.

Tables are listed by decode children without their pictures. Those in the rows come later, a part at a time: of a
Parquet row group as much as a window holds, because its rows can only be read one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.core.errors import Rejected, UnsupportedMediaType, UrlUnreachable, Validation, translated
from app.core.types import Asked
from app.decode.column_mapping import ROLES
from app.decode.table import PARQUET, SUFFIXES, Failure, list_table, take_rows
from app.sources import glob
from app.sources.base import Allowed, Kind, Line, Stopping, capped, failed, go_on, named
from app.sources.changed import fresh
from app.sources.local_files import tag, tag_of, text_of
from app.sources.urls import Urls
from app.sources.webdataset import CHANGED
from app.storage.blobs import discard

WINDOW = "window"
WINDOW_BYTES = 64 << 20


class Table(Kind):
    """Lines with a `url`, or with the `table`, its `at` (time and size), `place` and `column` of a picture in it."""

    FORM = "table:PATH"
    TAKES = frozenset({"columns"})

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._group: tuple[str, int] | None = None  # whose pictures lie in the window
        self._window: dict[int, Failure | None] = {}

    @classmethod
    def checked(cls, asked: Asked, allowed: Allowed) -> Asked:
        """The place with its folder without links."""
        if wrong := sorted(asked.options.get("columns", {}).keys() - ROLES):
            raise Validation(f"columns: there is no {wrong[0]!r}, only {', '.join(sorted(ROLES))}")
        return Asked(asked.kind, glob.checked(asked.place, allowed.roots), asked.options)

    def scan(self, folder: Path, collection: str, stopping: Stopping) -> Iterator[Line]:
        """The rows of every table, but those whose pictures were taken from it before; bad rows are lines, too."""
        lines = capped(self._listed(folder, stopping), self.tools.allowed.most_items)
        return fresh(self.tools.database, collection, lines, stopping)

    def _listed(self, folder: Path, stopping: Stopping) -> Iterator[Line]:
        allowed, columns = self.tools.allowed, self.asked.options.get("columns", {})
        out = folder / "listed"
        for path in glob.matching(self.asked.place, allowed.roots, SUFFIXES):
            go_on(stopping)
            name = text_of(Path(path.name))
            try:
                if path.suffix.lower() not in SUFFIXES:
                    raise UnsupportedMediaType(f"a table is one of {', '.join(SUFFIXES)}")
                table = allowed.roots.file(str(path))
                at = tag_of(table.stat())
                self.tools.read(stopping, list_table, table, path.suffix, out, columns, allowed.most_items + 1)
            except (Rejected, Validation) as error:
                yield failed({"name": name}, error)
                continue
            with translated(), open(out, encoding="ascii") as lines:
                for text in lines:
                    yield line_of(json.loads(text), name, str(table), path.suffix, at)
        out.unlink(missing_ok=True)

    def bring(self, target: Path, lines: Sequence[Line], stopping: Stopping) -> list[Line]:
        """Fetch the URLs, and write the pictures of the rows."""
        came: dict[int, Line] = {}
        urls = {n: line for n, line in enumerate(lines) if "url" in line}
        if urls:
            fetched = Urls(self.asked, self.tools).bring(target, list(urls.values()), stopping)
            came.update(zip(urls, fetched, strict=True))
        for n, line in enumerate(lines):
            if n not in urls:
                came[n] = self._taken(line, target / f"row-{n}", stopping)
        return [came[n] for n in range(len(lines))]

    def _taken(self, line: Line, target: Path, stopping: Stopping) -> Line:
        try:
            path = self.tools.allowed.roots.file(line["table"])  # once more: a link may have come between
            if str(path) != line["table"] or tag(path) != line["at"]:
                raise UrlUnreachable(CHANGED)
            failure = self._row(line, target, stopping)
        except (Rejected, Validation) as error:
            return failed(line, error)
        if failure is not None:
            return {**line, "error": {"code": failure[0], "detail": failure[1]}}
        return {**line, "file": named(target)}

    def _row(self, line: Line, target: Path, stopping: Stopping) -> Failure | None:
        """Write the picture of one row to `target`; why not, if it cannot be."""
        window = target.parent.with_name(WINDOW)
        group, row = line["place"]
        if line["suffix"] not in PARQUET:
            row = 0
            self._open(line, window, [line["place"]], stopping)
        elif self._group != (line["table"], group) or row not in self._window:
            self._open(line, window, [line["place"]], stopping)
            self._group = line["table"], group
        if row not in self._window:
            raise UrlUnreachable("the table has fewer rows than it says")
        failure = self._window.pop(row)
        if failure is None:
            with translated():
                (window / str(row)).rename(target)
        return failure

    def _open(self, line: Line, window: Path, places: list[list[int]], stopping: Stopping) -> None:
        """Have a child write what comes from a place on."""
        discard(window)
        with translated():
            window.mkdir()
        self._group, self._window = None, {}
        most = self.tools.allowed.most_bytes
        arguments = (Path(line["table"]), line["suffix"], line["column"], places, window, most, WINDOW_BYTES)
        self._window = self.tools.read(stopping, take_rows, *arguments)


def line_of(line: Line, name: str, table: str, suffix: str, at: str) -> Line:
    """A line of the manifest, of one that a child has listed."""
    row = line.pop("row")
    if "error" in line:
        return {"name": f"{name}:{row}", **line}
    if "url" in line:
        return {"name": line["url"], **line}
    where = {"table": table, "suffix": suffix.lower(), "at": at, "tag": at, "origin": f"file:{table}#{row}"}
    return {"name": f"{name}:{row}", **line, **where}
