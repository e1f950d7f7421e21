"""Webdatasets: tars in which a picture, its caption (`.txt`) and its facts (`.json`) are neighbours with one key.

img2dataset and clip-retrieval write them. Nothing extracts a tar beforehand: `fetch` copies the pictures out of it, a
part at a time, and after a restart goes on with the next picture.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from app.core.errors import SightlineError, UrlUnreachable
from app.decode.task_channel import OutputFile
from app.decode.webdataset import list_shard
from app.sources.base import SourceItem, path_in_job, with_error
from app.sources.glob import PatternSource
from app.sources.local_files import (
    FILE_CHANGED,
    open_plain,
    path_to_text,
    read_blocks,
    require_size,
    tag_from_stat,
    write_limited,
)
from app.sources.stop_signal import ShouldStop


class WebdatasetSource(PatternSource):
    """Items with the `tar`, its tag (`at`), and the `offset` and `size` of the picture in it."""

    FORM = "webdataset:PATH"
    OPTIONS = frozenset({"key_as_id"})
    SUFFIXES = (".tar",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._tar: tuple[str, BinaryIO] | None = None

    def list_file(self, path: Path, suffix: str, out: Path, should_stop: ShouldStop) -> None:
        self.context.run_in_child(should_stop, list_shard, path, OutputFile(out), self.context.policy.max_items + 1)

    def parse_line(self, line: SourceItem, name: str, path: Path, tag: str) -> SourceItem:
        key = str(line.pop("key", ""))
        line["name"] = f"{name}/{line['name']}" if line["name"] else name
        if "error" in line:
            return line
        if self.spec.options.get("key_as_id"):
            line["id"] = key.rpartition("/")[2]
        origin = f"file:{path_to_text(path)}#{line['offset']}"
        return {**line, "tar": str(path), "at": tag, "tag": tag, "origin": origin}

    def fetch(self, target: Path, items: Sequence[SourceItem], should_stop: ShouldStop) -> list[SourceItem]:
        return [self.copy_item(item, target / str(n)) for n, item in enumerate(items)]

    def copy_item(self, item: SourceItem, target: Path) -> SourceItem:
        """Copy the picture of an item out of its tar."""
        max_bytes = self.context.policy.max_bytes
        try:
            require_size(item["size"], max_bytes)
            tar = self._open_tar(item["tar"])
            if tag_from_stat(os.fstat(tar.fileno())) != item["at"]:
                raise UrlUnreachable(FILE_CHANGED)
            tar.seek(item["offset"])
            if write_limited(target, read_blocks(tar, item["size"]), max_bytes) < item["size"]:
                raise UrlUnreachable(FILE_CHANGED)
        except SightlineError as error:
            if error.retryable:
                raise
            return with_error(item, error)
        return {**item, "file": path_in_job(target)}

    def _open_tar(self, path: str) -> BinaryIO:
        """Open a tar, and close the one before. Raises Validation, UrlUnreachable."""
        if self._tar is None or self._tar[0] != path:
            self.close()
            if self.context.policy.folders.resolve_file(path) != Path(path):  # again: a link may have replaced it
                raise UrlUnreachable(FILE_CHANGED)
            self._tar = path, open_plain(path)
        return self._tar[1]

    def close(self) -> None:
        if self._tar is not None:
            self._tar[1].close()
            self._tar = None
