"""Files of this machine that a request names by one word: a file, a folder, or a pattern of names in one folder."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from app.core.errors import Validation
from app.sources.local_files import AllowedFolders

MAX_NAMES = 100_000  # names that braces may stand for
BRACES = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
WILD = re.compile(r"[*?\[]")


def resolve_pattern(place: str, roots: AllowedFolders) -> str:
    """The place, its folder without links. Raises Validation unless that is below a root, and for a wild folder."""
    if Path(place).is_dir():
        return str(roots.folder(place))
    folder, _, name = place.rpartition("/")
    if name in ("", ".", "..") or "\0" in place:
        raise Validation("name a file, a folder, or a pattern of files in one folder")
    for _ in expand_braces(name):
        break  # raises for what stands for too many
    return f"{roots.folder(folder or '/')}/{name}"


def match_files(place: str, roots: AllowedFolders, suffixes: Collection[str]) -> Iterator[Path]:
    """The files that a place stands for, in order: those below a folder by their suffixes, or those that are named.

    Named ones need not be there. Raises Validation when the place may not be read (any more).
    """
    place = resolve_pattern(place, roots)
    if Path(place).is_dir():
        yield from walk_files(Path(place), suffixes)
        return
    root, name = Path(place).parent, Path(place).name
    if (root / name).exists():
        yield root / name
        return
    for each in expand_braces(name):
        if WILD.search(each):
            yield from (path for path in sorted(root.iterdir()) if fnmatchcase(path.name, each))
        else:
            yield root / each


def walk_files(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """The files below a folder that end like this, in order; nothing hidden, and no linked folder is entered."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(tuple(suffixes)):
                yield Path(place, name)


def expand_braces(name: str) -> Iterator[str]:
    """`{00..03}.tar` as the names it stands for. Raises Validation for more than MOST of them."""
    found = BRACES.search(name)
    if found is None:
        yield name
        return
    first, last = found.groups()
    if abs(int(last) - int(first)) >= MAX_NAMES or len(BRACES.findall(name)) > 1:
        raise Validation(f"one pair of braces may stand for {MAX_NAMES} names")
    step = 1 if int(first) <= int(last) else -1
    width = len(first) if first.startswith("0") or len(first) == len(last) else 0
    for n in range(int(first), int(last) + step, step):
        yield name[: found.start()] + str(n).zfill(width) + name[found.end() :]
