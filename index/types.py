"""The data types of the package. A leaf: it imports nothing of ours."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

Ids = npt.NDArray[np.int64]
"""Shape [n]: the id of each vector; zero or more. -1 only pads an answer."""
Embeddings = npt.NDArray[np.float32]
"""Shape [n, d]: one unit vector a row. (One entry of a log holds a single one, shape [d].)"""
Scores = npt.NDArray[np.float32]
"""Shape [n, k]: inner products, best first. -inf only pads an answer."""

MAX_D = 65_536

_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Name = Annotated[str, Field(pattern=r"^[^\x00-\x1f]{1,400}$")]
_STRICT = ConfigDict(strict=True, extra="forbid")


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

    __pydantic_config__ = _STRICT

    # No slash and no leading dot: a file is always inside its snapshot.
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}\.[a-z]{1,8}$")]
    size: _Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class SnapshotManifest:
    """What is in a snapshot, so that no other can be mistaken for it.

    `name` says to which index it belongs (a collection and its target), `space` is the fingerprint of
    the embedding space, `kind` the implementation, `applied_seq` the last log entry inside, `mark` a mark of that log
    (none in snapshots of older versions). `created_at` is RFC 3339 in UTC, for people only. Loading refuses any other
    `format`, and the index is rebuilt from the log.
    """

    __pydantic_config__ = _STRICT

    name: _Name
    space: _Name
    kind: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,40}$")]
    d: Annotated[int, Field(ge=1, le=MAX_D)]
    ntotal: _Count
    applied_seq: _Count
    created_at: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$")]
    files: tuple[SnapshotFile, ...]
    format: Literal[1] = 1
    mark: Annotated[str, Field(pattern=r"^([0-9]{1,18}:-?[0-9]{1,19})?$")] = ""

    def to_json(self) -> bytes:
        """UTF-8 JSON with sorted keys: equal manifests give equal bytes."""
        fields = asdict(self)
        if not self.mark:
            del fields["mark"]
        return json.dumps(fields, sort_keys=True, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, text: bytes) -> SnapshotManifest:
        """The manifest in `text`. Raises ValueError for anything that `to_json` does not write."""
        try:
            manifest = TypeAdapter(SnapshotManifest).validate_json(text)
        except ValidationError as error:
            wrong = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}") from None
        if len({file.name for file in manifest.files}) != len(manifest.files):
            raise ValueError("files: a name twice")
        if manifest.to_json() != text:
            raise ValueError("not as it was written: a field twice or missing, or another order")
        return manifest
