"""`sightline reembed`: moves a data directory to another model."""

from __future__ import annotations

import shutil

from rich.console import Console

from app.core.errors import StartupError
from app.core.locks import DataDirLock, count_live_owners
from app.core.settings import Settings
from app.encoder.loader import EncoderOptions, load_encoder
from app.encoder.memory_check import ModelProcesses
from app.encoder.reading import TextReader
from app.service.data_dir import open_database
from app.service.reembed import check_stored_formats
from app.storage.sql import Connection
from app.storage.tables import collections, embeddings, images, texts

BATCH = 64


def reembed(settings: Settings, console: Console) -> None:
    """Queue every picture and embed every text again, in one transaction.

    Raises StartupError while a server or a worker runs on the directory, or when the model cannot be loaded.
    """
    if settings.is_cluster:
        raise StartupError("the servers of a cluster change their model while they run: sightline reembed --live")
    if not (settings.data_dir / "sightline.db").is_file():
        raise StartupError(f"there is no data directory at {settings.data_dir}")
    lock = DataDirLock(settings.data_dir)
    database = open_database(settings)
    try:
        if count_live_owners(settings.data_dir / "workers"):
            raise StartupError(
                "a worker runs on the data directory; end it first, because it would add vectors of its model"
            )
        check_stored_formats(database, settings)
        options = EncoderOptions.of(settings, ModelProcesses(servers=1))
        encoder = load_encoder(settings.model, settings.models, options)
        space = encoder.space
        known = database.read(texts.list_all)
        reader = TextReader(encoder)
        words = [text.text for text in known]
        vectors = [
            vector for start in range(0, len(words), BATCH) for vector in reader.encode(words[start : start + BATCH])
        ]

        def work(c: Connection) -> int:
            embeddings.save_space(c, space)
            embeddings.delete_all(c)
            for text, vector in zip(known, vectors, strict=True):
                texts.set_truncated(c, text.key, reader.is_truncated(text.text))
                label = texts.get_label(c, text.key)
                collections.assign_space(c, label, space.fingerprint)
                embeddings.add(c, label, space.fingerprint, "texts", text.key, vector)
            return images.requeue_all(c)

        queued = database.write(work)
        shutil.rmtree(settings.cache / "snapshots", ignore_errors=True)
    finally:
        database.close()
        lock.close()
    console.print(
        f"{queued} pictures are queued, and {len(known)} texts are embedded by {space.model};"
        f" start `sightline serve --model {space.model}` to embed the pictures"
    )
