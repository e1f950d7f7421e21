"""A data directory of vectors alone, the index over it, and the true answers to compare with.

`python -m tests.reliability.indexed DATA OUT LEAST` opens the index, writes its answers to OUT, and waits to be killed.
"""

from __future__ import annotations

import signal
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.core.errors import Overloaded
from app.core.types import EmbeddingSpace
from app.search.index_manager import IndexManager
from app.storage.address import open_database
from app.storage.database import Database
from bench import data_directory
from index.segmented import RebuildPolicy
from index.types import Embeddings
from tests.support.servers import wait_until

K = 10
QUERIES = 50
CENTRES = 40
NEVER = 1 << 60
SECONDS = 300.0
Ids = npt.NDArray[np.int64]


def space(d: int) -> EmbeddingSpace:
    """Vectors that no model made."""
    return EmbeddingSpace("proof", "0" * 64, d, "0" * 64)


def vectors(count: int, d: int, seed: int) -> Embeddings:
    """Unit vectors around centres, as those of pictures are."""
    centres = np.random.default_rng(0).standard_normal((CENTRES, d))
    dice = np.random.default_rng(seed)
    rows = centres[dice.integers(CENTRES, size=count)] + 0.7 * dice.standard_normal((count, d))
    unit: Embeddings = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def fill(data: Path, count: int, d: int) -> Embeddings:
    """The database of `count` pictures; picture n has key n + 1."""
    rows = vectors(count, d, 1)
    data_directory.fill_data_directory(data, space(d), rows)
    return rows


def search_exactly(rows: Embeddings) -> tuple[Embeddings, Ids]:
    """Scores and keys of the K best of `rows` for each query, by comparing them all."""
    scores = queries(rows.shape[1]) @ rows.T
    best = np.argsort(-scores, axis=1)[:, :K]
    return np.take_along_axis(scores, best, axis=1), best + 1


def queries(d: int) -> Embeddings:
    """What is asked."""
    return vectors(QUERIES, d, 2)


def open_service_index(database: Database, folder: Path, d: int, least: int = 0) -> IndexManager:
    """The index of the database, open; it gets a base from `least` vectors on, or never."""
    indexes = IndexManager(database, space(d), folder, policy=RebuildPolicy(least=least or NEVER, quiet=0.2))
    indexes.open("default")
    return indexes


def ask(indexes: IndexManager, d: int) -> tuple[Embeddings, Ids]:
    """Scores and keys for every query; while a damaged index is built again, it is asked again."""
    ended = time.monotonic() + SECONDS
    while True:
        try:
            with indexes.use("default", "images") as index:
                return index.search(queries(d), K)
        except Overloaded:
            if time.monotonic() > ended:
                raise
            time.sleep(0.02)


def main() -> None:
    """Answer once, and wait."""
    data, out, least = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    with closing(open_database(data / "sightline.db")) as database:
        d = database.read(lambda c: int(next(iter(c.execute("SELECT d FROM spaces")))[0]))
        indexes = open_service_index(database, data / "snapshots", d, least)
        if least:
            wait_until(lambda: indexes.stats("default")["images"]["base"], SECONDS)
        _, keys = ask(indexes, d)
        with open(out.with_suffix(".new"), "wb") as file:
            np.save(file, keys)
        out.with_suffix(".new").rename(out)
        signal.pause()


if __name__ == "__main__":
    main()
