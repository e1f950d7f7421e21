"""A folder of this machine, all of it or what is new since it was taken last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from app.core.errors import Rejected, Validation
from app.core.types import Asked
from app.sources.base import Allowed, Kind, Line, Stopping, failed, named
from app.sources.changed import fresh
from app.sources.local_files import copy, pictures, tag, text_of


class Folder(Kind):
    """Lines with a `path`."""

    FORM = "folder:PATH"

    @classmethod
    def checked(cls, asked: Asked, allowed: Allowed) -> Asked:
        """The folder without links."""
        return Asked(asked.kind, str(allowed.roots.folder(asked.place)))

    def scan(self, folder: Path, collection: str, stopping: Stopping) -> Iterator[Line]:
        """The pictures below it that are new or have changed. Raises Validation when it may not be read (any more)."""
        root = self.tools.allowed.roots.folder(self.asked.place)
        found = (
            {
                "name": text_of(path.relative_to(root.parent)),
                "origin": f"file:{text_of(path)}",
                "tag": tag(path),
                "path": str(path),
            }
            for path in pictures(root)
        )
        return fresh(self.tools.database, collection, found, stopping)

    def bring(self, target: Path, lines: Sequence[Line], stopping: Stopping) -> list[Line]:
        """Copy them."""
        return [copied(line, target / str(n), self.tools.allowed) for n, line in enumerate(lines)]


def copied(line: Line, target: Path, allowed: Allowed) -> Line:
    """A line with the copy of the file at its `path`."""
    path = Path(line["path"])
    try:
        allowed.roots.folder(str(path.parent))  # once more: a link may have come between
        found = copy(path, target, allowed.most_bytes)
    except (Rejected, Validation) as error:
        return failed(line, error)
    return {**line, "file": named(target), "tag": found}
