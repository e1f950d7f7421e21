"""The output of img2dataset: tars; or pictures with their captions (`.txt`) and facts (`.json`); or tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from app.core.errors import Validation
from app.core.types import SourceSpec
from app.decode.table import PARQUET_SUFFIXES
from app.sources.base import SourceItem, SourcePolicy, limit_items
from app.sources.folder import FolderSource, copy_item
from app.sources.local_files import walk_files
from app.sources.stop_signal import ShouldStop
from app.sources.table import TableSource
from app.sources.webdataset import WebdatasetSource


class Img2datasetSource(WebdatasetSource):
    """Items of tars, then items with a `path`, as of a folder; where there are neither, items of tables.

    img2dataset writes tables beside tars and pictures, too: they repeat the same, and are not read.
    """

    FORM = "img2dataset:PATH"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._tables = TableSource(SourceSpec("table", self.spec.place), self.context)

    @classmethod
    def resolve(cls, spec: SourceSpec, policy: SourcePolicy) -> SourceSpec:
        return SourceSpec(spec.kind, str(policy.folders.resolve_folder(spec.place)), spec.options)

    def scan(self, folder: Path, collection: str, should_stop: ShouldStop) -> Iterator[SourceItem]:
        """The items that are new or have changed. Raises Validation for a folder without any."""
        root = self.context.policy.folders.resolve_folder(self.spec.place)
        has_tars, has_pictures = any(walk_files(root, self.SUFFIXES)), any(walk_files(root))
        if not has_tars and not has_pictures:
            if not any(walk_files(root, PARQUET_SUFFIXES)):
                raise Validation("there are no tars, pictures or Parquet tables below this folder")
            yield from self._tables.scan(folder, collection, should_stop)
        if has_tars:
            yield from super().scan(folder, collection, should_stop)
        if has_pictures:
            pictures = FolderSource(SourceSpec("folder", self.spec.place), self.context)
            for item in limit_items(pictures.scan(folder, collection, should_stop), self.context.policy.max_items):
                has_id = self.spec.options.get("key_as_id") and "path" in item
                yield {**item, "id": Path(item["path"]).stem} if has_id else item

    def fetch(self, target: Path, items: Sequence[SourceItem], should_stop: ShouldStop) -> list[SourceItem]:
        if items and not items[0].keys() & {"tar", "path"}:
            return self._tables.fetch(target, items, should_stop)
        return super().fetch(target, items, should_stop)

    def copy_item(self, item: SourceItem, target: Path) -> SourceItem:
        return super().copy_item(item, target) if "tar" in item else copy_item(item, target, self.context.policy)

    def close(self) -> None:
        super().close()
        self._tables.close()
