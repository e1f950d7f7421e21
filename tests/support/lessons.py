"""Collections that a head can be taught: pictures of three colours, with captions by somebody who swaps the colours.

For the encoder of colours, each caption names three colours, and the picture shows those that PERMUTED makes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np

from app.core.types import Lease
from app.encoder.dummy import PALETTE, DummyEncoder
from app.encoder.protocol import Embeddings, normalise
from app.storage.address import open_database
from app.storage.database import Database
from app.storage.sql import Connection
from app.storage.tables import embeddings, work_queue
from tests.support.makers import claim, insert

ENCODER = DummyEncoder()
NAMES = [names[0] for names in PALETTE]
PERMUTED = np.random.default_rng(5).permutation(len(NAMES))


def make_captions(count: int) -> list[str]:
    """Up to 220 distinct captions."""
    triples = list(combinations(NAMES, 3))
    chosen = np.random.default_rng(3).permutation(len(triples))[:count]
    return [" ".join(triples[n]) for n in chosen]


def make_vectors(captions: Sequence[str], *, swapped: bool = True) -> Embeddings:
    """The pictures of these captions, with some noise; colours `swapped` as PERMUTED says."""
    vectors = ENCODER.encode_texts(captions)
    if swapped:
        colours = vectors[:, : len(NAMES)].copy()
        vectors[:, PERMUTED] = colours
    noise = np.random.default_rng(4).standard_normal(vectors.shape)
    return normalise(vectors + 0.05 * noise)


def fill(database: Database, captions: Sequence[str], vectors: Embeddings) -> list[str]:
    """Ready pictures with these captions and vectors; returns their ids."""
    database.write(lambda c: embeddings.save_space(c, ENCODER.space))
    for n, caption in enumerate(captions):
        insert(database, n, f"p{n}", caption=caption)
        (lease,) = claim(database)
        database.write(partial(finish, lease=lease, vector=vectors[n].astype("<f4").tobytes()))
    return [f"p{n}" for n in range(len(captions))]


def finish(c: Connection, lease: Lease, vector: bytes) -> None:
    work_queue.finish_image(c, lease, ENCODER.space.fingerprint, vector, 4, 3, False)


def fill_data_dir(folder: Path, captions: Sequence[str], vectors: Embeddings) -> None:
    """A data directory with such pictures, without their files, for a server to open."""
    folder.mkdir(mode=0o700, exist_ok=True)
    database = open_database(folder / "sightline.db")
    fill(database, captions, vectors)
    database.close()
