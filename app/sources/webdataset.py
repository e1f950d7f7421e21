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

from app.core.errors import ImageTooLarge, Rejected, SightlineError, UrlUnreachable, Validation, translated
from app.core.files import open_nofollow
from app.core.types import Asked
from app.decode.webdataset import list_shard
from app.sources import glob
from app.sources.base import Allowed, Kind, Line, Stopping, capped, failed, go_on, named
from app.sources.changed import fresh
from app.sources.local_files import BLOCK, tag_of, text_of

SUFFIXES = (".tar",)
CHANGED = "the file was changed after it was listed"


class Webdataset(Kind):
    """Lines with the `tar`, its `at` (time and size), and the `offset` and `size` of the picture in it."""

    FORM = "webdataset:PATH"
    TAKES = frozenset({"key_as_id"})

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._open: tuple[str, BinaryIO] | None = None

    @classmethod
    def checked(cls, asked: Asked, allowed: Allowed) -> Asked:
        """The place with its folder without links."""
        return Asked(asked.kind, glob.checked(asked.place, allowed.roots), asked.options)

    def scan(self, folder: Path, collection: str, stopping: Stopping) -> Iterator[Line]:
        """The pictures of every tar that were not taken from it before; a tar that cannot be read is a line, too."""
        lines = capped(self.listed(folder, stopping), self.tools.allowed.most_items)
        return fresh(self.tools.database, collection, lines, stopping)

    def listed(self, folder: Path, stopping: Stopping) -> Iterator[Line]:
        """The pictures of every tar."""
        roots = self.tools.allowed.roots
        out = folder / "listed"
        for path in glob.matching(self.asked.place, roots, SUFFIXES):
            go_on(stopping)
            name = text_of(Path(path.name))
            try:
                tar = roots.file(str(path))
                at = tag_of(tar.stat())
                self.tools.read(stopping, list_shard, tar, out, self.tools.allowed.most_items + 1)
            except (Rejected, Validation) as error:
                yield failed({"name": name}, error)
                continue
            with translated(), open(out, encoding="ascii") as lines:
                for text in lines:
                    yield self._line(json.loads(text), name, tar, at)
        out.unlink(missing_ok=True)

    def _line(self, line: Line, name: str, tar: Path, at: str) -> Line:
        key = str(line.pop("key", ""))
        line["name"] = f"{name}/{line['name']}" if line["name"] else name
        if "error" in line:
            return line
        if self.asked.options.get("key_as_id"):
            line["id"] = key.rpartition("/")[2]
        return {**line, "tar": str(tar), "at": at, "tag": at, "origin": f"file:{text_of(tar)}#{line['offset']}"}

    def bring(self, target: Path, lines: Sequence[Line], stopping: Stopping) -> list[Line]:
        """Copy the pictures out of their tars."""
        return [self.copied(line, target / str(n)) for n, line in enumerate(lines)]

    def copied(self, line: Line, target: Path) -> Line:
        """A line with the copy of its picture."""
        most = self.tools.allowed.most_bytes
        try:
            if line["size"] > most:
                raise ImageTooLarge(f"a picture may have {most} bytes")
            file = self._tar(line["tar"])
            if tag_of(os.fstat(file.fileno())) != line["at"]:
                raise UrlUnreachable(CHANGED)
            file.seek(line["offset"])
            left = line["size"]
            with translated(), open(target, "wb") as copied:
                while left > 0 and (block := file.read(min(left, BLOCK))):
                    left -= len(block)
                    copied.write(block)
            if left:
                raise UrlUnreachable(CHANGED)
        except SightlineError as error:
            if error.retryable:
                raise
            return failed(line, error)
        return {**line, "file": named(target)}

    def _tar(self, path: str) -> BinaryIO:
        """The open tar; the one before is closed. Raises Validation, UrlUnreachable."""
        if self._open is None or self._open[0] != path:
            self.close()
            if self.tools.allowed.roots.file(path) != Path(path):  # once more: a link may have come between
                raise UrlUnreachable(CHANGED)
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
