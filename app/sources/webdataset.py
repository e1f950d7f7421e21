"""Webdatasets: tars of this machine in which a picture, its caption and its facts are neighbours of one key.

What img2dataset and clip-retrieval write. Tars are listed by decode children, one after the other, and pictures are
copied out of them a part at a time: nothing is expanded beforehand, and a restart goes on at the picture where it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from app.core.errors import ImageTooLarge, Rejected, SightlineError, UrlUnreachable, Validation, map_os_errors
from app.core.files import open_nofollow
from app.core.types import SourceSpec
from app.decode.webdataset import list_shard
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
from app.sources.local_files import BLOCK, path_to_text, tag_from_stat

SUFFIXES = (".tar",)
FILE_CHANGED = "the file was changed after it was listed"


class WebdatasetSource(Source):
    """Lines with the `tar`, its `at` (time and size), and the `offset` and `size` of the picture in it."""

    FORM = "webdataset:PATH"
    TAKES = frozenset({"key_as_id"})

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._open: tuple[str, BinaryIO] | None = None

    @classmethod
    def checked(cls, asked: SourceSpec, allowed: SourcePolicy) -> SourceSpec:
        """The place with its folder without links."""
        return SourceSpec(asked.kind, glob.resolve_pattern(asked.place, allowed.roots), asked.options)

    def scan(self, folder: Path, collection: str, stopping: ShouldStop) -> Iterator[SourceItem]:
        """The pictures of every tar that were not taken from it before; a tar that cannot be read is a line, too."""
        lines = limit_items(self.listed(folder, stopping), self.tools.allowed.most_items)
        return skip_unchanged(self.tools.database, collection, lines, stopping)

    def listed(self, folder: Path, stopping: ShouldStop) -> Iterator[SourceItem]:
        """The pictures of every tar."""
        roots = self.tools.allowed.roots
        out = folder / "listed"
        for path in glob.match_files(self.asked.place, roots, SUFFIXES):
            raise_if_stopping(stopping)
            name = path_to_text(Path(path.name))
            try:
                tar = roots.file(str(path))
                at = tag_from_stat(tar.stat())
                self.tools.read(stopping, list_shard, tar, out, self.tools.allowed.most_items + 1)
            except (Rejected, Validation) as error:
                yield with_error({"name": name}, error)
                continue
            with map_os_errors(), open(out, encoding="ascii") as lines:
                for text in lines:
                    yield self._line(json.loads(text), name, tar, at)
        out.unlink(missing_ok=True)

    def _line(self, line: SourceItem, name: str, tar: Path, at: str) -> SourceItem:
        key = str(line.pop("key", ""))
        line["name"] = f"{name}/{line['name']}" if line["name"] else name
        if "error" in line:
            return line
        if self.asked.options.get("key_as_id"):
            line["id"] = key.rpartition("/")[2]
        return {**line, "tar": str(tar), "at": at, "tag": at, "origin": f"file:{path_to_text(tar)}#{line['offset']}"}

    def bring(self, target: Path, lines: Sequence[SourceItem], stopping: ShouldStop) -> list[SourceItem]:
        """Copy the pictures out of their tars."""
        return [self.copied(line, target / str(n)) for n, line in enumerate(lines)]

    def copied(self, line: SourceItem, target: Path) -> SourceItem:
        """A line with the copy of its picture."""
        most = self.tools.allowed.most_bytes
        try:
            if line["size"] > most:
                raise ImageTooLarge(f"a picture may have {most} bytes")
            file = self._tar(line["tar"])
            if tag_from_stat(os.fstat(file.fileno())) != line["at"]:
                raise UrlUnreachable(FILE_CHANGED)
            file.seek(line["offset"])
            left = line["size"]
            with map_os_errors(), open(target, "wb") as copied:
                while left > 0 and (block := file.read(min(left, BLOCK))):
                    left -= len(block)
                    copied.write(block)
            if left:
                raise UrlUnreachable(FILE_CHANGED)
        except SightlineError as error:
            if error.retryable:
                raise
            return with_error(line, error)
        return {**line, "file": path_in_job(target)}

    def _tar(self, path: str) -> BinaryIO:
        """The open tar; the one before is closed. Raises Validation, UrlUnreachable."""
        if self._open is None or self._open[0] != path:
            self.close()
            if self.tools.allowed.roots.file(path) != Path(path):  # once more: a link may have come between
                raise UrlUnreachable(FILE_CHANGED)
            try:
                self._open = path, open(path, "rb", opener=open_nofollow)  # noqa: SIM115 (closed by `close`)
            except OSError as error:
                raise UrlUnreachable(f"the file cannot be read: {error.strerror}") from None
        return self._open[1]

    def close(self) -> None:
        """Close the tar."""
        if self._open is not None:
            self._open[1].close()
            self._open = None
