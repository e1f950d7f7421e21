"""What img2dataset wrote: tars, pictures with their captions (`.txt`) and facts (`.json`) beside them, or tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from app.core.errors import Validation
from app.core.files import open_nofollow
from app.core.types import ItemError, SourceSpec
from app.decode import webdataset_sidecars
from app.decode.table import PARQUET_SUFFIXES
from app.sources import glob
from app.sources.base import ShouldStop, SourceItem, SourcePolicy, limit_items
from app.sources.folder import FolderSource, copy_item
from app.sources.local_files import walk_pictures
from app.sources.table import TableSource
from app.sources.webdataset import SUFFIXES, WebdatasetSource


class Img2datasetSource(WebdatasetSource):
    """Lines of tars, and then lines with a `path`, as of a folder. Where there are neither, lines of tables.

    Beside tars and pictures lie tables too, which say the same and are not read.
    """

    FORM = "img2dataset:PATH"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._tables = TableSource(SourceSpec("table", self.asked.place), self.tools)

    @classmethod
    def checked(cls, asked: SourceSpec, allowed: SourcePolicy) -> SourceSpec:
        """The folder without links."""
        return SourceSpec(asked.kind, str(allowed.roots.folder(asked.place)), asked.options)

    def scan(self, folder: Path, collection: str, stopping: ShouldStop) -> Iterator[SourceItem]:
        """What is new or has changed. Raises Validation where there is nothing of all three."""
        root = self.tools.allowed.roots.folder(self.asked.place)
        tars, loose = any(glob.walk_files(root, SUFFIXES)), any(walk_pictures(root))
        if not tars and not loose:
            if not any(glob.walk_files(root, PARQUET_SUFFIXES)):
                raise Validation("there are no tars, pictures or Parquet tables below this folder")
            yield from self._tables.scan(folder, collection, stopping)
        if tars:
            yield from super().scan(folder, collection, stopping)
        if loose:
            found = FolderSource(SourceSpec("folder", self.asked.place), self.tools).scan(folder, collection, stopping)
            for line in limit_items(found, self.tools.allowed.most_items):
                yield with_sidecars(line, key_as_id=bool(self.asked.options.get("key_as_id")))

    def bring(self, target: Path, lines: Sequence[SourceItem], stopping: ShouldStop) -> list[SourceItem]:
        """Copy the pictures."""
        if lines and not lines[0].keys() & {"tar", "path"}:
            return self._tables.bring(target, lines, stopping)
        return super().bring(target, lines, stopping)

    def close(self) -> None:
        """Close the tar and the table."""
        super().close()
        self._tables.close()

    def copied(self, line: SourceItem, target: Path) -> SourceItem:
        """A line with the copy of its picture."""
        return super().copied(line, target) if "tar" in line else copy_item(line, target, self.tools.allowed)


def with_sidecars(line: SourceItem, *, key_as_id: bool) -> SourceItem:
    """A line with what stands beside its picture; what is wrong with that is its error."""
    path = Path(line["path"])
    beside = {
        kind: one
        for kind in webdataset_sidecars.MAX_SIDECAR_BYTES
        if (one := read_sidecar(path.with_suffix(f".{kind}"), kind)) is not None
    }
    told = webdataset_sidecars.merge_sidecars(beside)
    if isinstance(told, ItemError):
        return {"name": line["name"], "error": {"code": told.code, "detail": told.detail}}
    return {**line, **told, **({"id": path.stem} if key_as_id else {})}


def read_sidecar(path: Path, kind: str) -> webdataset_sidecars.SidecarFields | ItemError | None:
    """What a file beside a picture says; None where there is none."""
    try:
        with open(path, "rb", opener=open_nofollow) as file:
            data = file.read(webdataset_sidecars.MAX_SIDECAR_BYTES[kind] + 1)
    except OSError:
        return None
    return (
        webdataset_sidecars.parse_sidecar(kind, data)
        if len(data) <= webdataset_sidecars.MAX_SIDECAR_BYTES[kind]
        else webdataset_sidecars.too_large_error(kind)
    )
