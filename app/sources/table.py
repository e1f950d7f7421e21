"""Tables of pictures in Parquet, CSV, TSV and JSONL: their rows hold URLs, paths, or the bytes of the pictures.

Decode children list a table without its pictures. `fetch` has them extract the pictures later, a part at a time: of a
Parquet row group as much as a window holds, because a row can be read only after those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.core.errors import Rejected, UnsupportedMediaType, UrlUnreachable, Validation, map_os_errors
from app.core.files import beneath
from app.core.types import ItemError, SourceSpec
from app.decode.column_mapping import ROLES
from app.decode.table import PARQUET_SUFFIXES, TABLE_SUFFIXES, Failure, extract_pictures, list_table
from app.decode.task_channel import OutputFile, OutputFolder
from app.sources.base import SourceItem, SourcePolicy, path_in_job, with_error
from app.sources.folder import copy_item
from app.sources.glob import PatternSource
from app.sources.local_files import FILE_CHANGED, file_tag, path_to_text
from app.sources.stop_signal import ShouldStop
from app.sources.urls import UrlSource
from app.storage.blobs import remove_path

WINDOW = "window"
WINDOW_BYTES = 64 << 20


class TableSource(PatternSource):
    """Items with a `url`, with the `path` of a file, or with a `table`, its tag (`at`), a `place` and a `column`."""

    FORM = "table:PATH"
    OPTIONS = frozenset({"columns"})
    SUFFIXES = TABLE_SUFFIXES

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._group: tuple[str, int] | None = None  # the table and the row group whose pictures are in the window
        self._window: dict[int, Failure | None] = {}

    @classmethod
    def resolve(cls, spec: SourceSpec, policy: SourcePolicy) -> SourceSpec:
        if wrong := sorted(spec.options.get("columns", {}).keys() - ROLES):
            raise Validation(f"columns: there is no {wrong[0]!r}, only {', '.join(sorted(ROLES))}")
        return super().resolve(spec, policy)

    def list_file(self, path: Path, suffix: str, out: Path, should_stop: ShouldStop) -> None:
        if suffix.lower() not in TABLE_SUFFIXES:
            raise UnsupportedMediaType(f"a table is one of {', '.join(TABLE_SUFFIXES)}")
        columns, max_rows = self.spec.options.get("columns", {}), self.context.policy.max_items + 1
        self.context.run_in_child(should_stop, list_table, path, suffix, OutputFile(out), columns, max_rows)

    def parse_line(self, line: SourceItem, name: str, path: Path, tag: str) -> SourceItem:
        row = line.pop("row")
        if "error" in line:
            return {"name": f"{name}:{row}", **line}
        if "url" in line:
            return {"name": line["url"], **line}
        if "path" in line:
            return self._path_item(line, path.parent)
        origin = f"file:{path_to_text(path)}#{row}"
        place = {"table": str(path), "suffix": Path(name).suffix.lower(), "at": tag, "tag": tag, "origin": origin}
        return {"name": f"{name}:{row}", **line, **place}

    def _path_item(self, line: SourceItem, folder: Path) -> SourceItem:
        """The item of a row that names a file, relative to the folder of the table."""
        item = {**line, "name": line["path"], "path": str(folder / line["path"])}
        try:
            path = self.context.policy.folders.resolve_file(item["path"])
        except Validation:
            return item  # `fetch` says why
        return {**item, "path": str(path), "origin": f"file:{path_to_text(path)}", "tag": file_tag(path)}

    def fetch(self, target: Path, items: Sequence[SourceItem], should_stop: ShouldStop) -> list[SourceItem]:
        """Download the URLs, copy the files, and extract the pictures of the rows."""
        fetched: dict[int, SourceItem] = {}
        urls = {n: item for n, item in enumerate(items) if "url" in item}
        if urls:
            downloads = UrlSource(self.spec, self.context).fetch(target, list(urls.values()), should_stop)
            fetched.update(zip(urls, downloads, strict=True))
        for n, item in enumerate(items):
            if "path" in item:
                fetched[n] = copy_item(item, target / f"file-{n}", self.context.policy)
            elif n not in urls:
                fetched[n] = self._fetch_row(item, target / f"row-{n}", should_stop)
        return [fetched[n] for n in range(len(items))]

    def _fetch_row(self, item: SourceItem, target: Path, should_stop: ShouldStop) -> SourceItem:
        try:
            path = self.context.policy.folders.resolve_file(item["table"])  # again: a link may have replaced it
            if str(path) != item["table"] or file_tag(path) != item["at"]:
                raise UrlUnreachable(FILE_CHANGED)
            failure = self._take_row(item, target, should_stop)
        except (Rejected, Validation) as error:
            return with_error(item, error)
        if failure is not None:
            return with_error(item, ItemError(*failure))
        return {**item, "file": path_in_job(target)}

    def _take_row(self, item: SourceItem, target: Path, should_stop: ShouldStop) -> Failure | None:
        """Move the picture of one row to `target`, or say why it has none."""
        window = target.parent.with_name(WINDOW)
        group, row = item["place"]
        if item["suffix"] not in PARQUET_SUFFIXES:
            row = 0
            self._fill_window(item, window, should_stop)
        elif self._group != (item["table"], group) or row not in self._window:
            self._fill_window(item, window, should_stop)
            self._group = item["table"], group
        if row not in self._window:
            raise UrlUnreachable("the table has fewer rows than it says")
        failure = self._window.pop(row)
        if failure is None:
            with map_os_errors():
                beneath(window, str(int(row))).rename(target)
        return failure

    def _fill_window(self, item: SourceItem, window: Path, should_stop: ShouldStop) -> None:
        """Have a child extract the pictures from this row on."""
        remove_path(window)
        with map_os_errors():
            window.mkdir()
        self._group, self._window = None, {}
        table = Path(item["table"]), item["suffix"], item["column"], [item["place"]]
        limits = self.context.policy.max_bytes, WINDOW_BYTES
        extracted = self.context.run_in_child(should_stop, extract_pictures, *table, OutputFolder(window), *limits)
        self._window = dict(extracted)
