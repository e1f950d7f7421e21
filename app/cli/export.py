"""`sightline export`: the pictures of a collection with their vectors, as a Parquet file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO

import numpy as np

from app.cli import ServerError
from app.core.errors import StartupError
from app.core.files import atomic_write
from app.core.types import EmbeddingSpace, Image
from app.decode.parquet_writer import COLUMNS, VectorTable
from app.storage.address import open_database
from app.storage.database import Database
from app.storage.sql import Connection
from app.storage.tables import collections, embeddings, images

PART = 1_000  # pictures in one row group

Part = list[tuple[Image, bytes]]


def export_vectors(data_dir: Path, collection: str, out: Path) -> tuple[int, EmbeddingSpace]:
    """Write the ready pictures of a collection to `out`, while a server runs or not; returns how many they are.

    `out` is whole or not there. Pictures that come meanwhile may be in it. Raises StartupError, NotFound, ServerError.
    """
    if not (data_dir / "sightline.db").is_file():
        raise StartupError(f"there is no data directory at {data_dir}")
    with closing(open_database(data_dir / "sightline.db")) as database:
        space = database.read(lambda c: find_space(c, collection))
        if space is None:
            raise ServerError(f"the collection {collection!r} has no vectors yet")
        try:
            with atomic_write(out, "wb") as file:
                count = write_table(database, collection, space, file)
                if database.read(lambda c: find_space(c, collection)) != space:
                    raise ServerError("the model of the collection was changed meanwhile; run the command again")
        except OSError as error:
            raise ServerError(f"{out} cannot be written: {error.strerror}") from None
    return count, space


def find_space(c: Connection, collection: str) -> EmbeddingSpace | None:
    fingerprint = collections.require(c, collection).space
    return embeddings.get_space(c, fingerprint) if fingerprint else None


def write_table(database: Database, collection: str, space: EmbeddingSpace, file: IO[bytes]) -> int:
    about = {"collection": collection, "model": space.model, "space": space.fingerprint, "d": str(space.d)}
    count = 0
    with VectorTable(file, space.d, about) as table:
        for part in read_parts(database, collection, space):
            vectors = np.frombuffer(b"".join(vector for _, vector in part), "<f4").reshape(len(part), space.d)
            table.write([make_row(image) for image, _ in part], vectors)
            count += len(part)
    return count


def read_parts(database: Database, collection: str, space: EmbeddingSpace) -> Iterator[Part]:
    """The ready pictures with their vectors of a space, in the order in which they came."""
    keys = database.read(lambda c: images.list_ready_keys(c, collection))
    for start in range(0, len(keys), PART):
        some = keys[start : start + PART]

        def work(c: Connection, some: list[int] = some) -> Part:
            found = images.get_by_keys(c, some)
            vectors = embeddings.get_vectors(c, "images", some, space.fingerprint)
            return [(found[key], vectors[key]) for key in some if key in found and key in vectors]

        if part := database.read(work):
            yield part


def make_row(image: Image) -> dict[str, object]:
    row = {name: getattr(image, name) for name in COLUMNS}
    return {**row, "tags": list(image.tags), "metadata": json.dumps(dict(image.metadata), ensure_ascii=False)}
