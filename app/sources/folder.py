"""The pictures of a folder on the server's machine, with what the files beside them say."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from app.core.errors import Rejected, UrlUnreachable, Validation
from app.core.types import SourceSpec
from app.decode.video_header import has_video_suffix, is_accepted, warn_of_videos
from app.sources.base import Source, SourceItem, SourcePolicy, path_in_job, with_error
from app.sources.changed import skip_unchanged
from app.sources.local_files import copy_file, file_tag, path_to_text
from app.sources.picture_folder import FoundFile, walk_pictures
from app.sources.stop_signal import ShouldStop

FIELDS_MARK = "+"  # in a tag, before what changes with the files beside the picture


class FolderSource(Source):
    """Items with a `path`."""

    FORM = "folder:PATH"
    OPTIONS = frozenset({"exclude"})

    @classmethod
    def resolve(cls, spec: SourceSpec, policy: SourcePolicy) -> SourceSpec:
        return SourceSpec(spec.kind, str(policy.folders.resolve_folder(spec.place)), spec.options)

    def scan(self, folder: Path, collection: str, should_stop: ShouldStop) -> Iterator[SourceItem]:
        """The pictures that are new or have changed. Raises Validation when the server may not read the folder."""
        root = self.context.policy.folders.resolve_folder(self.spec.place)
        found = self._list(root)
        for item in skip_unchanged(self.context.database, collection, found, should_stop):
            file = item.pop("found", None)
            yield item if file is None else {**item, **file.read_fields()}

    def _list(self, root: Path) -> Iterator[SourceItem]:
        count = 0
        formats, videos = self.context.policy.formats, self.context.policy.videos
        is_wanted = partial(is_accepted, formats=formats, videos=videos.refusal is None)
        for file in walk_pictures(root, self.left_out, self.spec.options.get("exclude", ()), is_wanted):
            count += 1
            name = path_to_text(Path(root.name)) + ("" if file.name == "." else f"/{file.name}")
            if file.error is not None:
                yield with_error({"name": name}, file.error)
                continue
            tag, path = tag_with_fields(file), path_to_text(file.path)
            yield {"name": name, "origin": f"file:{path}", "tag": tag, "path": str(file.path), "found": file}
        self.left_out.explain(formats)
        warn_of_videos(self.left_out, videos)
        if not count:
            yield from self.report_nothing(path_to_text(Path(root.name)))

    def fetch(self, target: Path, items: Sequence[SourceItem], should_stop: ShouldStop) -> list[SourceItem]:
        return [copy_item(item, target / str(n), self.context.policy) for n, item in enumerate(items)]


def tag_with_fields(file: FoundFile) -> str | None:
    """The tag of a picture, which also changes when the files beside it do."""
    tag = file_tag(file.path)
    return tag if tag is None else FIELDS_MARK.join([tag, *list_tags_beside(file)])


def list_tags_beside(file: FoundFile) -> list[str]:
    """The tags of the files beside a picture, and of what metadata files say of it."""
    beside = [file_tag(path) or "" for path in file.sidecars]
    if file.metadata:
        beside.append(f"{zlib.crc32(json.dumps(file.metadata, sort_keys=True).encode()):x}")
    return beside


def copy_item(item: SourceItem, target: Path, policy: SourcePolicy) -> SourceItem:
    """Copy the file at the item's `path`."""
    path = Path(item["path"])
    try:
        if policy.folders.allows(path) and not os.path.lexists(path.parent):
            raise UrlUnreachable("its folder is not there any more")
        folder = policy.folders.resolve_folder(str(path.parent))  # again: a link may have replaced the folder
        most = policy.videos.max_bytes if has_video_suffix(path.name) else policy.max_bytes
        tag = copy_file(folder / path.name, target, most)
    except (Rejected, Validation) as error:
        return with_error(item, error)
    _, mark, fields = (item.get("tag") or "").partition(FIELDS_MARK)
    return {**item, "file": path_in_job(target), "tag": tag + mark + fields}
