"""The pairs of a task: sent along in its parameters, or a file on the server's machine that they name."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.core.errors import Overloaded
from app.decode.pool import DecodePool
from app.service.tasks import TaskContext, TaskStopped
from app.sources.local_files import AllowedFolders
from app.sources.pairs import PAIRS_PREFIX, PairSet, read_pairs
from app.storage.database import Database
from app.storage.tables import embeddings

VECTORS_AT_ONCE = 2_000  # read


def pack_parameters(pairs: PairSet) -> dict[str, Any]:
    """A set as parameters of a task, a third of its size."""
    return {"set": base64.b85encode(zlib.compress(json.dumps(pairs.to_json()).encode())).decode()}


def read_set(context: TaskContext, pool: DecodePool, folders: AllowedFolders) -> PairSet:
    """Raises Validation for a file that cannot be used, TaskStopped."""
    parameters = context.parameters
    if (source := parameters.get("source")) is None:
        return PairSet.from_json(json.loads(zlib.decompress(base64.b85decode(parameters["set"]))))
    path = folders.resolve_file(source.removeprefix(PAIRS_PREFIX))
    try:
        return read_pairs(pool, path, path.suffix, parameters["split"], lambda: must_stop(context))
    except Overloaded:
        context.check()
        raise


def read_vectors(
    database: Database, keys: Sequence[int], check: Callable[[], None], space: str | None = None
) -> Mapping[int, bytes]:
    """The vectors of these pictures in a space, or in that of their collection; some have none.

    `check` is called between reads, and raises what ends them.
    """
    found: dict[int, bytes] = {}
    for start in range(0, len(keys), VECTORS_AT_ONCE):
        check()
        some = keys[start : start + VECTORS_AT_ONCE]
        found |= database.read(lambda c, some=some: embeddings.get_vectors(c, "images", some, space))  # type: ignore[misc]
    return found


def must_stop(context: TaskContext) -> bool:
    try:
        context.check()
    except TaskStopped:
        return True
    return False
