"""Of a cluster, one server changes the model (see `app.service.reembed`); the others load the new one when it has."""

from __future__ import annotations

import logging
from functools import partial

from app.core.background import BackgroundLoop
from app.core.errors import Overloaded
from app.core.settings import Settings
from app.service.search_service import SearchService
from app.storage.database import Database
from app.storage.model_check import find_precision
from app.storage.sql import Connection
from app.storage.tables import collections, embeddings

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


class ModelFollower(BackgroundLoop):
    """Lets this server answer with the model that the collections belong to.

    Until the new one is loaded, it answers from the indexes of the old one, as far as they are open.
    """

    def __init__(self, settings: Settings, database: Database, search: SearchService) -> None:
        super().__init__("model-follower", self._look, "the model that the cluster has now is not loaded")
        self._settings = settings
        self._database = database
        self._search = search

    def _look(self) -> float:
        loaded = self._search.loaded
        if loaded is None or self._search.is_changing:
            return LOOK_SECONDS
        model = self._database.read(partial(find_other_model, space=loaded.encoder.space.fingerprint))
        if model is not None:
            log.info("the cluster has the model %s now; loading it", model)
            try:
                new = self._search.load_beside(model, find_precision(self._database, self._settings, model))
            except Overloaded:
                if self._search.is_stopping:
                    return LOOK_SECONDS
                raise
            self._search.change_model(new)
        return LOOK_SECONDS


def find_other_model(c: Connection, space: str) -> str | None:
    """The model of the collections, if it is not that of this space and none has vectors of this space."""
    held = {one.space for one in collections.list_all(c) if one.space}
    if not held or space in held:
        return None
    other = embeddings.get_space(c, held.pop())
    return None if other is None else other.model
