from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from app.core.types import NewImage
from app.service.photograph_watch import LOOK_SECONDS, MIN_PHOTOGRAPHS, PhotographWatch
from app.storage.database import Database
from app.storage.tables import images
from tests.support.makers import claim, finish, new
from tests.support.servers import wait_until

PHOTOGRAPH = replace(new(), format="jpeg")


def fill(database: Database, first: int, count: int, like: NewImage, size: tuple[int, int]) -> None:
    for n in range(first, first + count):
        one = replace(like, sha256=new(n).sha256, width=size[0], height=size[1])
        database.write(lambda c, one=one: images.add(c, "default", one, None, False))  # type: ignore[misc]
    for lease in claim(database, limit=count):
        finish(database, lease)
    database.write(lambda c: c.execute("UPDATE images SET width = ?, height = ? WHERE width = 4", size))


def test_drawings_and_few_photographs_are_no_reason(database: Database, tmp_path: Path) -> None:
    watch = PhotographWatch(database, tmp_path)
    assert watch._look() == LOOK_SECONDS
    fill(database, 0, 30, new(), (1_000, 1_000))
    fill(database, 30, MIN_PHOTOGRAPHS - 1, PHOTOGRAPH, (1_000, 1_000))
    assert watch._look() == LOOK_SECONDS
    fill(database, 60, 12, PHOTOGRAPH, (300, 200))
    assert watch._look() == LOOK_SECONDS
    assert not watch.found


def test_photographs_are_told_once_with_the_commands(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(database, 0, 12, PHOTOGRAPH, (1_000, 1_000))
    watch = PhotographWatch(database, tmp_path / "my data")
    with caplog.at_level(logging.WARNING):
        watch.start("starter")
        wait_until(lambda: watch.found, 60.0, lambda: str(watch._loop.fault))
        watch.close()
        assert watch._look() is None
    told = [record.getMessage() for record in caplog.records if record.name == "app.service.photograph_watch"]
    assert len(told) == 1
    assert "the model starter does not know photographs" in told[0]
    assert f"sightline reembed --data-dir '{tmp_path}/my data' --model photos" in told[0]


def test_a_model_of_photographs_is_not_watched(database: Database, tmp_path: Path) -> None:
    watch = PhotographWatch(database, tmp_path)
    watch.start("ViT-B-32/laion2b_s34b_b79k")
    assert not watch._loop.is_alive()
    watch.close()
