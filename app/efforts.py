"""The efforts that measuring has found, in a file beside the snapshots, so that a restart begins with them.

They belong to one embedding space; those of another are left alone until the first is found. Deleting the file is
safe: each index then begins with its own effort and is measured anew.
"""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

from app.types import Target

log = logging.getLogger(__name__)

NAME = "efforts.json"
MOST = 64  # no index has so many steps


class Efforts:
    """The efforts of the indexes of one space by collection and target. Any thread may call any method."""

    def __init__(self, folder: Path, space: str) -> None:
        self._path = folder / NAME
        self._space = space
        self._lock = threading.Lock()
        self._found = self._read()

    def get(self, collection: str, target: Target) -> int | None:
        """The effort found last; None of an index that was not measured."""
        with self._lock:
            return self._found.get(f"{collection}/{target}")

    def put(self, collection: str, target: Target, effort: int) -> None:
        """Keep an effort. A disk that fails costs no more than to measure again."""
        with self._lock:
            self._found[f"{collection}/{target}"] = effort
            self._write()

    def forget(self, collection: str) -> None:
        """Keep nothing of a collection that was dropped."""
        with self._lock:
            gone = [name for name in self._found if name.startswith(f"{collection}/")]
            for name in gone:
                del self._found[name]
            if gone:
                self._write()

    def _read(self) -> dict[str, int]:
        try:
            said = json.loads(self._path.read_text("utf-8"))
            if said["space"] != self._space:
                return {}
            return {str(name): n for name, n in said["efforts"].items() if type(n) is int and 0 <= n <= MOST}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            log.warning("the efforts found before cannot be read (%s); they are measured anew", type(error).__name__)
            return {}

    def _write(self) -> None:
        draft = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps({"space": self._space, "efforts": self._found}), "utf-8")
            draft.replace(self._path)
        except OSError as error:
            log.warning("efforts are not kept: %s", error.strerror)
