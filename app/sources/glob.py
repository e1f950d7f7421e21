"""Sources whose place is a file, a folder, or a pattern of names in one folder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar

from app.core.errors import Rejected, UrlUnreachable, Validation, map_os_errors
from app.core.files import open_beneath
from app.core.types import ItemError, SourceSpec
from app.decode.left_out import LeftOut
from app.sources.base import Source, SourceItem, SourcePolicy, limit_items, with_error
from app.sources.changed import skip_unchanged
from app.sources.local_files import AllowedFolders, path_to_text, tag_from_stat, walk_files
from app.sources.stop_signal import ShouldStop, raise_if_stopping

MAX_NAMES = 100_000  # that braces may stand for
BRACES = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
WILDCARD = re.compile(r"[*?\[]")


class PatternSource(Source):
    """A source of files with many items each, which decode children list, one file after the other."""

    SUFFIXES: ClassVar[tuple[str, ...]]

    @classmethod
    def resolve(cls, spec: SourceSpec, policy: SourcePolicy) -> SourceSpec:
        return SourceSpec(spec.kind, resolve_pattern(spec.place, policy.folders), spec.options)

    def scan(self, folder: Path, collection: str, should_stop: ShouldStop) -> Iterator[SourceItem]:
        """The items that are new or have changed; a file that cannot be read is an item that failed."""
        items = limit_items(self.list_items(folder, should_stop), self.context.policy.max_items)
        return skip_unchanged(self.context.database, collection, items, should_stop)

    def list_items(self, folder: Path, should_stop: ShouldStop) -> Iterator[SourceItem]:
        """The items of every file."""
        folders = self.context.policy.folders
        out = folder / "listed"
        errors: list[OSError] = []
        count = 0
        for path in match_files(self.spec.place, folders, self.SUFFIXES, errors.append):
            raise_if_stopping(should_stop)
            name = path_to_text(Path(path.name))
            try:
                file = folders.resolve_file(str(path))
                tag = tag_from_stat(file.stat())
                self.list_file(file, path.suffix, out, should_stop)
            except (Rejected, Validation) as error:
                count += 1
                yield with_error({"name": name}, error)
                continue
            with map_os_errors(), open_beneath(folder, out.name) as lines:
                for text in lines:
                    line = json.loads(text)
                    if "left_out" in line:
                        self.left_out.merge(LeftOut.from_json(line["left_out"]))
                        continue
                    count += 1
                    yield self.parse_line(line, name, file, tag)
        out.unlink(missing_ok=True)
        for unread in errors:
            reason = ItemError(UrlUnreachable.code, unread.strerror or "it cannot be read")
            yield with_error({"name": path_to_text(Path(unread.filename))}, reason)
        if not count and not errors:
            yield from self.report_nothing(path_to_text(Path(Path(self.spec.place).name)))

    def list_file(self, path: Path, suffix: str, out: Path, should_stop: ShouldStop) -> None:
        """Write a line of JSON to `out` for each item of a file. Raises Rejected, Validation."""
        raise NotImplementedError

    def parse_line(self, line: SourceItem, name: str, path: Path, tag: str) -> SourceItem:
        """The item of a line that `list_file` wrote; `name` and `tag` are the file's."""
        raise NotImplementedError


def resolve_pattern(place: str, folders: AllowedFolders) -> str:
    """The place, its folder without links. Raises Validation unless the server may read the folder."""
    if Path(place).is_dir():
        return str(folders.resolve_folder(place))
    folder, _, name = place.rpartition("/")
    if name in ("", ".", "..") or "\0" in place:
        raise Validation("name a file, a folder, or a pattern of files in one folder")
    next(expand_braces(name))  # raises Validation for too many names
    return f"{folders.resolve_folder(folder or '/')}/{name}"


def match_files(
    place: str, folders: AllowedFolders, suffixes: Collection[str], on_error: Callable[[OSError], object]
) -> Iterator[Path]:
    """The files of a place, in order: those below a folder by their suffixes, or those that the place names.

    A named file may be missing; `on_error` gets the error of a folder that cannot be read.
    Raises Validation when the server may no longer read the place.
    """
    place = resolve_pattern(place, folders)
    if Path(place).is_dir():
        yield from walk_files(Path(place), suffixes, on_error)
        return
    folder, pattern = Path(place).parent, Path(place).name
    if (folder / pattern).exists():
        yield folder / pattern
        return
    for name in expand_braces(pattern):
        if WILDCARD.search(name):
            yield from (path for path in sorted(folder.iterdir()) if fnmatchcase(path.name, name))
        else:
            yield folder / name


def expand_braces(name: str) -> Iterator[str]:
    """The names that `{00..03}.tar` stands for. Raises Validation for more than MAX_NAMES of them."""
    braces = BRACES.search(name)
    if braces is None:
        yield name
        return
    first, last = braces.groups()
    if abs(int(last) - int(first)) >= MAX_NAMES or len(BRACES.findall(name)) > 1:
        raise Validation(f"one pair of braces may stand for {MAX_NAMES} names")
    step = 1 if int(first) <= int(last) else -1
    width = len(first) if first.startswith("0") or len(first) == len(last) else 0
    for n in range(int(first), int(last) + step, step):
        yield name[: braces.start()] + str(n).zfill(width) + name[braces.end() :]
