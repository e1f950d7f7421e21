"""`sightline reembed`: hand a data directory to another model."""

from __future__ import annotations

import shutil

import apsw
from rich.console import Console

from app.core.errors import StartupError
from app.core.locks import DataLock, living
from app.core.settings import Settings
from app.encoder.loader import load
from app.encoder.memory_check import NOBODY, Crew
from app.encoder.protocol import checked
from app.service.service import open_library
from app.storage.tables import collections, embeddings, images, texts

BATCH = 64


def reembed(settings: Settings, console: Console) -> None:
    """Queue every picture and encode every text anew, in one transaction: all of it happens, or nothing.

    Raises StartupError while a server or a worker runs on it, or when the model cannot be loaded.
    """
    if not (settings.data_dir / "sightline.db").is_file():
        raise StartupError(f"there is no data directory at {settings.data_dir}")
    lock = DataLock(settings.data_dir)
    library = open_library(settings)
    try:
        if living(settings.data_dir / "workers"):
            raise StartupError(
                "a worker runs on the data directory; end it first, or it would add vectors of its model"
            )
        encoder = load(
            settings.model,
            settings.models,
            device=settings.device,
            precision=settings.precision,
            runtime=settings.runtime,
            crew=NOBODY if settings.ignore_memory else Crew(servers=1),
        )
        space = encoder.space
        known = library.database.read(texts.all_of)
        vectors = [
            vector.astype("<f4").tobytes()
            for start in range(0, len(known), BATCH)
            for vector in checked(encoder.encode_texts([text.text for text in known[start : start + BATCH]]))
        ]

        def work(c: apsw.Connection) -> int:
            embeddings.remember(c, space)
            embeddings.forget(c)
            for text, vector in zip(known, vectors, strict=True):
                label = texts.label(c, text.key)
                collections.stamp(c, label, space.fingerprint)
                embeddings.add(c, label, space.fingerprint, "texts", text.key, vector)
            return images.requeue_all(c)

        queued = library.database.write(work)
        shutil.rmtree(settings.data_dir / "snapshots", ignore_errors=True)
    finally:
        library.database.close()
        lock.close()
    console.print(
        f"{queued} pictures are queued and {len(known)} texts encoded for {space.model};"
        f" start `sightline serve --model {space.model}` and they are taken in again"
    )
