"""Make a data directory with any number of pictures: rows and vectors written to the database, no files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from app.core.types import DEFAULT_COLLECTION, EmbeddingSpace, Target
from app.encoder.protocol import Embeddings
from app.storage.address import open_database
from app.storage.database import Database
from app.storage.sql import Connection
from app.storage.tables import embeddings

TARGET: Target = "images"
DAY = "2026-01-01T00:00:00.000Z"
BLOCK = 20_000  # pictures in a commit


def fill_data_directory(folder: Path, space: EmbeddingSpace, rows: Embeddings) -> Path:
    """Make the data directory once. Picture n, from 0 on, has key n + 1 and the vector `rows[n]`."""
    done = folder / "filled"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        database = open_database(folder / "sightline.db")
        try:
            database.write(lambda c: set_space(c, space))
            for start in range(0, len(rows), BLOCK):
                add_pictures(database, space, start + 1, rows[start : start + BLOCK])
        finally:
            database.close()
        done.touch()
    return folder


def set_space(c: Connection, space: EmbeddingSpace) -> None:
    """Set the embedding space of the default collection."""
    embeddings.save_space(c, space)
    c.execute("UPDATE collections SET space = ? WHERE name = ?", (space.fingerprint, DEFAULT_COLLECTION))


def add_pictures(database: Database, space: EmbeddingSpace, first: int, rows: Embeddings) -> int:
    """Commit `ready` rows and log entries with keys from `first` on, as a worker does. Returns the last seq."""

    def work(c: Connection) -> int:
        keys = range(first, first + len(rows))
        c.executemany(
            "INSERT INTO images (key, collection, id, sha256, status, width, height, format, bytes, created_at)"
            " VALUES (?, ?, ?, ?, 'ready', 224, 224, 'jpeg', 1, ?)",
            ((key, DEFAULT_COLLECTION, f"p{key}", hashlib.sha256(b"%d" % key).hexdigest(), DAY) for key in keys),
        )
        c.executemany(
            "INSERT INTO embeddings (collection, space, target, op, key, vector) VALUES (?, ?, ?, 'add', ?, ?)",
            (
                (DEFAULT_COLLECTION, space.fingerprint, TARGET, key, row.astype("<f4").tobytes())
                for key, row in zip(keys, rows, strict=True)
            ),
        )
        return embeddings.get_last_seq_of_all(c)

    return database.write(work)
