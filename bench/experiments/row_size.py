"""How many bytes a picture takes in PostgreSQL: its row with its indexes, its vector in the log, its words.

    python -m bench.experiments.row_size [PICTURES]

Beside it, a picture in SQLite. The rows are as a bulk load makes them: an id, a name, a caption and two tags.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np

from app.core.types import EmbeddingSpace, NewImage
from app.storage.address import open_database
from app.storage.database import Database
from app.storage.sql import Connection, fetch_all
from app.storage.tables import embeddings, images, work_queue
from tests.support.postgresql import PostgresqlServer

D = 512
SPACE = EmbeddingSpace("any", "0" * 64, D, "1" * 64)
PORTION = 1_000
SIZES = (
    "SELECT relname, pg_table_size(c.oid), pg_indexes_size(c.oid) FROM pg_class c JOIN pg_namespace n"
    " ON n.oid = c.relnamespace WHERE n.nspname = current_schema() AND relkind = 'r' ORDER BY 2 DESC LIMIT 6"
)


def fill(database: Database, pictures: int) -> None:
    """Pictures that are ready, with their vectors."""
    dice = np.random.default_rng(0)
    database.write(lambda c: embeddings.save_space(c, SPACE))
    for start in range(0, pictures, PORTION):
        vectors = dice.standard_normal((PORTION, D), np.float32)
        names = [f"photographs/2026/{start + n:09}.jpg" for n in range(PORTION)]

        def work(c: Connection, names: list[str] = names, vectors: np.ndarray = vectors) -> None:
            for name in names:
                sha256 = f"{abs(hash(name)):064x}"[-64:]
                new = NewImage(
                    sha256,
                    "jpeg",
                    3_000_000,
                    4000,
                    3000,
                    source=name,
                    caption=f"a picture {name[-9:]}",
                    tags=("a", "b"),
                )
                images.add(c, "default", new, None, False)
            for lease, vector in zip(work_queue.claim_images(c, "w", 60.0, PORTION), vectors, strict=True):
                work_queue.finish_image(c, lease, SPACE.fingerprint, vector.tobytes(), 4000, 3000, False)

        database.write(work)


def main(pictures: int) -> None:
    server = PostgresqlServer()
    try:
        with server.database() as address:
            with closing(open_database(address)) as database:
                fill(database, pictures)
            server.execute("VACUUM ANALYZE", address.partition("?")[0].rpartition("/")[2])
            with closing(open_database(address)) as database:
                rows = database.read(lambda c: fetch_all(c, SIZES))
        for name, heap, indexes in rows:
            print(f"{name:12} {heap / pictures:8.0f} bytes a picture, indexes {indexes / pictures:6.0f}")
        print(f"PostgreSQL   {sum(heap + indexes for _, heap, indexes in rows) / pictures:8.0f}")
    finally:
        server.close()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sightline.db")
        with closing(open_database(path)) as database:
            fill(database, pictures)
        print(f"SQLite       {path.stat().st_size / pictures:8.0f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
