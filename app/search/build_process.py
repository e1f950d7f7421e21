"""`python -m app.search.build_process ORDER`: builds the sealed segment of an index from the log.

The order is JSON (see `BuildOrder`). Standard input has the queries that the segment is calibrated with, as arrays of
numpy one after the other: queries of people are written to no file. The process reads the log a few thousand entries
at a time, so that SQLite can checkpoint its WAL meanwhile. It ignores changes after `upto`: they come again when the
log is replayed from there.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from app.core.process import die_with_parent
from app.core.types import Target
from app.storage.address import connect_readonly
from app.storage.sql import Connection
from app.storage.tables import embeddings
from index.segment_builder import VectorBlock, build_segment
from index.types import Embeddings
from index.validation import has_unit_length

BATCH = 4096
ADDRESS = "SIGHTLINE_BUILD_DATABASE"  # the variable with the database's address, which nobody else may read
NICE = 10
"""Searches go first. Not the lowest priority: while pictures come in the processors are never idle, and a segment that
is never finished would leave every vector in memory."""


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """Which segment to build: of which part of the log, which then had `mark`, and into which folder."""

    collection: str
    target: Target
    space: str
    d: int
    upto: int
    folder: str
    name: str
    mark: str = ""

    def to_json(self) -> str:
        """The argument of the process."""
        return json.dumps(asdict(self))


def run_build(order: BuildOrder, database: str, asked: Sequence[Embeddings] = ()) -> None:
    """Build the segment from the log of a database. Raises what the database and `build_segment` raise."""
    with connect_readonly(database) as connection:
        build_segment(
            Path(order.folder),
            read_vector_blocks(connection, order),
            name=order.name,
            space=order.space,
            d=order.d,
            applied_seq=order.upto,
            mark=order.mark,
            asked=asked,
        )


def write_arrays(arrays: Sequence[Embeddings]) -> bytes:
    """As `read_arrays` reads them."""
    sink = io.BytesIO()
    for array in arrays:
        np.save(sink, array, allow_pickle=False)
    return sink.getvalue()


def read_arrays(file: BinaryIO) -> list[Embeddings]:
    """The arrays that follow each other in a file."""
    source, arrays = io.BytesIO(file.read()), []
    while source.tell() < len(source.getbuffer()):
        arrays.append(np.load(source, allow_pickle=False))
    return arrays


def read_vector_blocks(connection: Connection, order: BuildOrder) -> Iterator[VectorBlock]:
    """The vectors of the log up to `upto`, without those that a follower would skip."""
    seq = 0
    while entries := embeddings.list_after(connection, order.collection, order.space, order.target, seq, BATCH):
        kept = [
            (key, vector)
            for seq, _, key, vector in entries
            if seq <= order.upto and key >= 0 and vector is not None and len(vector) == 4 * order.d
        ]
        if kept:
            ids = np.array([key for key, _ in kept], np.int64)
            vectors = np.frombuffer(b"".join(vector for _, vector in kept), "<f4").reshape(-1, order.d)
            good = has_unit_length(vectors)
            yield ids[good], vectors[good]
        seq = entries[-1][0]
        if seq >= order.upto:
            return


def main(argument: str, parent: int) -> int:
    """Build what `argument` orders; the exit code. An error is one line on stderr."""
    die_with_parent(parent)
    os.nice(NICE)
    try:
        run_build(BuildOrder(**json.loads(argument)), os.environ[ADDRESS], read_arrays(sys.stdin.buffer))
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
