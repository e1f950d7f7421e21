"""The data types of the package. A leaf: it imports nothing of ours."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
"""Shape [n]: the id of each vector; zero or more. -1 only pads an answer."""
Embeddings = npt.NDArray[np.float32]
"""Shape [n, d]: one unit vector a row. (One entry of a log holds a single one, shape [d].)"""
Scores = npt.NDArray[np.float32]
"""Shape [n, k]: inner products, best first. -inf only pads an answer."""

SNAPSHOT_FORMAT = 1
"""Version of the snapshot format. Loading refuses any other, and the index is rebuilt from the log."""
MAX_D = 65_536


class Op(StrEnum):
    """What a log entry does. An add of a known id replaces its vector."""

    ADD = "add"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True, eq=False)
class LogEntry:
    """One line of the log: from `seq` on, `id` has this vector (shape [d]), or none if removed."""

    seq: int
    op: Op
    id: int
    vector: Embeddings | None = None


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """One file of a snapshot: its name, its size in bytes and its SHA-256 in hex."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SnapshotManifest:
    """What is in a snapshot, so that no other can be mistaken for it.

    `name` says to which index it belongs (a collection and its target), `space` is the fingerprint of
    the embedding space, `kind` the implementation, `applied_seq` the last log entry inside. `created_at` is
    RFC 3339 in UTC, for people only.
    """

    name: str
    space: str
    kind: str
    d: int
    ntotal: int
    applied_seq: int
    created_at: str
    files: tuple[SnapshotFile, ...]

    def to_json(self) -> bytes:
        """UTF-8 JSON with sorted keys: equal manifests give equal bytes."""
        fields: dict[str, Any] = {
            "format": SNAPSHOT_FORMAT,
            "name": self.name,
            "space": self.space,
            "kind": self.kind,
            "d": self.d,
            "ntotal": self.ntotal,
            "applied_seq": self.applied_seq,
            "created_at": self.created_at,
            "files": [{"name": f.name, "size": f.size, "sha256": f.sha256} for f in self.files],
        }
        return json.dumps(fields, sort_keys=True, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, text: bytes) -> SnapshotManifest:
        """The manifest in `text`. Unknown, missing, duplicate or ill-typed fields raise ValueError."""
        try:
            fields = json.loads(text, object_pairs_hook=_reject_duplicates, parse_constant=_reject_constant)
        except RecursionError as error:
            raise ValueError("nested too deep") from error
        # The version comes first: a newer format may well have other fields.
        if not isinstance(fields, dict) or type(fields.get("format")) is not int:
            raise ValueError("not a manifest")
        if fields.pop("format") != SNAPSHOT_FORMAT:
            raise ValueError(f"not of format {SNAPSHOT_FORMAT}")
        _expect_keys(fields, _FIELDS)
        return cls(
            name=_parse_text(fields["name"], r"[^\x00-\x1f]{1,400}"),
            space=_parse_text(fields["space"], r"[^\x00-\x1f]{1,400}"),
            kind=_parse_text(fields["kind"], r"[a-z][a-z0-9_-]{0,40}"),
            d=_parse_number(fields["d"], 1, MAX_D),
            ntotal=_parse_number(fields["ntotal"], 0),
            applied_seq=_parse_number(fields["applied_seq"], 0),
            created_at=_parse_text(fields["created_at"], r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"),
            files=_parse_files(fields["files"]),
        )


_FIELDS = ("name", "space", "kind", "d", "ntotal", "applied_seq", "created_at", "files")


def _parse_files(rows: object) -> tuple[SnapshotFile, ...]:
    if not isinstance(rows, list):
        raise ValueError("files: not a list")
    files = []
    for row in rows:
        if not isinstance(row, dict):
            raise ValueError("files: not an object")
        _expect_keys(row, ("name", "size", "sha256"))
        # The pattern allows no slash and no leading dot: a file is always inside its snapshot.
        name = _parse_text(row["name"], r"[a-z][a-z0-9_]{0,40}\.[a-z]{1,8}")
        files.append(SnapshotFile(name, _parse_number(row["size"], 0), _parse_text(row["sha256"], "[0-9a-f]{64}")))
    if len({file.name for file in files}) != len(files):
        raise ValueError("files: a name twice")
    return tuple(files)


def _expect_keys(fields: dict[str, Any], keys: Sequence[str]) -> None:
    if set(fields) != set(keys):
        raise ValueError(f"fields {sorted(fields)}, expected {sorted(keys)}")


def _parse_text(value: object, pattern: str) -> str:
    if not isinstance(value, str) or re.fullmatch(pattern, value, re.ASCII) is None:
        raise ValueError(f"{value!r} is not of the form {pattern}")
    return value


def _parse_number(value: object, low: int, high: int = 2**63 - 1) -> int:
    if type(value) is not int or not low <= value <= high:  # a bool is an int to isinstance
        raise ValueError(f"{value!r} is not an integer from {low} to {high}")
    return value


_T = TypeVar("_T")


def _reject_duplicates(pairs: list[tuple[str, _T]]) -> dict[str, _T]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field twice")
    return fields


def _reject_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
