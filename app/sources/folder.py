"""A folder of this machine, all of it or what is new since it was taken last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from app.errors import Rejected, Validation
from app.folders import copy, parts, pictures, tag, text_of
from app.sources.kind import Allowed, Asked, Kind, Line, Stopping, failed, go_on, named
from app.store import origins

LOOK = 1_000  # files that are looked up at once


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
        for part in parts(pictures(root), LOOK):
            go_on(stopping)
            paths = {f"file:{text_of(path)}": path for path in part}
            held = self.tools.database.read(partial(origins.held, collection=collection, origins=list(paths)))
            for origin, path in paths.items():
                if held.get(origin, "") != tag(path):
                    yield {"name": text_of(path.relative_to(root.parent)), "origin": origin, "path": str(path)}

    def bring(self, target: Path, lines: Sequence[Line], stopping: Stopping) -> list[Line]:
        """Copy them."""
        return [self._copied(line, target / str(n)) for n, line in enumerate(lines)]

    def _copied(self, line: Line, target: Path) -> Line:
        path = Path(line["path"])
        try:
            self.tools.allowed.roots.folder(str(path.parent))  # once more: a link may have come between
            found = copy(path, target, self.tools.allowed.most_bytes)
        except (Rejected, Validation) as error:
            return failed(line, error)
        return {**line, "file": named(target), "tag": found}
