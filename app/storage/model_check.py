"""Whether a model fits a data directory: it has the same space, and gives the same vectors as at the beginning."""

from __future__ import annotations

import numpy as np

from app.core.errors import StartupError
from app.core.settings import Settings
from app.core.types import EmbeddingSpace
from app.encoder import golden
from app.encoder.catalogue import CHOICES, resolve_alias
from app.encoder.protocol import Encoder
from app.storage.database import Database
from app.storage.sql import Connection
from app.storage.tables import collections, embeddings, next_space


def find_model_name(database: Database, name: str) -> str:
    """The full name of a model. A choice such as `photos` means what it meant when this directory was first served.

    A name by which the directory was served before a server changed its model means the new model.
    """
    short, full = name.lower(), resolve_alias(name)

    def work(c: Connection) -> str | None:
        changed = next_space.find_change(c, {short, full})
        if changed is not None:
            return changed[0]
        return embeddings.get_chosen_model(c, short) if short in CHOICES else None

    return database.read(work) or full


def tell_change(database: Database, name: str) -> str | None:
    """What to say if `name` means another model here since a server has changed it."""
    change = database.read(lambda c: next_space.find_change(c, {name.lower(), resolve_alias(name)}))
    if change is None:
        return None
    model, at = change
    return f"the data directory has belonged to {model} since {at[:10]}, no longer to {name}; set --model {model}"


def find_precision(database: Database, settings: Settings, name: str) -> str:
    """The precision that is set, or else the one that was asked for when this model filled the data directory."""
    if settings.precision != "auto":
        return settings.precision
    return database.read(lambda c: next_space.get_precision(c, name)) or settings.precision


def check_space(database: Database, space: EmbeddingSpace) -> None:
    """Raise StartupError if the data directory has vectors of another space than `space`, or a server of another."""

    def work(c: Connection) -> EmbeddingSpace | None:
        held = {collection.space for collection in collections.list_all(c) if collection.space}
        if others := held - {space.fingerprint}:
            return embeddings.get_space(c, others.pop())
        return None if held else embeddings.get_other_served(c, space.fingerprint)

    other = database.read(work)
    if other is not None:
        serve = f"serve it with --model {other.model}, or " if other.model != space.model else ""
        raise StartupError(
            f"the data directory belongs to model {other.model} (d {other.d}, weights {other.weights[:12]}), not"
            f" {space.model} (d {space.d}, weights {space.weights[:12]}); {serve}run `sightline reembed"
            f" --model {space.model}` to encode its pictures anew"
        )


def check_name(database: Database, name: str) -> None:
    """Raise StartupError if the data directory has vectors, and none of a model of this name or alias.

    It serves before a download. `check_space` knows better, because the same weights may have several names.
    """
    name = find_model_name(database, name)

    def work(c: Connection) -> list[EmbeddingSpace]:
        used = {collection.space for collection in collections.list_all(c)} - {None}
        return [space for one in used if one and (space := embeddings.get_space(c, one))]

    spaces = database.read(work)
    if spaces and name not in {space.model for space in spaces}:
        other = spaces[0].model
        raise StartupError(
            f"the data directory belongs to model {other}, not {name}; serve it with --model {other}, or run"
            f" `sightline reembed --model {name}` to encode its pictures anew"
        )


def check_golden(database: Database, encoder: Encoder, *, texts: bool = True) -> None:
    """Raise StartupError if the model gives other vectors than when the data directory got its first vectors.

    Its weights and preprocessing are the same then; a library that decodes, scales or multiplies has changed. Without
    `texts` only pictures are compared: a worker has no text tower.
    """
    space = encoder.space
    kept = database.read(lambda c: embeddings.get_golden(c, space.fingerprint))
    before = None if kept is None else np.frombuffer(kept, dtype="<f4").reshape(-1, space.d)
    if before is not None and len(before) != golden.GOLDEN_COUNT:  # made from other inputs by an older version
        before = None
    if before is None and not texts:
        return
    now = golden.encode_golden(encoder, texts=texts)
    if before is None:
        database.write(lambda c: embeddings.save_golden(c, space.fingerprint, now.astype("<f4").tobytes()))
    elif not golden.is_same_model(now, before[: len(now)]):
        raise StartupError(
            f"model {space.model} gives other vectors here than those of the data directory, though its weights are"
            f" the same: a library has changed; install the versions of requirements/run.txt, or run"
            f" `sightline reembed --model {space.model}`"
        )
