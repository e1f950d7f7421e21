"""A folder of this machine, all of it or what is new since it was taken last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from app.core.errors import Rejected, Validation
from app.core.types import SourceSpec
from app.sources.base import ShouldStop, Source, SourceItem, SourcePolicy, path_in_job, with_error
from app.sources.changed import skip_unchanged
from app.sources.local_files import copy_file, file_tag, path_to_text, walk_pictures


class FolderSource(Source):
    """Lines with a `path`."""

    FORM = "folder:PATH"

    @classmethod
    def checked(cls, asked: SourceSpec, allowed: SourcePolicy) -> SourceSpec:
        """The folder without links."""
        return SourceSpec(asked.kind, str(allowed.roots.folder(asked.place)))

    def scan(self, folder: Path, collection: str, stopping: ShouldStop) -> Iterator[SourceItem]:
        """The pictures below it that are new or have changed. Raises Validation when it may not be read (any more)."""
        root = self.tools.allowed.roots.folder(self.asked.place)
        found = (
            {
                "name": path_to_text(path.relative_to(root.parent)),
                "origin": f"file:{path_to_text(path)}",
                "tag": file_tag(path),
                "path": str(path),
            }
            for path in walk_pictures(root)
        )
        return skip_unchanged(self.tools.database, collection, found, stopping)

    def bring(self, target: Path, lines: Sequence[SourceItem], stopping: ShouldStop) -> list[SourceItem]:
        """Copy them."""
        return [copy_item(line, target / str(n), self.tools.allowed) for n, line in enumerate(lines)]


def copy_item(line: SourceItem, target: Path, allowed: SourcePolicy) -> SourceItem:
    """A line with the copy of the file at its `path`."""
    path = Path(line["path"])
    try:
        allowed.roots.folder(str(path.parent))  # once more: a link may have come between
        found = copy_file(path, target, allowed.most_bytes)
    except (Rejected, Validation) as error:
        return with_error(line, error)
    return {**line, "file": path_in_job(target), "tag": found}
