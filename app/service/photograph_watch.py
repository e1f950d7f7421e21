"""Notices, once, that photographs come into a data directory whose model knows drawings alone."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

from app.core.background import BackgroundLoop
from app.encoder.catalogue import FAST_PHOTOS, PHOTOS, find_facts
from app.storage.database import Database
from app.storage.tables import images

log = logging.getLogger(__name__)

LOOK_SECONDS = 3.0
LOOK_AT = 200  # of the newest pictures
MIN_PHOTOGRAPHS = 10
SHARE = 0.5  # of them


class PhotographWatch:
    """Looks at the newest pictures until most of them are photographs, and logs then which command brings a model.

    A photograph is a JPEG of half a megapixel or more: drawings are rarely kept so, and pictures of cameras always.
    """

    def __init__(self, database: Database, data_dir: Path) -> None:
        self.found = False
        self._database = database
        self._data_dir = data_dir
        self._model = ""
        failing = "whether the pictures are photographs is not known"
        self._loop = BackgroundLoop("photograph-watch", self._look, failing)

    def start(self, model: str) -> None:
        """Begin, if the loaded model has limits."""
        self._model = model
        if find_facts(model).hint is not None:
            self._loop.start()

    def close(self) -> None:
        self._loop.close()

    def _look(self) -> float | None:
        if self.found:
            return None
        count, photographs = self._database.read(lambda c: images.count_photographs(c, LOOK_AT))
        if photographs < max(MIN_PHOTOGRAPHS, SHARE * count):
            return LOOK_SECONDS
        self.found = True
        folder = shlex.quote(str(self._data_dir))
        log.warning(
            "most of the newest pictures are photographs, and the model %s does not know photographs: end this server,"
            " and run `sightline reembed --data-dir %s --model %s` (or --model %s, which is smaller), then"
            " `sightline serve --data-dir %s --model %s`",
            *(self._model, folder, PHOTOS, FAST_PHOTOS, folder, PHOTOS),
        )
        return None
