"""The pictures of a folder on the server's machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from app.core.errors import Rejected, Validation
from app.core.types import SourceSpec
from app.sources.base import Source, SourceItem, SourcePolicy, path_in_job, with_error
from app.sources.changed import skip_unchanged
from app.sources.local_files import copy_file, file_tag, path_to_text, walk_files
from app.sources.stop_signal import ShouldStop


class FolderSource(Source):
    """Items with a `path`."""

    FORM = "folder:PATH"

    @classmethod
    def resolve(cls, spec: SourceSpec, policy: SourcePolicy) -> SourceSpec:
        return SourceSpec(spec.kind, str(policy.folders.resolve_folder(spec.place)))

    def scan(self, folder: Path, collection: str, should_stop: ShouldStop) -> Iterator[SourceItem]:
        """The pictures that are new or have changed. Raises Validation when the server may not read the folder."""
        root = self.context.policy.folders.resolve_folder(self.spec.place)
        items = (
            {
                "name": path_to_text(path.relative_to(root.parent)),
                "origin": f"file:{path_to_text(path)}",
                "tag": file_tag(path),
                "path": str(path),
            }
            for path in walk_files(root)
        )
        return skip_unchanged(self.context.database, collection, items, should_stop)

    def fetch(self, target: Path, items: Sequence[SourceItem], should_stop: ShouldStop) -> list[SourceItem]:
        return [copy_item(item, target / str(n), self.context.policy) for n, item in enumerate(items)]


def copy_item(item: SourceItem, target: Path, policy: SourcePolicy) -> SourceItem:
    """Copy the file at the item's `path`."""
    path = Path(item["path"])
    try:
        policy.folders.resolve_folder(str(path.parent))  # again: a link may have replaced the folder
        tag = copy_file(path, target, policy.max_bytes)
    except (Rejected, Validation) as error:
        return with_error(item, error)
    return {**item, "file": path_in_job(target), "tag": tag}
