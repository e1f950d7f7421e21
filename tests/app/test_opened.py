from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.errors import NotFound, Overloaded
from app.opened import OVERHEAD, Key, Log, News, Open, Opener
from app.store import embeddings
from app.store.database import Database
from index.exact import ExactIndex
from index.follower import Follower
from index.protocol import SearchParams
from index.types import Embeddings, Ids, LogEntry, Scores
from tests.app.makers import FINGERPRINT, SPACE, VECTOR

KEY: Key = ("default", "texts")


def append(database: Database, key: int = 1, label: str = "default") -> int:
    database.write(lambda c: embeddings.remember(c, SPACE))
    return database.write(lambda c: embeddings.add(c, label, FINGERPRINT, "texts", key, VECTOR))


def test_an_index_is_brought_up_to_its_log_and_costs_its_vectors(database: Database, tmp_path: Path) -> None:
    woken: list[object] = []
    seq = append(database)
    one = Opener(database, SPACE, tmp_path, woken.append)(KEY, lambda: None)
    assert (one.index.ntotal, one.follower.applied_seq) == (1, seq)
    assert one.bytes() > OVERHEAD
    one.follower.notify()
    assert woken == [KEY]
    one.follower.close()


def test_an_opening_that_is_wanted_no_more_ends_and_saves_nothing(database: Database, tmp_path: Path) -> None:
    append(database)

    def check() -> None:
        raise NotFound("gone")

    with pytest.raises(NotFound):
        Opener(database, SPACE, tmp_path, lambda _: None)(KEY, check)
    assert list(tmp_path.glob("default/*/*")) == []


def test_a_log_that_cannot_be_read_ends_the_opening(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Log, after: int, limit: int) -> list[LogEntry]:
        raise OSError("the disk is away")

    append(database)
    monkeypatch.setattr("app.opened.FAULT_SECONDS", 0.05)
    monkeypatch.setattr(Log, "read", broken)
    with pytest.raises(Overloaded, match="'default/texts' cannot be opened"):
        Opener(database, SPACE, tmp_path, lambda _: None)(KEY, lambda: None)


def test_news_tell_each_log_that_has_grown_once(database: Database) -> None:
    append(database)
    news = News(database)
    assert news() == []
    for key in (2, 3):
        append(database, key)
    append(database, 4, label="other")
    assert sorted(news()) == [("default", "texts"), ("other", "texts")]
    assert news() == []


class Bare:
    """An index that does not tell what it holds."""

    d = 4
    ntotal = 10

    def add(self, ids: Ids, vectors: Embeddings) -> None: ...

    def remove(self, ids: Ids) -> None: ...

    def search(self, queries: Embeddings, k: int, params: SearchParams | None = None) -> tuple[Scores, Ids]:
        return np.empty((0, k), np.float32), np.empty((0, k), np.int64)

    def close(self) -> None: ...


def test_an_index_that_does_not_tell_its_size_counts_with_its_vectors() -> None:
    follower = Follower(ExactIndex(4), lambda *_: [], head=lambda: 0)
    assert Open(Bare(), follower).bytes() == OVERHEAD + 160
