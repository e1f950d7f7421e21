"""Pairs of a picture and its texts: read from a set or from the captions that are stored, and matched to pictures.

An evaluation measures a search by them, and a head is taught with them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np

from app.core.errors import Validation
from app.decode.pairs import MAX_PAIRS, list_pairs
from app.decode.pool import DecodePool
from app.decode.task_channel import OutputFile
from app.sources.base import run_in_child
from app.sources.local_files import AllowedFolders
from app.sources.stop_signal import ShouldStop, never_stop
from app.storage.database import Database
from app.storage.keywords import split_source
from app.storage.tables import images

CAPTIONS = "captions"  # the source that is the captions of a collection
PAIRS_PREFIX = "pairs:"  # the source that is a file on the server's machine
MAX_NAMED = 10  # of the lines and pictures that are left out
MAX_SET_CHARS = 4_000_000  # of names and texts together
READ_SECONDS = 300.0
PAGE = 5_000  # rows that one read of the database looks at
NO_CAPTIONS = (
    "no picture of the collection {!r} has a caption: send captions with the pictures (a file cat.txt beside cat.jpg,"
    " or a table), set them with PATCH /v1/images/ID, or give a set of pairs"
)


@dataclass(slots=True)
class LeftOutNames:
    """What was left out: how many, and the names of the first."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.names) < MAX_NAMED:
            self.names.append(name)

    def to_json(self) -> dict[str, Any]:
        return {"count": self.count, "names": self.names}


@dataclass(slots=True)
class PairSet:
    """Distinct `pictures`, as the set names them, and `texts`, each of the picture with the number in `owners`.

    `bad_rows` are those without a picture or a text; `repeated` counts pairs that came before, which stay: benchmarks
    count them, too.
    """

    pictures: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    bad_rows: LeftOutNames = field(default_factory=LeftOutNames)
    repeated: int = 0

    @classmethod
    def of(cls, rows: Iterable[tuple[str, Sequence[str]]]) -> Self:
        """The set of these pictures and their texts; a picture may come more than once."""
        made = cls()
        numbers: dict[str, int] = {}
        known: set[tuple[int, str]] = set()
        for picture, texts in rows:
            n = numbers.setdefault(picture, len(numbers))
            if n == len(made.pictures):
                made.pictures.append(picture)
            for text in texts:
                made.repeated += (n, text) in known
                known.add((n, text))
                made.texts.append(text)
                made.owners.append(n)
        return made

    @property
    def shared_texts(self) -> int:
        """How many texts are those of another picture, too."""
        return len(set(zip(self.texts, self.owners, strict=True))) - len(set(self.texts))

    def to_json(self) -> dict[str, Any]:
        """For the parameters of a task."""
        return {
            "rows": [[name, texts] for name, texts in zip(self.pictures, self._group(), strict=True)],
            "bad_rows": self.bad_rows.to_json(),
            "repeated": self.repeated,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        made = cls.of((name, texts) for name, texts in value["rows"])
        made.bad_rows = LeftOutNames(**value["bad_rows"])
        made.repeated = value["repeated"]
        return made

    def select(self, wanted: Sequence[int]) -> PairSet:
        """The pairs of the pictures with these numbers, in this order."""
        groups = self._group()
        kept = PairSet.of((self.pictures[n], groups[n]) for n in wanted)
        kept.bad_rows, kept.repeated = self.bad_rows, self.repeated
        return kept

    def _group(self) -> list[list[str]]:
        groups: list[list[str]] = [[] for _ in self.pictures]
        for text, owner in zip(self.texts, self.owners, strict=True):
            groups[owner].append(text)
        return groups


@dataclass(slots=True)
class StoredPairs:
    """A set whose pictures are those of a collection: their keys and ids in the order of `pairs.pictures`."""

    pairs: PairSet
    keys: list[int]
    ids: list[str]
    unknown: LeftOutNames = field(default_factory=LeftOutNames)


def resolve_source(source: str, folders: AllowedFolders) -> str:
    """A source with the path of its file. Raises Validation unless it is the captions, or a set that may be read."""
    if source == CAPTIONS:
        return source
    if not source.startswith(PAIRS_PREFIX):
        raise Validation(f"source must be {CAPTIONS} or {PAIRS_PREFIX}PATH")
    return f"{PAIRS_PREFIX}{folders.resolve_file(source.removeprefix(PAIRS_PREFIX))}"


def read_pairs(
    pool: DecodePool, path: Path, suffix: str, split: str = "test", should_stop: ShouldStop = never_stop
) -> PairSet:
    """Read a set in a decode child. Raises Validation, ArchiveCorrupt; Overloaded when the caller stops."""
    with TemporaryDirectory(prefix="sightline-pairs-") as folder:
        out = Path(folder, "pairs")
        splits = run_in_child(pool, READ_SECONDS, should_stop, list_pairs, path, suffix, OutputFile(out), split)
        bad = LeftOutNames()
        pairs = PairSet.of(_read_lines(out, bad))
    pairs.bad_rows = bad
    if not pairs.texts:
        if splits:
            listed = ", ".join(f"{name} ({count})" for name, count in sorted(splits.items()))
            raise Validation(f"the set has no pictures in the split {split!r}; it has {listed}")
        raise Validation("the set has no pairs" + (f": {bad.names[0]}" if bad.names else ""))
    if sum(map(len, pairs.texts)) + sum(map(len, pairs.pictures)) > MAX_SET_CHARS:
        raise Validation(f"the texts of the set have more than {MAX_SET_CHARS:,} characters, which is the limit")
    return pairs


def _read_lines(path: Path, bad: LeftOutNames) -> Iterator[tuple[str, Sequence[str]]]:
    with open(path, encoding="ascii") as lines:
        for text in lines:
            line = json.loads(text)
            if isinstance(line, dict):
                bad.add(line["error"])
            else:
                yield line[0], line[1]


def read_captions(database: Database, collection: str, most: int = MAX_PAIRS) -> StoredPairs:
    """The captions of a collection, of at most so many pictures, always the same ones while it does not change.

    Raises Validation if there are none.
    """
    found = database.read(lambda c: images.list_captioned_keys(c, collection))
    if not found:
        raise Validation(NO_CAPTIONS.format(collection))
    keys = np.sort(np.random.default_rng(0).permutation(np.array(found, np.int64))[:most]).tolist()
    rows: dict[int, tuple[str, str]] = {}
    for start in range(0, len(keys), PAGE):
        page = keys[start : start + PAGE]
        read = database.read(lambda c, page=page: images.get_by_keys(c, page))  # type: ignore[misc]
        rows |= {key: (image.id, " ".join(image.caption.split())) for key, image in read.items() if image.caption}
    kept = [key for key in keys if key in rows and rows[key][1]]
    pairs = PairSet.of((rows[key][0], [rows[key][1]]) for key in kept)
    return StoredPairs(pairs, kept, [rows[key][0] for key in kept])


def match_pairs(database: Database, collection: str, pairs: PairSet) -> StoredPairs:
    """Find the pictures of a set in a collection: by id, by SHA-256, or by the path or name of their file."""
    names = pairs.pictures
    found: dict[str, tuple[int, str]] = {}
    for start in range(0, len(names), PAGE):
        page = names[start : start + PAGE]
        found |= database.read(lambda c, page=page: images.find_by_names(c, collection, page))  # type: ignore[misc]
    found |= _match_files(database, collection, [name for name in names if name not in found])
    unknown = LeftOutNames()
    taken: dict[int, int] = {}  # the first number in the set of each key
    for n, name in enumerate(names):
        if name not in found or found[name][0] in taken:
            unknown.add(name)
        else:
            taken[found[name][0]] = n
    kept = pairs.select(list(taken.values()))
    return StoredPairs(kept, list(taken), [found[names[n]][1] for n in taken.values()], unknown)


def _match_files(database: Database, collection: str, names: Sequence[str]) -> dict[str, tuple[int, str]]:
    """The key and id of pictures by their file. A name alone decides where no other file has it, in set and store."""
    wanted: dict[str, list[str]] = {}
    for name in names:
        wanted.setdefault(split_source(name)[1], []).append(name)
    candidates: dict[str, list[tuple[int, int, str]]] = {}  # common parts of the path, key, id
    after = 0
    while wanted and (
        rows := database.read(lambda c, after=after: images.list_sources(c, collection, after, PAGE))  # type: ignore[misc]
    ):
        for key, id, source in rows:
            for name in wanted.get(split_source(source)[1], ()):
                candidates.setdefault(name, []).append((_count_common(name, source), key, id))
        after = rows[-1][0]
    found = {}
    for name, listed in candidates.items():
        listed.sort(reverse=True)
        is_unique = len(listed) == 1 or listed[0][0] > listed[1][0]
        is_path_shared = listed[0][0] > 1 or len(wanted[split_source(name)[1]]) == 1
        if is_unique and is_path_shared:
            found[name] = listed[0][1:]
    return found


def _count_common(name: str, source: str) -> int:
    """How many parts at the end of two paths are the same."""
    count = 0
    for ours, theirs in zip(reversed(name.split("/")), reversed(source.split("/")), strict=False):
        if ours != theirs:
            break
        count += 1
    return count


def find_files(folders: AllowedFolders, folder: str, pairs: PairSet) -> tuple[dict[int, Path], LeftOutNames]:
    """The file of each picture of a set below a folder, by its path or by its name alone, and those without one.

    Raises Validation unless the server may read the folder.
    """
    root = folders.resolve_folder(folder)
    found: dict[int, Path] = {}
    unknown = LeftOutNames()
    for n, name in enumerate(pairs.pictures):
        for tried in dict.fromkeys((name, name.rpartition("/")[2])):
            try:
                path = folders.resolve_file(str(root / tried))
            except Validation:
                continue
            if path.is_relative_to(root):
                found[n] = path
                break
        else:
            unknown.add(name)
    return found, unknown
